"""Convert a data frame to the inputs of a fitted forecaster, and its forecast to a data frame."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.models import Forecast, ForecastModel, ForecastSpec
from longstate.models._remarks import strange_values
from longstate.models._time_text import present, texts
from longstate.train._irregular import assumed
from longstate.train._scaling import row_units
from longstate.train._table import Table


def check_reach(table: Table, spec: ForecastSpec, pieces: int = 1) -> None:
    """Raise InputError if the past, or the known part of the future, is too short for a forecast of
    so many horizons."""
    if table.rows < spec.window:
        raise InputError(
            f"a forecast needs the last {spec.window} rows; the data has {table.rows} up to "
            f"{table.label(table.rows - 1).replace('T', ' ')}"
        )
    ahead, need = len(table.known) - table.rows, pieces * spec.horizon
    if spec.reads_ahead and ahead < need:
        many = f" ({pieces} times the trained horizon)" if pieces > 1 else ""
        texts = (one.column for one in spec.categories if one.role == "known")
        raise InputError(
            f"a forecast needs {need} rows{many} after the last target with "
            f"{', '.join(map(repr, (*spec.known, *texts)))} filled; the data has {ahead}"
        )


def first_unseen(table: Table, facts: dict[str, Any], horizon: int) -> int:
    """The first position that was not used for training or validation.

    Raises:
        InputError: too few rows are left for an evaluation.
    """
    seen, until = facts["seen_rows"], facts["seen_until"]
    if until is None or table.moment(0) is None:
        known = table.span >= seen and table.digest(seen) == facts["seen_digest"]
        return seen if known else 0
    assert table.calendar is not None
    last = table.calendar.untext(until)
    if table.panel is None:
        assert table.times is not None
        row = int(table.times[: table.rows].searchsorted(last, side="right"))
    else:
        assert table.panel.base is not None
        row = int(table.calendar.index_of(pd.Index([last]))[0]) - table.panel.base + 1
    if table.span - row < horizon:
        raise InputError(
            f"the data ends at {table.moment(table.span - 1)}; an evaluation needs {horizon} rows "
            f"after {until.replace('T', ' ')}, the last time that was used for training and "
            "validation"
        )
    return row


def remarks(table: Table, model: ForecastModel) -> list[str]:
    """Sentences on values of the table that are unlike those of training."""
    rows, some = table.places.past(), table.panel is not None or table.some is not None
    return strange_values(
        model,
        np.where(table.observed[rows], table.target[rows], np.nan),
        table.covariates[rows],
        table.known[rows] if some else table.known,
        (lambda i: table.label(int(rows[i]))) if some else table.label,
        row_units(model, table).each(lambda x: x if x.dim() < 2 else x[rows]),
    )


def forecast_frame(
    table: Table, spec: ForecastSpec, forecast: Forecast, which: np.ndarray, notes: Sequence[str]
) -> pd.DataFrame:
    """Time (or row number), and for each target its column and one for each quantile; the id of the
    series before them in a panel.

    Args:
        table: the input of the forecast.
        spec: names.
        forecast: of the rows after the past of some series.
        which (b): the numbers of these series.
        notes: on the input. They follow the table's own in `attrs["notes"]`.
    """
    horizon, places = forecast.point.shape[1], table.places
    at = places.position[places.ends[which] - 1][:, None] + np.arange(1, horizon + 1)
    columns = {
        **ids_of(table, spec, np.repeat(which, horizon)),
        **times_of(table, spec, at.ravel()),
        **values_of(spec, forecast),
    }
    result = pd.DataFrame(columns)
    result.attrs["notes"] = [*table.notes, *notes]
    if spec.calendar is not None and spec.irregular and table.ahead < horizon:
        result.attrs["notes"].append(assumed(spec.calendar, horizon - table.ahead))
    return result


def ids_of(table: Table, spec: ForecastSpec, series: np.ndarray) -> dict[str, Any]:
    """The column with the ids of these series; none where there is one series."""
    return {} if table.panel is None else {str(spec.id): table.panel.ids[series]}


def times_of(table: Table, spec: ForecastSpec, positions: np.ndarray) -> dict[str, Any]:
    """The column with the times of these positions, in the form of the data; with row numbers where
    times are unknown."""
    distinct, place = np.unique(positions, return_inverse=True)
    stamps = table.stamps(distinct)
    if stamps is None or table.calendar is None:
        return {"row": table.before + positions}
    return {str(spec.time): pd.Index(present(table.calendar, stamps))[place]}


def values_of(spec: ForecastSpec, forecast: Forecast) -> dict[str, Any]:
    """The columns of the targets and their quantiles, of all rows of one forecast after another."""
    columns = {}
    for j, name in enumerate(spec.targets):
        columns[name] = forecast.point[:, :, j].flatten().numpy()
        for k, level in enumerate(spec.quantiles):
            columns[f"{name}_q{level:g}"] = forecast.quantiles[:, :, j, k].flatten().numpy()
    return columns


def forecast_csv(forecast: pd.DataFrame, spec: ForecastSpec) -> str:
    """`forecast_frame`, or the forecasts of a backtest, as CSV, with times in the format of
    training."""
    for name in (spec.time, "origin"):
        if spec.calendar is None or name not in forecast.columns:
            continue
        if pd.api.types.is_datetime64_any_dtype(forecast[name]):
            times = texts(spec.calendar, pd.DatetimeIndex(forecast[name]))
            forecast = forecast.assign(**{str(name): times})
    return forecast.to_csv(index=False)
