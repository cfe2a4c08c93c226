"""Which type the matrix products of the CPU run in."""

import torch
from torch import Tensor


def of_products(x: Tensor, B: Tensor, C: Tensor, wide: torch.dtype) -> torch.dtype:
    """bfloat16 if all operands are, the processor multiplies it and states are float32; else
    `wide`, the type of states."""
    narrow = {x.dtype, B.dtype, C.dtype} == {torch.bfloat16} and wide == torch.float32
    multiplies = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # private
    return torch.bfloat16 if narrow and multiplies() else wide
