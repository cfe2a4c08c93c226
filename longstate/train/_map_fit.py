"""Fit the map of a forecaster, and choose its settings by forecasts of the whole horizon.

    W = argmin |features W - (y(t+1) - y(t))|^2 + penalty * mean of diag(X'X) * |W|^2

The map is fitted to one step. Memory, width of the kernel and penalty have the least error of the
repeated map on validation: a small error of one step can still explode when it is repeated.

Axes: n rows, l lags, c targets, f features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.models import ForecastModel
from longstate.models._iterated_map import COSINES, FEWEST_ROWS, IteratedMap, legendre
from longstate.train._baselines import Fold
from longstate.train._folds import independent
from longstate.train._weights import TRIED, gain_of
from longstate.train._windows import Batch, Windows

MEMORIES = ((4, 4), (16, 6), (32, 8))  # lags and polynomials
WIDTHS = (0.5, 0.35, 0.75)  # of the kernel, over the usual distance of two memories
PENALTIES = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
MOST_ROWS = 20_000  # to fit to
MOST_STEPS = 12_800  # windows times horizon to score a setting; but 32 windows at least
MARGIN = 0.5  # of the range in training: how far beyond it a forecast may go


class Rows(NamedTuple):
    """Newest rows (n, l, c) and the next one (n, c), in scaled units and float64."""

    past: Tensor
    next: Tensor

    @classmethod
    def of(cls, model: ForecastModel, windows: Windows, lags: int) -> "Rows":
        """Of at most `MOST_ROWS` windows; those with a gap in these rows are left out."""
        pasts, nexts = [], []
        for batch in _some(windows, MOST_ROWS):
            units = model.units(batch.window)
            whole = batch.window.observed[:, -lags:].all(-1).all(-1) & batch.present[:, 0].all(-1)
            pasts.append(units.exact(batch.window.target[:, -lags:])[whole])
            nexts.append(units.exact(batch.future[:, :1])[whole, 0])
        return cls(torch.cat(pasts), torch.cat(nexts))


class _Check(NamedTuple):
    """Windows to check on, scaled units and float64.

    Args:
        target (n, w, c): of the windows. truth (n, h, c): after them; nan in gaps.
        line (n, h, c): errors of the model's line.
    """

    target: Tensor
    truth: Tensor
    line: Tensor

    @classmethod
    def of(cls, model: ForecastModel, windows: Windows) -> "_Check":
        targets, truths, lines = [], [], []
        for batch in _some(windows, max(32, MOST_STEPS // model.spec.horizon)):
            units = model.units(batch.window)
            targets.append(units.exact(batch.window.target))
            truths.append(torch.where(batch.present, units.exact(batch.future), torch.nan))
            lines.append(truths[-1] - model.scaled_line(batch.window))
        return cls(torch.cat(targets), torch.cat(truths), torch.cat(lines))

    def errors(self, module: IteratedMap) -> Tensor:
        """Of the repeated map (n, h, c)."""
        return self.truth - module(self.target)


@dataclass(frozen=True)
class _Sums:
    """X'X and X'Y of one setting."""

    xx: Tensor
    xy: Tensor

    def solved(self, penalty: float) -> Tensor | None:
        """W; None where rounding leaves no solution."""
        floor = penalty * self.xx.diagonal().mean()
        factor, failed = torch.linalg.cholesky_ex(self.xx + floor * torch.eye(len(self.xx)))
        return None if failed else torch.cholesky_solve(self.xy, factor)


@torch.no_grad()
def choose_map(model: ForecastModel, fold: Fold, seed: int = 0) -> IteratedMap | None:
    """The map with the settings that have the least error on the fold. None if there can be none,
    there are too few rows, or it does not gain more than `TRIED` standard errors on the line.

    Args:
        model: with scales and a line that was fitted to the same rows.
        fold: windows to fit to and windows to check on.
        seed: of the random features.
    """
    if not IteratedMap.possible(model.spec):
        return None
    rows = Rows.of(model, fold.fit, IteratedMap(model.spec).lags)
    if len(rows.past) < FEWEST_ROWS:
        return None
    check = _Check.of(model, fold.check)

    def tried(memory: tuple[int, int], width: float) -> tuple[float, IteratedMap]:
        module = _drawn(model, memory, width, seed)
        return _best_penalty(module, rows, check), module

    trials = {memory: tried(memory, WIDTHS[0]) for memory in MEMORIES}
    memory = min(trials, key=lambda m: trials[m][0])
    found = [trials[memory], *(tried(memory, width) for width in WIDTHS[1:])]
    _, best = min(found, key=lambda x: x[0])
    count = independent([fold.check], len(check.line))
    gain, noise = gain_of(check.line, check.errors(best), count)
    return best if gain > TRIED * noise else None


@torch.no_grad()
def fit_map(module: IteratedMap, rows: Rows) -> None:
    """Fit a map whose settings are there; it keeps its weights where there is no solution."""
    solved = _sums(module, rows).solved(float(module.penalty))
    if solved is not None:
        module.weight.copy_(solved)


def _drawn(model: ForecastModel, memory: tuple[int, int], width: float, seed: int) -> IteratedMap:
    """A map with these settings and no weights yet."""
    module = IteratedMap(model.spec)
    lags = min(memory[0], module.lags)
    order = min(memory[1], lags)
    module.projection[:order, module.lags - lags :] = legendre(lags, order)
    draw = torch.Generator().manual_seed(seed)
    frequency = torch.randn(module.frequency.shape, generator=draw, dtype=torch.float64)
    distance = (2 * order * len(model.spec.targets)) ** 0.5
    module.frequency.copy_(frequency / (width * distance))
    module.phase.copy_(2 * torch.pi * torch.rand(COSINES, generator=draw))
    return module


def _best_penalty(module: IteratedMap, rows: Rows, check: _Check) -> float:
    """Solve with the best penalty; returns its error on the windows to check on."""
    sums, least, best = _sums(module, rows), float("inf"), None
    for penalty in PENALTIES:
        solved = sums.solved(penalty)
        if solved is None:
            continue
        module.weight.copy_(solved)
        error = float((check.errors(module) ** 2).nanmean())
        if error < least:
            least, best = error, (penalty, solved)
    if best is not None:
        module.penalty.fill_(best[0])
        module.weight.copy_(best[1])
    return least


def _sums(module: IteratedMap, rows: Rows) -> _Sums:
    """Set the scale of the memory and the bounds, and add up the features."""
    memory = module.memory(rows.past)
    module.mean.copy_(memory.mean(0))
    deviation = memory.std(0, correction=0)
    module.deviation.copy_(torch.where(deviation > 1e-12, deviation, torch.ones_like(deviation)))
    low, high = rows.next.amin(0), rows.next.amax(0)
    module.low.copy_(low - MARGIN * (high - low))
    module.high.copy_(high + MARGIN * (high - low))
    f, c = module.weight.shape
    sums = _Sums(module.weight.new_zeros(f, f), module.weight.new_zeros(f, c))
    step = rows.next - rows.past[:, -1]
    for part, target in zip(memory.split(4096), step.split(4096), strict=True):
        x = module.features(part)
        sums.xx.addmm_(x.T, x)
        sums.xy.addmm_(x.T, target)
    return sums


def _some(windows: Windows, most: int) -> Iterator[Batch]:
    """Batches of evenly spaced windows, at most this many."""
    n = len(windows)
    at = np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))
    for part in np.array_split(at, -(-len(at) // 512)):
        yield windows.batch(part)
