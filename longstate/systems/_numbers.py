"""Small numerical helpers that several systems share."""

import math

import torch
from torch import Tensor

from longstate.ops._double import widen as widen

_SERIES_BELOW = 0.5
_TERMS = 16  # 0.5^16 / 16! is far below the rounding of float64


def as_tensor(dt: Tensor | float, like: Tensor) -> Tensor:
    """`dt` as a real tensor beside `like`.

    Raises:
        ValueError: `dt` is complex, or a number that is not positive and finite.
    """
    if isinstance(dt, Tensor):
        if dt.is_complex():
            raise ValueError("dt must be real; got a complex tensor")
        return dt
    if not (dt > 0 and math.isfinite(dt)):
        raise ValueError(f"dt must be positive and finite; got {dt}")
    return torch.tensor(dt, dtype=like.real.dtype, device=like.device)


def in_float64(x: Tensor) -> Tensor:
    """`x` in float64 or complex128 on the CPU, detached, for analysis."""
    x = x.detach().cpu()
    return x.to(torch.complex128) if x.is_complex() else x.double()


def sum_to(grad: Tensor, like: Tensor) -> Tensor:
    """Undo broadcasting, and the conversion from real to complex, in a gradient."""
    if not like.is_complex() and grad.is_complex():
        grad = grad.real
    return grad.sum_to_size(like.shape).to(like.dtype)


def phi(z: Tensor, k: int) -> Tensor:
    """sum_j z^j / (j + k)!, for k = 1, 2: (e^z - 1) / z and (e^z - 1 - z) / z^2.

    Near 0, where the quotients lose all digits, a series is used, so that values and gradients are
    accurate and finite there, also at 0.
    """
    small = z.abs() < _SERIES_BELOW
    near = torch.where(small, z, torch.zeros_like(z))
    far = torch.where(small, torch.ones_like(z), z)
    series = torch.zeros_like(z)
    for j in reversed(range(_TERMS)):
        series = series * near + 1 / math.factorial(j + k)
    quotient = torch.expm1(far) / far
    if k == 2:
        quotient = (quotient - 1) / far
    return torch.where(small, series, quotient)
