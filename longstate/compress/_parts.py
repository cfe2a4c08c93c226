"""Convert one tensor of a state to whole numbers, and back.

    Rotated   round(c / step) with c = L (x - mean) R for each group; one step for all numbers
    Rounded   x / scale of its row, in a few bits; or x in a narrower floating-point type

The error of every number c of a rotated part is at most half a step, for any state: numbers outside
their range are stored as outliers.

Axes: b rows (sequences), g groups with coordinates of their own (channels, heads), r rows of a
group that share R, m real numbers of such a row, k = g r m.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.compress._digits import Ints
from longstate.errors import InputError

Form = Literal["real", "halves", "pairs"]
"""Complex numbers as real ones: all real parts, then all imaginary parts; or (re, im) pairs."""


class Place(NamedTuple):
    """Name, shape and type of a tensor of a state.

    Attributes:
        name: in the state, as in `longstate.stream`.
        shape: of one sequence.
        dtype: without "torch.".
        form: of its complex numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    form: Form = "real"

    @property
    def type(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def bits(self) -> int:
        """Size of the tensor of one sequence, before encoding."""
        return 8 * self.type.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def real(self, x: Tensor) -> Tensor:
        """x (b, *shape) as real numbers (b, ...), float64."""
        x = x.detach().cpu().resolve_conj()
        if not x.is_complex():
            return x.double()
        pairs = torch.view_as_real(x.to(torch.complex128))
        if self.form == "halves":
            return torch.cat([pairs[..., 0], pairs[..., 1]], dim=-1)
        return pairs.flatten(-2)

    def back(self, x: Tensor) -> Tensor:
        """The inverse of `real`, for the same numbers in any shape."""
        if not self.type.is_complex:
            return x.reshape(-1, *self.shape).to(self.type)
        if self.form == "halves":
            half = x.reshape(len(x), *self.shape[:-1], 2, self.shape[-1])
            return torch.complex(half[..., 0, :], half[..., 1, :]).to(self.type)
        pairs = x.reshape(len(x), *self.shape, 2).contiguous()
        return torch.view_as_complex(pairs).to(self.type)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rotated:
    """A tensor in coordinates that are computed from its readout.

    Args:
        place: which tensor.
        right, right_back (g, m, m): R and its inverse.
        left, left_back (g, r, r): L and its inverse. None: L = 1.
        mean (g, r, m): of the tensor.
        step: of every number c.
        low, levels (k): smallest of the whole numbers, and how many there are. One: it is always 0.
        deviation (k): standard deviation of the whole numbers, for the entropy coder.
        target: squared error that the step was computed for, as a share of `total`.
        total: mean energy that the tensor adds to later outputs.
        shannon: rate-distortion bound for that error, of a Gaussian tensor, in bits.
        active: how many numbers reverse water-filling gives bits to.
        gaussian: whether covariances come from a system, and not from data.
    """

    place: Place
    right: Tensor
    right_back: Tensor
    left: Tensor | None
    left_back: Tensor | None
    mean: Tensor
    step: float
    low: Tensor
    levels: Tensor
    deviation: Tensor
    target: float
    total: float
    shannon: float
    active: int
    gaussian: bool

    @property
    def numbers(self) -> int:
        return self.mean.numel()

    def coefficients(self, x: Tensor) -> Tensor:
        """c (b, k) of x (b, *shape)."""
        z = self.place.real(x).reshape(-1, *self.mean.shape) - self.mean
        z = z @ self.right
        return (z if self.left is None else self.left @ z).flatten(1)

    def whole(self, x: Tensor) -> Ints:
        """round(c / step) (b, k).

        Raises:
            InputError: a number is not finite or much too large.
        """
        c = self.coefficients(x) / self.step
        if not bool((c.abs() < 2**52).all()):
            raise InputError(
                f"{self.place.name} is not finite, or far outside what its codec was fitted to"
            )
        return c.round().long().numpy()

    def restore(self, whole: Ints) -> Tensor:
        """x (b, *shape) from whole numbers (b, k)."""
        c = torch.from_numpy(whole).double().reshape(-1, *self.mean.shape) * self.step
        z = c if self.left_back is None else self.left_back @ c
        return self.place.back(z @ self.right_back + self.mean)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rounded:
    """A tensor rounded to nearest, with a scale for each of its rows (its last axis).

    Args:
        place: which tensor.
        number: "int8" to "int2", "float16", "bfloat16" or "exact".
    """

    place: Place
    number: str

    @property
    def integers(self) -> int:
        """Bits of each whole number; 0 for a floating-point type."""
        return int(self.number[3:]) if self.number.startswith("int") else 0

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and of real numbers in each."""
        count = int(np.prod(self.place.shape, dtype=np.int64)) * (1 + self.place.type.is_complex)
        last = (self.place.shape[-1] if self.place.shape else 1) * (1 + self.place.type.is_complex)
        return (count // last if last else 0), last

    @property
    def levels(self) -> Ints:
        return np.full(int(np.prod(self.shape)) if self.integers else 0, 1 << self.integers)

    @property
    def row_bytes(self) -> int:
        """Bytes of one sequence beside the digits."""
        rows, last = self.shape
        if self.integers:
            return 2 * rows
        wide = self._float().itemsize // (2 if self._float().is_complex else 1)
        return rows * last * wide

    def encode(self, x: Tensor) -> tuple[bytes, Ints]:
        """The bytes beside the digits, and the digits (b, k)."""
        if not x.numel():
            return b"", np.zeros((len(x), len(self.levels)), np.int64)
        if not self.integers:
            narrow = x.detach().cpu().resolve_conj()
            if narrow.is_complex():
                narrow = torch.view_as_real(narrow)
            if self.number != "exact":
                narrow = narrow.to(self._float())
                _finite(narrow, self.place.name, self.number)
            raw = narrow.contiguous().reshape(len(x), -1).view(torch.uint8)
            return raw.numpy().tobytes(), np.zeros((len(x), 0), np.int64)
        z = self.place.real(x).reshape(len(x), *self.shape)
        most = max((1 << self.integers - 1) - 1, 1)
        scale = (z.abs().amax(-1, keepdim=True) / most).half()
        _finite(scale, self.place.name, self.number)
        digits = (z / scale.double()).nan_to_num(0.0).round().clamp(-most - 1, most) + most + 1
        return scale.numpy().tobytes(), digits.flatten(1).long().numpy()

    def decode(self, beside: bytes, digits: Ints) -> Tensor:
        b = len(digits)
        if not b * int(np.prod(self.place.shape)):
            return torch.zeros(b, *self.place.shape, dtype=self.place.type)
        if not self.integers:
            raw = torch.from_numpy(np.frombuffer(beside, np.uint8).reshape(b, -1).copy())
            parts = raw.view(self._float())
            if not self.place.type.is_complex:
                return parts.reshape(b, *self.place.shape).to(self.place.type)
            wide = parts.to(self.place.type.to_real()).reshape(b, *self.place.shape, 2)
            return torch.view_as_complex(wide)
        rows, last = self.shape
        scale = torch.from_numpy(np.frombuffer(beside, np.float16).reshape(b, rows, 1).copy())
        most = max((1 << self.integers - 1) - 1, 1)
        z = torch.from_numpy(digits).reshape(b, rows, last).double() - most - 1
        return self.place.back(z * scale.double())

    def _float(self) -> torch.dtype:
        if self.number != "exact":
            return getattr(torch, self.number)
        own = self.place.type
        return own.to_real() if own.is_complex else own


def _finite(x: Tensor, name: str, number: str) -> None:
    if not bool(x.isfinite().all()):
        raise InputError(f"{name} holds numbers that are not finite, or too large for {number}")
