"""Weights of forecasts from their errors, and margins of bands.

Axes: p parts, n windows, h horizon, c targets, q quantiles.
"""

from itertools import combinations

import torch
from torch import Tensor

TRIED = 2.0  # standard errors: the best of many sets gains more than one by chance
SMALL = 1e-3  # a smaller gain, as a share of the error, is not worth one part more
MOST_COLUMNS = 64  # of the errors, for their autocorrelation


def simplex(error: Tensor, allowed: list[bool], count: float) -> Tensor:
    """Weights (p), at least 0 with sum 1, of the mean with the least squared error.

    It begins with the best part alone. A larger set is taken if the best of its size gains more
    than `TRIED` standard errors and `SMALL`. So no part alone has a smaller error.

    Args:
        error (p, n, h, c): of each part; nan in gaps.
        allowed (p): whether a part may be used.
        count: number of windows without a common row.
    """
    flat = error.flatten(1).nan_to_num().double()
    gram = flat @ flat.T
    able = [i for i, yes in enumerate(allowed) if yes]
    best = torch.zeros(len(allowed))
    for size in range(1, len(able) + 1):
        found = [x for part in combinations(able, size) if (x := _mean(gram, part)) is not None]
        if not found:
            continue
        _, weight = min(found, key=lambda x: x[0])
        if size > 1:
            weights = torch.stack([best, weight])[:, able].to(error.dtype)
            before, now = torch.tensordot(weights, error[able], dims=1)
            gain, noise = gain_of(before, now, count)
            if gain <= max(TRIED * noise, SMALL * float((before**2).nanmean())):
                continue
        best = weight
    return best


def _mean(gram: Tensor, part: tuple[int, ...]) -> tuple[float, Tensor] | None:
    """The squared error of the best mean of these parts and its weights (p); None if one of them
    is negative."""
    own = gram[list(part)][:, list(part)]
    weight = _affine(own)
    if bool((weight < 0).any()):
        return None
    weights = torch.zeros(len(gram))
    weights[list(part)] = weight.float()
    return float(weight @ own @ weight), weights


def _affine(gram: Tensor) -> Tensor:
    """Weights with sum 1 and the least squared error, which may be negative."""
    n = len(gram)
    if n == 1:
        return torch.ones(1, dtype=gram.dtype)
    tiny = 1e-12 * gram.diagonal().mean() * torch.eye(n, dtype=gram.dtype)
    solved = torch.linalg.lstsq(gram + tiny, torch.ones(n, 1, dtype=gram.dtype)).solution[:, 0]
    return solved / solved.sum()


def gain_of(before: Tensor, now: Tensor, count: float) -> tuple[float, float]:
    """By how much the mean squared error falls, and the standard error of that.

    Args:
        before, now (n, h, c): errors on the same windows; nan in gaps.
        count: number of these windows without a common row.
    """
    gains = (before.double() ** 2 - now.double() ** 2).flatten(1).nanmean(1)
    noise = float(gains.std()) / count**0.5 if len(gains) > 1 else float("inf")
    return float(gains.mean()), noise


def best_share(simple: Tensor, network: Tensor, count: float) -> tuple[float, float, float]:
    """The share of the network beside a simple forecast, its gain, and the gain's standard error.

    The share is 0 if the gain is at most one standard error.

    Args:
        simple, network (n, h, c): errors on the same windows, which neither was fitted to.
        count: number of these windows without a common row.
    """
    change = (simple - network).nan_to_num().double()
    length = float((change**2).sum())
    share = float((simple.nan_to_num().double() * change).sum()) / length if length > 0 else 0.0
    share = min(1.0, max(0.0, share))
    gain, noise = gain_of(simple, simple - share * (simple - network), count)
    return (share if gain > noise else 0.0), gain, noise


def effective(error: Tensor, least: float) -> float:
    """The number of independent windows that are worth as much as these, which overlap.

        n / (1 + 2 sum_k r_k),   r_k the autocorrelation of |error| at lag k, until it is negative

    Args:
        error (n, h, c): of windows in order; nan in gaps.
        least: the least number, and n is the largest.
    """
    n = len(error)
    columns = error.flatten(1)
    columns = columns[:, :: max(1, columns.shape[1] // MOST_COLUMNS)].abs().double()
    z = (columns - columns.nanmean(0)).nan_to_num()
    power = torch.fft.rfft(z, 2 * n, dim=0).abs() ** 2
    covariance = torch.fft.irfft(power, dim=0)[:n].sum(1) / torch.arange(n, 0, -1)
    r = covariance[1 : n // 2] / covariance[0].clamp_min(1e-300)
    negative = torch.nonzero(r <= 0).flatten()
    r = r[: int(negative[0])] if len(negative) else r
    return min(max(n / (1 + 2 * float(r.sum())), least), max(n, least))


def conformal(rest: Tensor, levels: tuple[float, ...], count: float) -> Tensor:
    """Margins (h, c, q): quantiles of what is left of the truth, per step and target.

    With `count` windows the level q above 1/2 is raised to q (count + 1) / count, at most 1, and
    lowered likewise below 1/2, so that a new window is covered with the probability q.

    Args:
        rest (n, h, c, q): truth minus the quantile without a margin; nan in gaps.
        levels: of the quantiles.
        count: number of independent windows; see `effective`.
    """
    margins = []
    for i, level in enumerate(levels):
        raised = min(1.0, max(level, 1 - level) * (count + 1) / count)
        used = raised if level > 0.5 else 1 - raised if level < 0.5 else level
        margins.append(torch.nanquantile(rest[..., i].double(), used, dim=0))
    return torch.stack(margins, dim=-1).nan_to_num().float()
