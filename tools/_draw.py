"""Seeded tensors for the cases of `_cases`."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

Arguments = dict[str, Any]


class Sizes(NamedTuple):
    """Batch, time, channels, state; heads are `d // p`."""

    b: int
    t: int
    d: int
    n: int
    p: int = 4


class Draw:
    """Seeded tensors of one type."""

    def __init__(self, dtype: torch.dtype, seed: int = 0):
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        # drawn in float64, so that float32 and float64 get the same numbers up to rounding
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        x = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return (low + (high - low) * x).to(self.dtype)

    def complex(self, *shape: int) -> Tensor:
        return torch.complex(self.normal(*shape), self.normal(*shape))

    def poles(self, *shape: int) -> Tensor:
        """Complex numbers with negative real parts."""
        return torch.complex(-self.uniform(*shape, low=0.05), 4 * self.normal(*shape))

    def flags(self, b: int, t: int, share: float) -> Tensor:
        return torch.rand((b, t), generator=self.generator, dtype=torch.float64) < share
