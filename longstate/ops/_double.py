"""Double precision for small tensors whose accuracy decides that of large ones."""

import torch
from torch import Tensor

_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}


def widen(x: Tensor) -> Tensor:
    """`x` in double precision, where the device has it."""
    return x if x.device.type == "mps" else x.to(_WIDE.get(x.dtype, x.dtype))
