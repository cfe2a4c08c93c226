"""The values that a rounded state may take.

    Grid       fixed steps, chosen beforehand; a number outside its range goes to the end of it
    RowGrid    a step for each row, head or tensor, from its largest number now: no number is ever
               outside, and a state that did not change stays as it is

The steps of a `RowGrid` are powers of 2, as in the decoding kernels; see
`longstate.ops.quantized_step`.

Axes: b sequences, g groups, r rows of a group, m numbers of a row.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from longstate.compress._parts import Place
from longstate.ops.quantized_step import Digits, seed_of
from longstate.ops.quantized_step.reference import exponents, power, whole

Scale = Literal["number", "row", "head", "tensor"]
SCALES: tuple[Scale, ...] = ("number", "row", "head", "tensor")
SHARED = {"row": (-1,), "head": (-2, -1), "tensor": (-3, -2, -1)}


class Snapped(NamedTuple):
    """A rounded tensor.

    Attributes:
        value (b, g, r, m): as it is kept.
        rest (b, g, r, m): what is kept beside it, with feedback. None: nothing.
        outside: how many numbers were outside the range.
        step: from one value to the next, of the finest part; broadcasts.
    """

    value: Tensor
    rest: Tensor | None
    outside: int
    step: Tensor


class Grid(NamedTuple):
    """Fixed steps.

    Attributes:
        place: which tensor.
        step (g, r, m): from one value to the next; 0 is one.
        levels (g, r, m): how many.
        observe (g, r, m): energy of the later outputs for an error of 1.
        digits: how numbers are rounded; its bits are those on average.
    """

    place: Place
    step: Tensor
    levels: Tensor
    observe: Tensor
    digits: Digits

    @property
    def bits(self) -> float:
        """Of one number, on average."""
        many = 2 if self.digits.rounding == "feedback" else 1
        return many * float(self.levels.double().log2().mean())

    @property
    def finest(self) -> Tensor:
        """The step (g, r, m) of what is kept, the rest included."""
        return self.step / self.levels if self.digits.rounding == "feedback" else self.step

    def round(self, x: Tensor) -> Snapped:
        """The nearest value of x (b, g, r, m), or one of the two at random."""
        k = x / self.step
        random = self.digits.rounding == "stochastic"
        w = torch.floor(k + torch.rand_like(k)) if random else k.round()
        low, high = -(self.levels // 2), (self.levels - 1) // 2
        inside = torch.minimum(torch.maximum(w, low), high)
        value, rest = self.step * inside, None
        if self.digits.rounding == "feedback":  # at the middle of one of as many cells of a step
            cell = torch.floor(((x - value) / self.step + 0.5) * self.levels).clamp(min=0)
            rest = self.step * ((torch.minimum(cell, self.levels - 1) + 0.5) / self.levels - 0.5)
        return Snapped(value, rest, int((inside != w).sum()), self.finest)


class RowGrid(NamedTuple):
    """Steps that follow the state.

    Attributes:
        place: which tensor.
        shape: g, r, m.
        observe (g, r, m): energy of the later outputs for an error of 1. None: not known.
        digits: how numbers are rounded.
        scale: what shares a step.
    """

    place: Place
    shape: tuple[int, int, int]
    observe: Tensor | None
    digits: Digits
    scale: Scale

    @property
    def bits(self) -> float:
        """Of one number, without the steps."""
        return self.digits.bits * (2 if self.digits.rounding == "feedback" else 1)

    def round(self, x: Tensor) -> Snapped:
        """As `Grid.round`."""
        digits = self.digits
        e = exponents(x.abs().amax(SHARED[self.scale], keepdim=True), digits.most)
        w, unit = whole(x, e, digits, seed_of(digits)), power(e, x.dtype)
        if digits.rounding != "feedback":
            return Snapped(w * unit, None, 0, unit)
        cells = 1 << digits.bits
        coarse = torch.floor((w + cells // 2) / cells) * cells
        return Snapped(coarse * unit, (w - coarse) * unit, 0, unit)


AnyGrid = Grid | RowGrid
