"""Forecasts of all series of a panel, in batches.

Axes: s series, h horizon, c targets.
"""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch

from longstate.errors import InputError
from longstate.models import Forecast, ForecastModel
from longstate.models._time_text import present
from longstate.train._forecast_frame import remarks
from longstate.train._panel import Panel
from longstate.train._panel_table import named, resized
from longstate.train._table import Table
from longstate.train._windows import Windows

BATCH = 256
FEWEST = 2  # observed rows of the window


@torch.no_grad()
def forecast_panel(table: Table, model: ForecastModel, method: str | None) -> pd.DataFrame:
    """The horizon after the last row of each series that has enough rows.

    Args:
        table: with the scale of each series. model: in evaluation mode.
        method: one of `PARTS` alone; None for the choice.

    Returns:
        A long frame: id, time (or row number), and for each target its column and one for each
        quantile. Sentences about series that are left out or short are warnings, and follow those
        of the table in `attrs["notes"]`.

    Raises:
        InputError: no series can be forecast, or a forecast is not finite.
    """
    spec, notes = model.spec, []
    assert table.panel is not None
    reaches = _reaches(table, spec.horizon)
    full = resized(table, spec.window, spec.horizon)
    panel = full.panel
    assert panel is not None
    seen = _seen(full, panel, spec.window)
    for lacks, why in (
        (seen < FEWEST, f"have fewer than {FEWEST} values in the window"),
        ((seen >= FEWEST) & ~reaches, f"lack the {spec.horizon} rows of the future"),
    ):
        if lacks.any():
            notes.append(f"{_named(panel, lacks)} {why}; they are not forecast.")
    keep = np.flatnonzero((seen >= FEWEST) & reaches)
    if not len(keep):
        raise InputError(f"no series can be forecast: {' '.join(notes)}")
    gaps = (2 * seen < spec.window) & (seen >= FEWEST) & reaches
    if gaps.any():
        notes.append(
            f"{_named(panel, gaps)} have fewer than half of the {spec.window} rows that a forecast "
            "reads."
        )
    found = []
    for part in np.array_split(keep, -(-len(keep) // BATCH)):
        found.append(model.chosen(Windows.before(full, spec, panel.ends[part]), method))
    forecast = Forecast(*(torch.cat(x) for x in zip(*found, strict=True)))
    finite = torch.isfinite(forecast.point).flatten(1).all(1).numpy()
    if not finite.all():
        raise InputError(f"the forecast of {_named(panel, keep[~finite])} is not finite")
    notes += remarks(table, model)
    for note in notes:
        warnings.warn(note, stacklevel=3)
    result = _frame(full, panel, model, forecast, keep)
    result.attrs["notes"] = [*table.notes, *notes]
    return result


def _named(panel: Panel, which: np.ndarray) -> str:
    return named([panel.names[i] for i in np.arange(len(panel.names))[which]])


def _reaches(table: Table, horizon: int) -> np.ndarray:
    """(s): whether the columns that are known in advance reach the horizon."""
    panel = table.panel
    assert panel is not None
    if not table.columns.reads_ahead:
        return np.ones(len(panel.names), dtype=bool)
    filled = ~np.isnan(table.known).any(axis=1)
    ahead = panel.starts[1:] - panel.ends >= horizon
    return np.array([
        enough and bool(filled[end : end + horizon].all())
        for enough, end in zip(ahead, panel.ends, strict=True)
    ])  # fmt: skip


def _seen(table: Table, panel: Panel, window: int) -> np.ndarray:
    """(s): rows with a value in the last window of each series."""
    count = np.concatenate([[0], np.cumsum(table.observed.any(axis=1))])
    return count[panel.ends] - count[panel.ends - window]


def _frame(
    table: Table, panel: Panel, model: ForecastModel, forecast: Forecast, keep: np.ndarray
) -> pd.DataFrame:
    spec, calendar = model.spec, table.calendar
    h = spec.horizon
    ids = panel.ids[np.repeat(keep, h)]
    columns: dict[str, Any] = {str(spec.id): ids}
    rows = panel.ends[keep][:, None] + np.arange(h)
    if panel.base is None or calendar is None:
        columns["row"] = (rows - panel.firsts[keep][:, None]).ravel()
    else:
        positions = panel.position[rows].ravel()
        distinct, place = np.unique(positions, return_inverse=True)
        times = calendar.at(panel.base + distinct)
        columns[str(spec.time)] = pd.Index(present(calendar, times))[place]
    for j, name in enumerate(spec.targets):
        columns[name] = forecast.point[:, :, j].flatten().numpy()
        for k, level in enumerate(spec.quantiles):
            columns[f"{name}_q{level:g}"] = forecast.quantiles[:, :, j, k].flatten().numpy()
    return pd.DataFrame(columns)
