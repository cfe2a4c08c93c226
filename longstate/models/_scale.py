"""Convert the data's own units to scaled units and back.

    z = (f(x) - mean) / std,      mean and std of f(x) over the training part
    f(x) = x                                          transform "none"
    f(x) = ((x + shift)^power - 1) / power            "box-cox" (Box and Cox 1964), power in (0, 1]
    f(x) = log(x + shift)                             "log1p", and "box-cox" of power 0

With a transform the mean of z is near the median of x and not at its mean.

A panel has these constants for each of its series.

Axes: c channels, s series, ... any others.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

TRANSFORMS = ("none", "log1p", "box-cox")
POWERS = tuple(0.1 * k for k in range(11))
SMALLEST = 1e-6  # least x + shift, in the data's spread, for values below all those in training


class AtLeastFloat32(nn.Module):
    """Base of modules that stay in float32 where the rest becomes narrower: what is solved and not
    trained cannot make up for rounding, and rounded frequencies are those of another system."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AtLeastFloat32":
        def convert(x: Tensor) -> Tensor:
            y = fn(x)
            wide = torch.promote_types(y.dtype, torch.float32)
            return y if y.dtype == wide else x.to(y.device, wide)

        super()._apply(convert, recurse)
        return self


class Float64(nn.Module):
    """Base of modules that move to a device but stay in float64."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Float64":
        super()._apply(lambda x: x.to(fn(x).device), recurse)
        return self


class Units(NamedTuple):
    """The constants of a scale, float64; they broadcast with the values.

    Args:
        mean, std: of f(x).
        unit: standard deviation of x itself.
        power, shift: of the transform; None without one.
    """

    mean: Tensor
    std: Tensor
    unit: Tensor
    power: Tensor | None = None
    shift: Tensor | None = None

    def each(self, of: Callable[[Tensor], Tensor]) -> "Units":
        """The same function of all constants, such as an index."""
        mean, std, unit, power, shift = self
        if power is None or shift is None:
            return Units(of(mean), of(std), of(unit))
        return Units(of(mean), of(std), of(unit), of(power), of(shift))

    def scale(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        """z, float32."""
        return self.exact(x).float()

    def exact(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        """z, float64."""
        return (self.f(x) - self.mean) / self.std

    def inverse(self, z: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        """x, float64."""
        f = z * self.std + self.mean
        if self.power is None or self.shift is None:
            return f
        power = self.power.clamp_min(SMALLEST)
        x = (power * f + 1).clamp_min(0) ** (1 / power)
        return torch.where(self.power == 0, f.exp(), x) - self.shift

    def f(self, x: Tensor) -> Tensor:
        """The transform alone."""
        if self.power is None or self.shift is None:
            return x
        y = torch.maximum(x + self.shift, SMALLEST * self.unit.clamp_max(1))
        power = self.power.clamp_min(SMALLEST)
        return torch.where(self.power == 0, y.log(), (y**power - 1) / power)


class Scale(Float64):
    """Scaling by mean and standard deviation of the training part, in float64: large values have
    their digits there.

    A constant column has the standard deviation 1.

    Args:
        channels: c.
        transform: one of `TRANSFORMS`.
        series: s, of a panel, each with its own constants (s, c); 0 for no panel.
    """

    mean: Tensor
    std: Tensor
    power: Tensor
    shift: Tensor
    raw_std: Tensor

    def __init__(self, channels: int, transform: str = "none", *, series: int = 0):
        super().__init__()
        self.transform = transform
        shape = (series, channels) if series else (channels,)
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("std", torch.ones(shape, dtype=torch.float64))
        if transform != "none":
            for name in ("power", "shift", "raw_std"):
                self.register_buffer(name, torch.ones(shape, dtype=torch.float64))

    @property
    def unit(self) -> Float[Tensor, "*s c"]:
        """Standard deviation of x itself over the training part."""
        return self.std if self.transform == "none" else self.raw_std

    @property
    def units(self) -> Units:
        plain = self.transform == "none"
        more = (None, None) if plain else (self.power, self.shift)
        return Units(self.mean, self.std, self.unit, *more)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return self.units.scale(x)

    def inverse(self, z: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        """x, float64."""
        return self.units.inverse(z)

    def take(self, units: Units) -> None:
        """Set all constants."""
        own = [self.mean, self.std]
        own += [] if self.transform == "none" else [self.raw_std, self.power, self.shift]
        given = [x for x in (*units[:2], *(units[2:] if len(own) > 2 else ())) if x is not None]
        for buffer, value in zip(own, given, strict=True):
            buffer.copy_(value)

    def set(self, mean: Tensor, std: Tensor) -> None:
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-12 * mean.abs(), std, torch.ones_like(std)))

    def fit(self, x: Float[Tensor, "t c"], lower: float | None = None) -> None:
        """Set everything from the training part.

        Args:
            x: float64.
            lower: lower bound of x; logarithms are of x - lower. None takes 0, or the least x.
                Powers of x that is above 0 and has no other bound are of x itself.
        """
        if self.transform != "none":
            self.set(x.mean(0), x.std(0, correction=0))
            self.raw_std.copy_(self.std)
            least = x.min(0).values
            base = least.clamp_max(0) if lower is None else torch.full_like(least, lower)
            positive = (least > 0) & (self.transform == "box-cox") & (not lower)
            self.shift.copy_(torch.where(positive, torch.zeros_like(base), 1 - base))
            powers = [_power(column) for column in (x + self.shift).T]
            self.power.copy_(torch.tensor(powers if self.transform == "box-cox" else 0.0))
        f = self.units.f(x)
        self.set(f.mean(0), f.std(0, correction=0))


def _power(y: Float[Tensor, " t"]) -> float:
    """The maximum-likelihood power, for normally distributed transformed y."""
    logs, found = y.log(), []
    for power in POWERS:
        f = logs if power == 0 else (y**power - 1) / power
        variance = f.var(correction=0).clamp_min(torch.finfo(torch.float64).tiny)
        found.append(float((power - 1) * logs.sum() - len(y) / 2 * variance.log()))
    return POWERS[max(range(len(POWERS)), key=found.__getitem__)]
