"""One uniform step for many numbers: what it costs and what it loses.

A number of deviation s, rounded to the nearest multiple of d, is the whole number j where it lies
between (j - 1/2) d and (j + 1/2) d. For a Gaussian, with a = d / s and cells P_j,

    error / s^2 = 1 + sum of (j a)^2 P_j - 2 sum of j a (phi((j - 1/2) a) - phi((j + 1/2) a))
    entropy = - sum of P_j log2 P_j

and for a small step d^2 / 12 and h - log2 d.

Axes: b samples, k numbers.
"""

import math

import numpy as np
import torch
from torch import Tensor

_FINE = 0.1  # of the deviation: below it the formulas for small steps have more digits
_FAR = 9.0  # deviations beyond which a Gaussian has nothing
_OUTLIER = 20.0  # bits that a number outside its range costs, about
_HALVINGS = 60


def _cells(ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """j (j, k), P_j, and what sums to E[x round(x)], for steps of `ratio` deviations."""
    j = torch.arange(0, math.ceil(_FAR / _FINE) + 2, dtype=torch.float64)[:, None]
    low, high = (j - 0.5) * ratio, (j + 0.5) * ratio
    half = math.sqrt(0.5)
    P = 0.5 * (torch.special.erfc(low * half) - torch.special.erfc(high * half))
    density = [torch.exp(-0.5 * v * v) / math.sqrt(2 * math.pi) for v in (low, high)]
    return j, P, j * ratio * (density[0] - density[1])


def gaussian_error(deviation: Tensor, step: float) -> Tensor:
    """Mean squared error (k) of Gaussian numbers, rounded."""
    ratio = step / deviation.clamp(min=1e-300)
    j, P, mixed = _cells(ratio.clamp(min=_FINE, max=1e6))
    coarse = 1 + 2 * ((j * ratio.clamp(max=1e6)) ** 2 * P).sum(0) - 4 * mixed.sum(0)
    return torch.where(ratio < _FINE, ratio.square() / 12, coarse) * deviation.square()


def gaussian_entropy(deviation: Tensor, step: float) -> Tensor:
    """Bits (k) that a Gaussian number takes, rounded and coded as well as one can."""
    ratio = step / deviation.clamp(min=1e-300)
    _, P, _ = _cells(ratio.clamp(min=_FINE, max=1e6))
    terms = -torch.xlogy(P, P) / math.log(2)
    fine = 0.5 * math.log2(2 * math.pi * math.e) - torch.log2(ratio.clamp(min=1e-300))
    return torch.where(ratio < _FINE, fine, 2 * terms.sum(0) - terms[0])


def code_length(whole: Tensor, deviation: Tensor) -> Tensor:
    """Bits (b, k) of whole numbers under a Gaussian of so many steps."""
    x = whole.abs().double() / deviation
    width, half = 0.5 / deviation, math.sqrt(0.5)
    P = 0.5 * (torch.special.erfc((x - width) * half) - torch.special.erfc((x + width) * half))
    return -torch.log2(P.clamp(min=2.0**-_OUTLIER))


def gaussian_step(deviation: Tensor, target: float) -> float:
    """The step at which the errors of Gaussian numbers sum to `target`."""
    return _bisect(lambda step: float(gaussian_error(deviation, step).sum()), target, deviation)


def sample_step(c: Tensor, target: float) -> float:
    """The step at which the mean squared error of samples c (b, k) sums to `target`."""

    def error(step: float) -> float:
        rest = c - step * (c / step).round()
        return float(rest.square().sum(1).mean())

    return _bisect(error, target, c.abs().amax(0))


def _bisect(error, target: float, size: Tensor) -> float:
    """The largest step whose error is no more than `target`, to 1e-4 of it."""
    high = 2.1 * _FAR * max(float(size.max()), 1e-150)
    low = math.sqrt(12 * target / len(size)) / 8
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if error(middle) <= target else (low, middle)
        if high < low * (1 + 1e-4):
            break
    return low


def ranges(ordered: Tensor) -> tuple[Tensor, Tensor, float]:
    """The range of each whole number that costs least, from samples (b, k) in rising order.

    What lies outside is written in full, at about 20 bits. Returns the least (k), how many (k), and
    how many numbers of a row lie outside, on average.
    """
    rows, k = ordered.shape
    best = torch.full((k,), torch.inf).double()
    low, levels, outside = torch.zeros(k).long(), torch.ones(k).long(), torch.zeros(k).double()
    cuts = sorted({0, *(rows * s // 1000 for s in (1, 2, 5, 10, 20, 50, 100))})
    nothing = torch.zeros(k).long()
    for first, last in [*((ordered[i], ordered[rows - 1 - i]) for i in cuts), (nothing, nothing)]:
        missed = ((ordered < first) | (ordered > last)).double().mean(0)
        cost = torch.log2((last - first + 1).double()) + _OUTLIER * missed
        # a single value other than 0 would have to be stored: it is as good as two
        cost = torch.where((first == last) & (first != 0), cost + 1, cost)
        better = cost < best - 1e-9
        best = torch.where(better, cost, best)
        low, outside = torch.where(better, first, low), torch.where(better, missed, outside)
        levels = torch.where(better, last - first + 1, levels)
    return low, levels, float(outside.sum())


def to_whole(c: Tensor, step: float) -> Tensor:
    """round(c / step), as whole numbers."""
    return (c / step).round().long()


def symmetric_root(S: Tensor) -> tuple[Tensor, Tensor]:
    """S^1/2 and S^-1/2 (g, m, m) of symmetric matrices above 0."""
    values, vectors = torch.linalg.eigh(S)
    roots = values.clamp(min=np.finfo(np.float64).tiny).sqrt()[:, None]
    return vectors * roots @ vectors.mT, vectors / roots @ vectors.mT
