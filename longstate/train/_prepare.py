"""Decisions and closed-form solutions before training."""

import numbers
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from longstate.errors import InputError
from longstate.layers import S4D
from longstate.models import ForecastModel, ForecastSpec
from longstate.models._scale import TRANSFORMS
from longstate.train._baselines import Linear, fit_linear, fit_ridge
from longstate.train._folds import folds
from longstate.train._forecast_task import fit_spread
from longstate.train._long_series import PIECE
from longstate.train._panel_table import resized, with_units
from longstate.train._scaling import check_size, fit_scale
from longstate.train._table import Table
from longstate.train._windows import Split, Windows, check_split, cycles_of, season_of, split_rows

WINDOW = 336
SPLIT = (0.7, 0.1, 0.2)

ZEROS = 0.05  # share of zeros from which on values that are never below 0 cannot be so
COUNTS = (
    "The targets are {}, so that no forecast is below 0; with lower=-inf (--lower=-inf) there is "
    "no such bound."
)
CONSTANT = "Column {!r} is constant over the training part; it adds nothing."


@dataclass(frozen=True)
class Bounds:
    """Bounds of the forecasts, and the transform of the targets.

    Args:
        lower, upper: bounds of every forecast; None for no bound. A lower of -inf is none too, and
            says that `natural` shall not find one.
        transform: applied to the targets before scaling: "none", "log1p" (of the distance to
            `lower`), "box-cox", or "auto": the best on the validation part.
    """

    lower: float | None = None
    upper: float | None = None
    transform: str = "none"

    def __post_init__(self) -> None:
        if self.transform not in (*TRANSFORMS, "auto"):
            known = ", ".join((*TRANSFORMS, "auto"))
            raise InputError(f"transform must be one of {known}; got {self.transform!r}")
        for name in ("lower", "upper"):
            value = getattr(self, name)
            if value is None:
                continue
            none = (name, value) == ("lower", -np.inf)
            if not isinstance(value, numbers.Real) or not (np.isfinite(float(value)) or none):
                raise InputError(f"{name} must be a number; got {value!r}")
            object.__setattr__(self, name, float(value))  # a NumPy number cannot be saved
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise InputError(f"lower must be below upper; got {self.lower:g} and {self.upper:g}")

    def natural(self, table: Table) -> tuple["Bounds", tuple[str, ...]]:
        """With a lower bound of 0 and a remark, if none was given and the targets tell of it: they
        are counts, or never below 0 and often 0, as rain is."""
        if self.lower is not None:
            return replace(self, lower=None if self.lower == -np.inf else self.lower), ()
        values = table.target if table.some is None else table.target[table.some]
        values = values[np.isfinite(values)]
        if (values < 0).any() or (self.upper is not None and self.upper <= 0):
            return self, ()
        whole = bool((values == np.round(values)).all())
        if not whole and (values == 0).mean() < ZEROS:
            return self, ()
        said = "whole numbers from 0" if whole else "never below 0 and often 0"
        return replace(self, lower=0.0), (COUNTS.format(said),)

    def check(self, table: Table) -> None:
        """Raise InputError if the data exceeds a bound."""
        for name, bound, sign in (("lower", self.lower, 1), ("upper", self.upper, -1)):
            if bound is None:
                continue
            for at in range(0, len(table.target), PIECE):
                beyond = sign * table.target[at : at + PIECE] < sign * bound
                if beyond.any():
                    row, column = map(int, np.argwhere(beyond)[0])
                    raise InputError(
                        f"{name} is {bound:g}, but column {table.columns.targets[column]!r} is "
                        f"{table.target[at + row, column]:g} at {table.label(at + row)}"
                    )


def plan(
    table: Table,
    horizon: int,
    window: int | None,
    season: int | None,
    quantiles: tuple[float, ...],
    split: Sequence[float],
    bounds: Bounds = Bounds(),
) -> tuple[ForecastSpec, Split, Table]:
    """Columns, lengths and parts. `window` and `season` None are found from the table.

    Returns:
        Also the table, with the scale of each series in a panel, of which short series are padded.

    Raises:
        InputError: a part is too short, or the data exceeds a bound.
    """
    bounds.check(table)
    check_split(split)
    usual = table.places.usual()
    train_rows = int(usual * split[0])
    season = season or season_of(table, train_rows)
    spec = ForecastSpec(
        targets=table.columns.targets,
        covariates=table.columns.covariates,
        known=table.columns.known,
        time=table.columns.time,
        calendar=table.calendar,
        cycles=cycles_of(table, train_rows),
        window=window or window_of(train_rows, horizon, season),
        horizon=horizon,
        season=season,
        quantiles=quantiles,
        lower=bounds.lower,
        upper=bounds.upper,
        transform="none" if bounds.transform == "auto" else bounds.transform,
        id=table.columns.id,
        series=() if table.panel is None else table.panel.names,
        static=table.columns.static,
        categories=table.columns.categories,
    )
    table = resized(table, spec.window + horizon, 0)
    parts = split_rows(table, spec, split)
    if bounds.transform == "auto":
        spec = min(
            (replace(spec, transform=name) for name in TRANSFORMS),
            key=lambda choice: _line_error(table, choice, parts),
        )
    return spec, parts, with_units(table, spec, parts.train)


def default_split(table: Table, horizon: int) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The shares of the parts, and a remark where they are not the usual ones: validation and test
    get one horizon at least.

    Raises:
        InputError: that leaves the training less than a horizon and a row.
    """
    rows, places = table.span, table.places
    train, seen = places.position_of(SPLIT[0]), places.position_of(SPLIT[0] + SPLIT[1])
    validation, test = max(horizon, seen - train), max(horizon, rows - seen)
    left = rows - validation - test
    if left == train:
        return SPLIT, ()
    if left <= horizon:
        raise InputError(
            f"the data has {rows} rows, but a horizon of {horizon} needs {3 * horizon + 1} at "
            "least: one horizon each for training, validation and test, and a row before; give "
            "more rows or a shorter horizon (--horizon)"
        )
    note = (
        f"The data is short: training, validation and test get {left}, {validation} and {test} "
        "rows; split (--split) gives other shares. What rests on so few rows is uncertain."
    )
    ends = places.share_before(left), places.share_before(left + validation)
    return (ends[0], ends[1] - ends[0], 1 - ends[1]), (note,)


def window_of(rows: int, horizon: int, season: int) -> int:
    """The window for this many training rows: `WINDOW` if it fits three times, otherwise a third of
    the rows, and at least three seasons if they fit twice; whole seasons where it is longer than
    one."""
    free = rows - horizon
    window = min(WINDOW, max(free // 3, min(3 * season, free // 2)))
    if window < WINDOW and window >= 2 * season:
        window -= window % season
    return max(1, window)


def identity_of(spec: ForecastSpec) -> dict[str, Any]:
    """The settings that must be equal to continue a run. Newer settings with the old default value
    are left out, so that runs of older versions can be continued."""
    facts = asdict(spec)
    calendar = spec.calendar
    facts.pop("series")  # the digest of the data has their names
    newer = ("lower", "upper", "transform", "id", "static", "categories")
    extra = {name: facts.pop(name) for name in newer}
    step = None if calendar is None else calendar.length or calendar.step
    facts |= {"step": step, "calendar": facts.pop("cycles")}
    facts |= {name: value for name, value in extra.items() if value not in (None, "none", ())}
    if calendar is not None and (calendar.zone or calendar.holidays):
        facts |= {"zone": calendar.zone, "holidays": calendar.holidays}
    return facts


def run_identity(
    table: Table, spec: ForecastSpec, parts: Split, settings: dict[str, Any]
) -> dict[str, str]:
    """The data and all settings of a run, as text, by which its checkpoint is known.

    Args:
        table, spec, parts: the data and its division.
        settings: further ones, by name.
    """
    identity = {"data": table.digest(table.span)[:16], **identity_of(spec), **asdict(parts)}
    identity |= settings
    return {name.replace("_", " "): str(value) for name, value in identity.items()}


@torch.no_grad()
def _line_error(table: Table, spec: ForecastSpec, parts: Split) -> float:
    """Mean squared error of the line alone on the validation part, in the data's own units."""
    table = with_units(table, spec, parts.train)
    training = Windows(table, spec, 0, parts.train)
    validation = Windows(table, spec, parts.train, parts.validation)
    with torch.random.fork_rng(devices=[]):
        model = ForecastModel(spec, lambda d: S4D(d, d_state=2), d_model=2, n_layers=1).eval()
    fit_scale(model, training, parts.train)
    check_size(model, table, parts.validation)
    fit_ridge(model, training, validation)
    total, count = 0.0, 0.0
    for batch in validation.batches(256):
        forecast = model.raw(model.scaled_line(batch.window), batch.window)
        error = (forecast - batch.future) / model.units(batch.window).unit
        total += float((batch.present * error**2).sum())
        count += float(batch.present.sum())
    return total / count if np.isfinite(total) else float("inf")


def solve(model: ForecastModel, table: Table, parts: Split) -> tuple[tuple[str, ...], Linear]:
    """Set the parts that need no training: scales, the line, the spread of the quantiles.

    Args:
        model: its scales and its line are set from the training part.
        table: all rows.
        parts: ends of training and validation.

    Returns:
        The names of constant columns, and all simple methods.

    Raises:
        InputError: a target is constant over the training part; a value is too large.
    """
    rolling = folds(table, model.spec, parts)
    training, validation = rolling[-1]
    constant = fit_scale(model, training, parts.train)
    for name in constant:
        if name in model.spec.targets:
            raise InputError(
                f"the target column {name!r} is constant over the training part; there is nothing "
                "to learn; another column, or other shares of the parts (split, --split), may help"
            )
    check_size(model, table, parts.validation)
    linear = fit_linear(model, rolling)
    fit_spread(model, validation)
    return constant, linear
