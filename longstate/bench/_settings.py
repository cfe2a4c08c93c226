"""The settings of a run: device, type and sizes; and random operands of these sizes."""

import math
import os
from dataclasses import dataclass, field

import torch
from torch import Tensor

from longstate._environment import installed_memory
from longstate.errors import InputError, expect_whole, near

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Settings:
    """Settings of one run.

    Attributes:
        batch: sequences.
        length: samples of each sequence.
        d_model: channels of a layer; ops have the sizes inside a layer (Mamba's: twice as many).
        dtype: of inputs and parameters, a name in `DTYPES`.
        device: as PyTorch names it.
        threads: processors to use.
        seconds: minimum time for each timing, after warming up.

    Raises:
        InputError: a value cannot be used here.
    """

    batch: int = 1
    length: int = 1024
    d_model: int = 512
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = field(default_factory=torch.get_num_threads)
    seconds: float = 0.2

    def __post_init__(self) -> None:
        for name in ("batch", "length", "d_model"):
            expect_whole(name, getattr(self, name))
        most = max(os.cpu_count() or 1, torch.get_num_threads())
        if not 1 <= self.threads <= most:
            raise InputError(
                f"threads must be from 1 to {most}, as this machine has; got {self.threads}"
            )
        if not 0 < self.seconds <= 3600:
            raise InputError(f"seconds must be above 0 and at most 3600; got {self.seconds:g}")
        if self.dtype not in DTYPES:
            raise InputError(f"there is no dtype {self.dtype!r}; {near(self.dtype, DTYPES)}")
        needed = 2 * self.batch * self.length * self.d_model * DTYPES[self.dtype].itemsize
        there = installed_memory()
        if self.device == "cpu" and there is not None and needed > there:
            raise InputError(
                f"batch x length x d_model is {self.batch * self.length * self.d_model:,}: input "
                f"and output need {needed / 2**30:,.0f} GiB, and this machine has "
                f"{there / 2**30:,.0f} GiB; choose smaller sizes"
            )
        try:
            torch.zeros(1, device=self.device).item()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"device {self.device!r} cannot be used here: {reason}") from None

    @property
    def d_inner(self) -> int:
        """Channels inside a selective layer."""
        return 2 * self.d_model

    @property
    def d_head(self) -> int:
        """Channels of a head: the largest divisor that is at most 64."""
        return next(p for p in range(64, 0, -1) if self.d_inner % p == 0)


class Draw:
    """Random operands, the same in every run."""

    def __init__(self, settings: Settings):
        self.device, self.dtype = settings.device, DTYPES[settings.dtype]
        self._generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        return self.like(torch.randn(*shape, generator=self._generator))

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return self.like(low + (high - low) * torch.rand(*shape, generator=self._generator))

    def half(self, *shape: int) -> Tensor:
        """One half of a wider tensor, as x and its gate are halves of one projection."""
        return self.normal(*shape[:-1], 2 * shape[-1])[..., : shape[-1]]

    def complex_normal(self, *shape: int) -> Tensor:
        return self.like(torch.complex(*torch.randn(2, *shape, generator=self._generator)))

    def decays(self, *shape: int) -> Tensor:
        """Complex numbers inside the unit circle."""
        radius, angle = torch.rand(2, *shape, generator=self._generator)
        return self.like(torch.polar(0.9 + 0.099 * radius, math.pi * angle))

    def like(self, x: Tensor) -> Tensor:
        """`x` on the device, in the type of the run; complex numbers have at least 64 bits."""
        dtype = self.dtype
        if x.is_complex():
            dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
        return x.to(self.device, dtype)
