"""What the kernels need to know of A."""

import torch
from torch import Tensor


def pole_rows(A: Tensor) -> Tensor:
    """Five rows (5, n) of reals: Re A, Im A, Re 1/A, Im 1/A, and 1 where A is 0.

    1/A is 0 where A is so small that (exp(A dt) - 1) / A is dt to the last bit.
    """
    tiny = A.abs() < 1e-20
    inverse = torch.where(tiny, 0, 1 / torch.where(tiny, 1, A))
    return torch.stack([A.real, A.imag, inverse.real, inverse.imag, tiny.to(A.real.dtype)])
