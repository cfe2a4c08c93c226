"""Simple methods of a forecaster: last value, seasonal naive, smoothing, ridge regression.

All are maps of the window. Ridge has exactly the inputs of the model and is solved in closed form:

    W = argmin |X W - Y|^2 + strength * sum_i lag_i^fading |W_i - start_i|^2

with X the features of `Line` and Y the horizon, both minus the window's last value; columns are
centred, so the intercept is not penalised. The ridge baseline has fading 0: all lags have the same
penalty. In the model's line the penalty may grow with the lag, as in a state space whose memory
decays. Where windows are few, the line may also read the newest rows only, begin at the smoothing
instead of the last value, and have the same weights for all targets.

All of this is chosen by the error on validation: on the windows of `_folds`, each after the rows
that the line was fitted to. One eigendecomposition of X'X is used for all strengths; only the
moments X'X, X'Y, Y'Y are in memory, never X.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.models import ForecastModel
from longstate.models._line import Line
from longstate.train._moments import Moments, sums_of, total
from longstate.train._smoothing import Smoothing, Smoothings
from longstate.train._windows import Batch, Windows

STRENGTHS = tuple(10.0 ** (0.5 * k) for k in range(-18, 3))  # of the mean eigenvalue of X'X
FADINGS = (0.75, 1.5)
FEW = 10  # fewer windows than this for each feature: more kinds of lines are tried


def last_value(windows: Windows, batch: Batch) -> Tensor:
    """(b, h, c) in the data's own units."""
    return batch.window.target[:, -1:].expand_as(batch.future)


def seasonal_naive(windows: Windows, batch: Batch) -> Tensor:
    """(b, h, c): the value one season ago, repeated over the horizon."""
    season = windows.spec.season
    steps = np.arange(windows.spec.horizon)
    rows = batch.rows[:, None] + steps % season - season
    first = windows.places.firsts[windows.places.of(batch.rows)]
    return torch.from_numpy(windows.table.target[np.maximum(rows, first[:, None])])


class Fold(NamedTuple):
    """Windows to fit to and later ones to check on, and the moments of both for each target."""

    fit: Windows
    check: Windows
    fitted: list[Moments]
    checked: list[Moments]

    @classmethod
    def of(
        cls, model: ForecastModel, fit: Windows, check: Windows, before: "Fold | None"
    ) -> "Fold":
        """Args:
        before: an earlier fold, all of whose windows to fit to are among those of this one.
        """
        added = fit if before is None else fit.without(before.fit)
        fitted = sums_of(model, added)
        if before is not None:
            fitted = [a + b for a, b in zip(before.fitted, fitted, strict=True)]
        return cls(fit, check, fitted, sums_of(model, check))


@dataclass(frozen=True)
class Kind:
    """A kind of line.

    Args:
        fading: growth of the penalty with the lag.
        features (p): indices of the features that it reads.
        start (f, h): the weights that the penalty draws to. None: 0, the last value.
        pooled: one line for all targets.
    """

    fading: float
    features: Tensor
    start: Tensor | None = None
    pooled: bool = False


class Setting(NamedTuple):
    """A kind and a strength, and its mean squared error on the validation windows."""

    kind: Kind
    strength: float
    error: float


@dataclass(frozen=True)
class Linear:
    """Everything that was chosen for the simple methods, for each target."""

    folds: list[Fold]
    line: list[Setting]
    ridge: list[Setting]
    smoothing: list[Smoothing]
    weights: Tensor  # (c, w, h), of the smoothing

    def solve(self, moments: list[Moments], line: Line, ridge: Line) -> None:
        """Fit line and ridge to these moments."""
        together = total(moments)
        for module, settings in ((line, self.line), (ridge, self.ridge)):
            for j, (kind, strength, _) in enumerate(settings):
                used = together if kind.pooled else moments[j]
                weight, bias = next(_solutions(used, module.lags(), kind, (strength,)))
                module.weight[j], module.bias[j] = weight.float(), bias.float()


@torch.no_grad()
def fit_linear(model: ForecastModel, folds: Sequence[tuple[Windows, Windows]]) -> Linear:
    """Choose the simple methods by their errors on the folds, and fit the model's line and ridge
    to the windows before the last fold."""
    found: list[Fold] = []
    for fit, check in folds:
        found.append(Fold.of(model, fit, check, found[-1] if found else None))
    constants, weights, common = _smooth(model, found)
    linear = Linear(found, *_lines(model, found, weights, common), constants, weights)
    linear.solve(found[-1].fitted, model.line, model.ridge)
    return linear


def fit_ridge(model: ForecastModel, train: Windows, validation: Windows) -> Linear:
    """The same with one fold."""
    return fit_linear(model, [(train, validation)])


def _smooth(model: ForecastModel, folds: list[Fold]) -> tuple[list[Smoothing], Tensor, Tensor]:
    """The best constants for each target and their maps (c, w, h); and the map for all targets.

    A target's own error decides only in part, because one series has few independent windows: the
    score is its own error plus the mean error, both relative to the least one."""
    spec = model.spec
    all_ = Smoothings(spec.window, spec.horizon, spec.season)
    none = torch.zeros(spec.horizon, dtype=torch.float64)
    errors = torch.stack(
        [_errors(folds, torch.from_numpy(all_.weights(i)), none) for i in range(len(all_.settings))]
    )
    relative = errors / errors.min(0).values.clamp_min(1e-30)
    mean = relative.mean(1, keepdim=True)
    best = (relative + mean).argmin(0).tolist()
    maps = torch.stack([torch.from_numpy(all_.weights(i)) for i in best])
    common = torch.from_numpy(all_.weights(int(errors.mean(1).argmin())))
    return [all_.settings[i] for i in best], maps, common


def _errors(folds: list[Fold], weight: Tensor, bias: Tensor) -> Tensor:
    """(c): mean squared errors of one map on all validation windows."""
    count = sum(fold.checked[0].n for fold in folds)
    sums = [[m.n * m.error(weight, bias) for m in fold.checked] for fold in folds]
    return torch.tensor(sums, dtype=torch.float64).sum(0) / count


def _lines(
    model: ForecastModel, folds: list[Fold], smoothing: Tensor, common: Tensor
) -> tuple[list[Setting], list[Setting]]:
    """The settings of line and ridge for each target."""
    spec, lags = model.spec, model.line.lags()
    every = torch.arange(len(lags))
    plain = [
        Kind(fading, every[:kept])
        for kept in {len(lags), len(lags) - spec.n_calendar}
        for fading in (0.0, *FADINGS)
    ]
    pairs = [
        list(pair)
        for pair in zip(*(zip(f.fitted, f.checked, strict=True) for f in folds), strict=True)
    ]
    few = folds[-1].fitted[0].n < FEW * len(lags)
    lines = [
        _best(own, lags, [*plain, *_more(model, smoothing[j])] if few else plain)
        for j, own in enumerate(pairs)
    ]
    if few and len(lines) > 1:
        sums = [(total(f.fitted), total(f.checked)) for f in folds]
        shared = _best(sums, lags, [*plain, *_more(model, common)])
        if shared.error < sum(line.error for line in lines) / len(lines):
            shared = shared._replace(kind=replace(shared.kind, pooled=True))
            lines = [shared for _ in lines]
    ridges = [_best(own, lags, [k for k in plain if k.fading == 0]) for own in pairs]
    return lines, ridges


def _more(model: ForecastModel, smoothing: Tensor) -> Iterator[Kind]:
    """More kinds of lines for few windows, none of which reads the calendar."""
    spec, lags = model.spec, model.line.lags()
    own = len(lags) - spec.n_calendar
    start = torch.zeros(len(lags), spec.horizon, dtype=torch.float64)
    start[: spec.window] = smoothing
    rows = {spec.season * k + 1 for k in (1, 2, 3)} | {spec.window}
    for read in sorted(r for r in rows if r <= spec.window):
        features = torch.nonzero(lags[:own] <= read).flatten()
        for fading in (0.0, *FADINGS):
            yield Kind(fading, features, start)
            if read < spec.window:
                yield Kind(fading, features)


def _best(folds: list[tuple[Moments, Moments]], lags: Tensor, kinds: list[Kind]) -> Setting:
    """The kind and the strength with the least error."""
    best: Setting | None = None
    count = sum(check.n for _, check in folds)
    for kind in kinds:
        totals = np.zeros(len(STRENGTHS))
        for fit, check in folds:
            solutions = _solutions(fit, lags, kind, STRENGTHS)
            totals += [check.n * check.error(weight, bias) for weight, bias in solutions]
        at = int(totals.argmin())
        if best is None or totals[at] / count < best.error:
            best = Setting(kind, STRENGTHS[at], float(totals[at]) / count)
    assert best is not None
    return best


def _solutions(
    fit: Moments, lags: Tensor, kind: Kind, strengths: Sequence[float]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights (f, h) and bias (h) for each strength."""
    at, start = kind.features, kind.start
    shrink = lags[at] ** (-kind.fading / 2)
    mean_x, mean_y = fit.x / fit.n, fit.y / fit.n
    xx = fit.xx[at][:, at] - fit.n * torch.outer(mean_x[at], mean_x[at])
    xy = fit.xy[at] - fit.n * torch.outer(mean_x[at], mean_y)
    if start is not None:
        xy = xy - (fit.xx[at] @ start - fit.n * torch.outer(mean_x[at], mean_x @ start))
    # A penalty of lag^p on a weight equals a plain penalty after scaling the feature down.
    values, vectors = torch.linalg.eigh(shrink[:, None] * xx * shrink)
    values, rotated = values.clamp_min(0), vectors.T @ (shrink[:, None] * xy)
    unit = float(values.mean()) or 1.0
    for strength in strengths:
        part = shrink[:, None] * (vectors @ (rotated / (values + strength * unit)[:, None]))
        weight = torch.zeros_like(fit.xy) if start is None else start.clone()
        weight[at] += part
        yield weight, mean_y - mean_x @ weight
