"""Memory layout of what reaches a kernel."""

import torch
from torch import Tensor


def dense(x: Tensor) -> Tensor:
    """`x` as plain contiguous numbers.

    A lazy conjugate or negation would hide from a kernel. PyTorch resolves those of a custom op's
    inputs, but not those that are made inside, or when an implementation is called directly.
    """
    return x.resolve_conj().resolve_neg().contiguous()


def reals(x: Tensor) -> Tensor:
    """`x` dense; a complex tensor (...) as (..., 2) real, in the same memory where it can be."""
    x = dense(x)
    return torch.view_as_real(x) if x.is_complex() else x


def flags(reset: Tensor | None, like: Tensor) -> Tensor:
    """`reset` (b, t) as bytes; one byte that nobody reads when None."""
    if reset is None:
        return torch.zeros(1, 1, dtype=torch.uint8, device=like.device)
    return dense(reset).view(torch.uint8)
