"""The forecast of the rows after the data, as windows to draw."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.models import ForecastSpec
from longstate.train._evaluation import Example
from longstate.train._fitted import FittedForecaster
from longstate.train._frame import Data
from longstate.train._panel_table import resized
from longstate.train._table import Table


@dataclass(frozen=True)
class Ahead:
    """Forecasts whose truth is not known yet.

    Args:
        windows: id of a series ("" for a single one) -> a window for each target; the truth is nan.
        lacks: why there is no forecast; None where there is one.
    """

    windows: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    lacks: str | None = None

    @property
    def single(self) -> tuple[Example, ...]:
        """The windows of a single series; empty for a panel."""
        return self.windows.get("", ())


def forecast_ahead(forecaster: FittedForecaster, data: Data, series: Iterable[str] = ()) -> Ahead:
    """The forecast of `predict`, with the rows before it.

    Args:
        forecaster: after `fit` or `load`.
        data: as for `predict`.
        series: of a panel, ids as texts; those without a forecast are left out.
    """
    spec = forecaster.model.spec
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the evaluation has the remarks
            forecast, table = forecaster.predict(data), forecaster._table(data)
    except InputError as e:
        return Ahead(lacks=str(e))
    if table.panel is None:
        return Ahead({"": _windows(table, spec, forecast, table.rows)})
    table = resized(table, spec.window, spec.horizon)
    assert table.panel is not None
    names, ids, ends = table.panel.names, table.panel.ids, table.panel.ends
    place, parts = {name: i for i, name in enumerate(names)}, forecast.groupby(str(spec.id))
    found = {}
    for name in series:
        i = place.get(name)
        if i is not None and ids[i] in parts.groups:
            found[name] = _windows(table, spec, parts.get_group(ids[i]), int(ends[i]))
    return Ahead(found)


def _windows(
    table: Table, spec: ForecastSpec, forecast: pd.DataFrame, end: int
) -> tuple[Example, ...]:
    """One for each target of the series whose past ends before the row `end`."""
    kept = min(spec.window, 2 * spec.horizon)
    past = np.where(table.observed, table.target, np.nan)[end - kept : end]
    return tuple(
        Example(
            target=name,
            times=tuple(table.label(row) for row in range(end - kept, end + spec.horizon)),
            past=tuple(past[:, j].tolist()),
            truth=(float("nan"),) * spec.horizon,
            forecasts={"model": tuple(forecast[name].tolist())},
            quantiles={q: tuple(forecast[f"{name}_q{q:g}"].tolist()) for q in spec.quantiles},
        )
        for j, name in enumerate(spec.targets)
    )
