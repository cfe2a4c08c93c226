"""Bits and error of rounding many numbers with one uniform step.

A number with standard deviation s is rounded to j d, the nearest multiple of the step d. For a
Gaussian number, with a = d / s and P_j the probability of j,

    error / s^2 = 1 + sum of (j a)^2 P_j - 2 sum of j a (phi((j - 1/2) a) - phi((j + 1/2) a))
    entropy = - sum of P_j log2 P_j

For a small step the error is d^2 / 12 and the entropy h - log2 d, with h the differential entropy.

Axes: b samples, k numbers.
"""

import math

import numpy as np
import torch
from torch import Tensor

_FINE = 0.1  # steps / deviation below which the formulas for small steps are more precise
_FAR = 9.0  # deviations beyond which the probability is negligible
_OUTLIER = 20.0  # bits of an outlier, about
_HALVINGS = 60


def _cells(ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """j (j, k), P_j, and the terms of E[x round(x)], for steps of `ratio` deviations."""
    j = torch.arange(0, math.ceil(_FAR / _FINE) + 2, dtype=torch.float64)[:, None]
    low, high = (j - 0.5) * ratio, (j + 0.5) * ratio
    half = math.sqrt(0.5)
    P = 0.5 * (torch.special.erfc(low * half) - torch.special.erfc(high * half))
    density = [torch.exp(-0.5 * v * v) / math.sqrt(2 * math.pi) for v in (low, high)]
    return j, P, j * ratio * (density[0] - density[1])


def gaussian_error(deviation: Tensor, step: float) -> Tensor:
    """Mean squared error (k) of rounded Gaussian numbers."""
    ratio = step / deviation.clamp(min=1e-300)
    j, P, mixed = _cells(ratio.clamp(min=_FINE, max=1e6))
    coarse = 1 + 2 * ((j * ratio.clamp(max=1e6)) ** 2 * P).sum(0) - 4 * mixed.sum(0)
    return torch.where(ratio < _FINE, ratio.square() / 12, coarse) * deviation.square()


def gaussian_entropy(deviation: Tensor, step: float) -> Tensor:
    """Entropy (k), in bits, of rounded Gaussian numbers."""
    ratio = step / deviation.clamp(min=1e-300)
    _, P, _ = _cells(ratio.clamp(min=_FINE, max=1e6))
    terms = -torch.xlogy(P, P) / math.log(2)
    fine = 0.5 * math.log2(2 * math.pi * math.e) - torch.log2(ratio.clamp(min=1e-300))
    return torch.where(ratio < _FINE, fine, 2 * terms.sum(0) - terms[0])


def code_length(whole: Tensor, deviation: Tensor) -> Tensor:
    """-log2 of the probability (b, k) of whole numbers, for Gaussians with `deviation` in steps."""
    x = whole.abs().double() / deviation
    width, half = 0.5 / deviation, math.sqrt(0.5)
    P = 0.5 * (torch.special.erfc((x - width) * half) - torch.special.erfc((x + width) * half))
    return -torch.log2(P.clamp(min=2.0**-_OUTLIER))


def gaussian_step(deviation: Tensor, target: float) -> float:
    """The step for which the errors of Gaussian numbers sum to `target`."""
    return _bisect(lambda step: float(gaussian_error(deviation, step).sum()), target, deviation)


def sample_step(c: Tensor, target: float) -> float:
    """The step for which the mean squared errors of samples c (b, k) sum to `target`."""

    def error(step: float) -> float:
        rest = c - step * (c / step).round()
        return float(rest.square().sum(1).mean())

    return _bisect(error, target, c.abs().amax(0))


def _bisect(error, target: float, size: Tensor) -> float:
    """The largest step with an error of at most `target`, up to a factor of 1 + 1e-4."""
    high = 2.1 * _FAR * max(float(size.max()), 1e-150)
    low = math.sqrt(12 * target / len(size)) / 8
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if error(middle) <= target else (low, middle)
        if high < low * (1 + 1e-4):
            break
    return low


def ranges(ordered: Tensor) -> tuple[Tensor, Tensor, float]:
    """The range of each whole number that takes the fewest bits, from sorted samples (b, k).

    An outlier takes about 20 bits. Returns the smallest number of each range (k), the size of each
    range (k), and the mean number of outliers in a row.
    """
    rows, k = ordered.shape
    best = torch.full((k,), torch.inf).double()
    low, levels, outside = torch.zeros(k).long(), torch.ones(k).long(), torch.zeros(k).double()
    cuts = sorted({0, *(rows * s // 1000 for s in (1, 2, 5, 10, 20, 50, 100))})
    nothing = torch.zeros(k).long()
    for first, last in [*((ordered[i], ordered[rows - 1 - i]) for i in cuts), (nothing, nothing)]:
        missed = ((ordered < first) | (ordered > last)).double().mean(0)
        cost = torch.log2((last - first + 1).double()) + _OUTLIER * missed
        # a range of one value is 0 only; any other value needs a range of two
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
    """S^1/2 and S^-1/2 (g, m, m) of symmetric positive definite matrices."""
    values, vectors = torch.linalg.eigh(S)
    roots = values.clamp(min=np.finfo(np.float64).tiny).sqrt()[:, None]
    return vectors * roots @ vectors.mT, vectors / roots @ vectors.mT
