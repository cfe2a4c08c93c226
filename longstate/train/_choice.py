"""Choose the forecast: weights of the simple methods and of the network, and margins of the bands.

1. The simple methods get the weights, at least 0 with sum 1, with the least squared error on all
   folds. More than one is taken where that gains more than two standard errors.
2. The network gets the share with the least error beside them, on the windows of the validation
   part, which it was not fitted to. It gets none if that gains less than one standard error: its
   training stopped at its best moment on these windows, so that a small gain is chance.
3. The map has the settings that are best there, and is left out if the line is better.
4. Margins: for each step and target, quantiles of the errors on the windows of the validation
   part, or of all folds if the former are too few; see `conformal`.
5. For forecasts ridge, line and map are fitted again to all rows, and the errors in the test part
   count for the margins too. An evaluation scores what was fitted to the training part.

Axes: p parts, n windows, h horizon, c targets, q quantiles.
"""

import copy
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from longstate.errors import InputError
from longstate.models import ForecastModel
from longstate.models._choice import NETWORK, PARTS, Choice, Fitted, Refitted, weighted
from longstate.models._line import Line
from longstate.train._baselines import Linear
from longstate.train._chosen import Chosen, Part
from longstate.train._folds import ENOUGH, independent
from longstate.train._map_fit import Rows, choose_map, fit_map
from longstate.train._moments import Moments, sums_of
from longstate.train._scaling import check_size, pairs, row_units
from longstate.train._table import Table
from longstate.train._weights import best_share, conformal, effective, simplex
from longstate.train._windows import Split, Windows

MOST_WINDOWS = 2048  # of one fold
MOST_NUMBERS = 20_000_000  # errors of one fold: windows times horizon times targets
FEWEST = 3.0  # windows without a common row, to judge the network


@dataclass(frozen=True)
class Errors:
    """Errors of the parts on some windows, in scaled units; nan in gaps.

    Args:
        point (p, n, h, c): truth minus forecast; nan where the network was left out.
        offset (n, h, c, q): of the network's quantiles from its point.
        step (n, 1, c): how much the window moves.
        count: number of the windows without a common row.
    """

    point: Tensor
    offset: Tensor
    step: Tensor
    count: float

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(
            torch.cat([self.point, other.point], 1),
            torch.cat([self.offset, other.offset]),
            torch.cat([self.step, other.step]),
            self.count + other.count,
        )


@torch.no_grad()
def choose(model: ForecastModel, linear: Linear, parts: Split, *, refit: bool) -> Chosen:
    """Give a trained model its choice.

    Args:
        model: trained, in evaluation mode.
        linear: its simple methods.
        parts: ends of training, validation and test.
        refit: fit the simple methods to all rows too, unless the test part has values that are too
            large.
    """
    table = linear.folds[0].fit.table
    refit = refit and _is_usable(model, table)
    mapped = choose_map(model, linear.folds[-1])
    choice = model.choice = Choice(model.spec, refitted=refit, mapped=mapped is not None)
    choice.map = mapped
    choice.smoothing.copy_(linear.weights)
    _set_units(choice, model, table, parts)
    every, last = rolling(model, linear)
    weight = simplex(every.point, [*choice.available[:NETWORK], False], every.count)
    share, gain, noise = 0.0, None, None
    if last.count >= FEWEST:
        simple = weighted(weight, last.point)
        share, gain, noise = best_share(simple, last.point[NETWORK], last.count)
    choice.weight.copy_(weight * (1 - share))
    choice.weight[NETWORK] = share
    calibrated = now = _set_margins(choice, choice.margin, every, last)
    if choice.now is not None:
        now = refit_to(model, linear, parts, (every, last))
    return Chosen(
        parts=tuple(
            Part(
                name,
                float(choice.weight[i]),
                _square(last.point[i]),
                None if i == NETWORK else _square(every.point[i]),
            )
            for i, name in enumerate(PARTS)
            if choice.available[i]
        ),
        error=_square(choice.combined(last.point)),
        rolling=_square(weighted(weight, every.point)),
        folds=len(linear.folds),
        windows=every.point.shape[1],
        independent=every.count,
        calibrated=calibrated,
        now=now,
        gain=gain,
        noise=noise,
        refitted=refit,
    )


def refit_to(
    model: ForecastModel, linear: Linear, parts: Split, rolled: tuple[Errors, Errors]
) -> float:
    """Fit ridge, line, map and margins to all rows before `parts.rows`.

    Args:
        model: with a choice; the result is its `now`.
        linear: its simple methods.
        parts: ends of training and validation, and of all rows.
        rolled: from `rolling`.

    Returns:
        The number of independent windows that the margins rest on.
    """
    choice, (every, last) = model.choice, rolled
    assert choice is not None
    now = choice.now = choice.now or Refitted(model.spec, mapped=choice.map is not None)
    if parts.rows - parts.validation >= model.spec.horizon:
        test = Windows(linear.folds[0].fit.table, model.spec, parts.validation, parts.rows)
        tested = _errors(model, choice.fitted(model), test)
        every, last = every + tested, last + tested
    moments = _more(model, linear, linear.folds[-1].fitted, parts.train, parts.rows)
    linear.solve(moments, now.line, now.ridge)
    if choice.map is not None and now.map is not None:
        now.map.load_state_dict(choice.map.state_dict())
        every_window = Windows(linear.folds[0].fit.table, model.spec, 0, parts.rows)
        fit_map(now.map, Rows.of(model, every_window, now.map.lags))
    return _set_margins(choice, now.margin, every, last)


def _is_usable(model: ForecastModel, table: Table) -> bool:
    """Whether all rows have values that can be used; `evaluate` refuses others by name."""
    try:
        check_size(model, table, table.span)
    except InputError:
        return False
    return True


def _square(error: Tensor) -> float:
    return float((error.double() ** 2).nanmean())


def rolling(model: ForecastModel, linear: Linear) -> tuple[Errors, Errors]:
    """The errors on the windows of all folds, and on those of the last fold alone."""
    choice = model.choice
    assert choice is not None
    mapped = copy.deepcopy(choice.map)
    fitted = Fitted(Line(model.spec), Line(model.spec), mapped, choice.margin)
    found = []
    for fold in linear.folds:
        linear.solve(fold.fitted, fitted.line, fitted.ridge)
        if mapped is not None:
            fit_map(mapped, Rows.of(model, fold.fit, mapped.lags))
        without = () if fold is linear.folds[-1] else ("network",)
        found.append(_errors(model, fitted, fold.check, without))
    every = found[0]
    for more in found[1:]:
        every = every + more
    count = independent([fold.check for fold in linear.folds], every.point.shape[1])
    return replace(every, count=count), found[-1]


def _errors(
    model: ForecastModel, fitted: Fitted, windows: Windows, without: Collection[str] = ()
) -> Errors:
    """The errors on evenly spaced windows."""
    spec, choice = model.spec, model.choice
    assert choice is not None
    most = min(MOST_WINDOWS, max(1, MOST_NUMBERS // (spec.horizon * len(spec.targets))))
    n = len(windows)
    indices = np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))
    found = []
    for part in np.array_split(indices, -(-len(indices) // 128)):
        batch = windows.batch(part)
        points, offsets, step = choice.parts(model, batch.window, fitted, without)
        truth = model.units(batch.window).scale(batch.future)
        truth = torch.where(batch.present, truth, torch.nan)
        found.append((truth - points, offsets, step))
    errors, distances, steps = zip(*found, strict=True)
    count = independent([windows], len(indices))
    return Errors(torch.cat(errors, 1), torch.cat(distances), torch.cat(steps), count)


def _set_margins(choice: Choice, margin: Tensor, every: Errors, last: Errors) -> float:
    """Set the margins of the choice, and of every part alone; returns the number of independent
    windows that those of the choice rest on."""
    levels, counts = choice.levels, []
    for i in range(1 + len(PARTS)):
        network = choice.network_bands(i)
        for seen in (last, every):
            point = choice.combined(seen.point) if i == 0 else seen.point[i - 1]
            count = effective(point, seen.count)
            if network or count >= ENOUGH:  # earlier folds were fitted to fewer rows
                break
        counts.append(count)
        if levels:
            rest = point[..., None].expand(*point.shape, len(levels))
            rest = (rest - seen.offset if network else rest) / seen.step[..., None]
            margin[i] = conformal(rest, levels, counts[-1])
    return counts[0]


def _more(
    model: ForecastModel, linear: Linear, moments: list[Moments], before: int, end: int
) -> list[Moments]:
    """The moments of all windows that end before row `end`, given those before row `before`."""
    table, horizon = linear.folds[0].fit.table, model.spec.horizon
    more = sums_of(model, Windows(table, model.spec, before - horizon + 1, end))
    return [a + b for a, b in zip(moments, more, strict=True)]


def _set_units(choice: Choice, model: ForecastModel, table: Table, parts: Split) -> None:
    """Mean absolute step of the training part in scaled units; and mean absolute seasonal
    difference of training and validation over the standard deviation, for MASE. Means over all
    series of a panel."""
    rows, units = pairs(table, 1, parts.train), row_units(model, table)

    def target(at: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(table.target[at]))

    def scaled(at: np.ndarray) -> Tensor:
        return units.each(lambda x: x if x.dim() < 2 else x[at]).scale(target(at))

    step = (scaled(rows) - scaled(rows - 1)).abs()
    choice.usual_step.copy_(step.mean(0).clamp_min(1e-12))
    season = model.spec.season if model.spec.season < parts.validation else 1
    rows = pairs(table, season, parts.validation)
    if not len(rows):
        season, rows = 1, pairs(table, 1, parts.validation)
    unit = units.unit if units.unit.dim() < 2 else units.unit[rows]
    error = (target(rows) - target(rows - season)).abs() / unit
    choice.naive_error.copy_(error.mean(0).clamp_min(1e-12))
