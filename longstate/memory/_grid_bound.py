"""H-infinity of one input and one output from the impulse response, on a grid, with a proof.

A trigonometric sum over |l| <= n has its largest modulus M at some w; at a distance x from w, with
n x at most pi / 2, it is at least M cos(n x) (M. Riesz). One of N equally spaced frequencies is
within pi / N of w, so M is at most the largest value on the grid divided by cos(pi n / N). The
missing part of the sum, and rounding, are added.

Axes: n state, l lags.
"""

import math

import torch
from torch import Tensor

from longstate.memory._h_infinity import Matrices, Peak
from longstate.memory._powers import _UNIT, Powers
from longstate.memory._response import _columns, _perturbed

_LONGEST = 15  # at most 2^15 lags
_FINER = 6  # 2^6 frequencies for each lag: a factor 1 / cos(pi / 64), 1.0012
_ENOUGH = 1e-7  # share of the sum below which the rest is bounded instead of summed


def by_grid(ahead: Matrices, behind: Matrices | None, D: Tensor) -> Peak:
    """Bounds for one input and one output; the upper one is infinite if a sum has no bound."""
    first, rest = _kernel(ahead)
    first[0] += D[0, 0]
    second = first.new_zeros(0)
    if behind is not None:
        second, more = _kernel(behind)
        rest = rest + more
    degree = max(len(first), len(second) + 1)
    count = degree << _FINER
    line = torch.zeros(count, dtype=torch.float64)
    line[: len(first)] = first
    if len(second):
        line[-len(second) :] += second.flip(0)
    values = torch.fft.rfft(line).abs()
    rest = rest + 64 * _UNIT * math.log2(count) * float(line.abs().sum())
    best = int(values.argmax())
    high = float(values[best]) / math.cos(math.pi * degree / count) + rest
    at = 2 * math.pi * best / count
    if not math.isfinite(rest):
        return Peak(0.0, math.inf, at)
    return Peak(max(float(values[best]) - rest, 0.0), high, at)


def _kernel(part: Matrices) -> tuple[Tensor, float]:
    """C A^l B (l), and a bound of the missing part and of the rounding errors."""
    powers = Powers(part.A)
    total = float(powers.total(powers.growth()[0]))
    X, wrong = part.B, torch.zeros((), dtype=torch.float64)
    read = float(torch.linalg.vector_norm(part.C))
    for square in powers.squares[:_LONGEST]:
        more, wrong = square.value @ X, wrong + _perturbed(square, X)
        X = torch.cat([X, more], dim=-1)
        beyond = read * total * float(torch.linalg.vector_norm(part.A @ X[:, -1]))
        if beyond <= _ENOUGH * float((part.C @ X).abs().sum()):
            break
    wrong = wrong + 4 * len(part.A) * _UNIT * _columns(X)
    return (part.C @ X)[0], beyond + read * total * float(wrong)
