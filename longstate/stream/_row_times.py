"""The window of a forecast and the features of its times, from rows that arrived."""

from collections.abc import Collection
from itertools import islice

import numpy as np
import pandas as pd
import torch

from longstate.models import Calendar, ForecastSpec, Window
from longstate.models._elapsed import from_last_row
from longstate.models._spec import calendar_features
from longstate.models._time_text import passed
from longstate.stream._row import Row


def row_times(
    spec: ForecastSpec, calendar: Calendar, past: Collection[Row], future: Collection[Row]
) -> np.ndarray:
    """Features (w + h, m): of cycles, or the time from the last row of the window.

    Args:
        spec: of the model. calendar: of the stream.
        past: the rows of the window. future: rows with the columns that are known in advance. Their
            times are those of the horizon if times are irregular; without such columns the usual
            interval is assumed.
    """
    w, h, times = spec.window, spec.horizon, [row.time for row in past]
    if not spec.n_calendar or times[-1] is None:
        return np.zeros((w + h, 0))
    if spec.irregular and spec.known:
        stamps = pd.Index([*times, *(row.time for row in islice(future, h))])
    else:
        stamps = pd.Index(times).append(calendar.next(times[-1], h))
    if spec.irregular:
        return from_last_row(passed(stamps)[None, :, None], w, calendar)[0]
    return calendar_features(calendar.wall_clock(stamps), spec.cycles, w + h)


def window_of(
    spec: ForecastSpec, calendar: Calendar, past: Collection[Row], future: Collection[Row]
) -> Window:
    """The input of a forecast, b = 1; the scale of a series of a panel is not set.

    Args:
        spec, calendar, past, future: as in `row_times`.
    """
    h = spec.horizon
    ahead = list(islice(future, h)) if spec.reads_ahead else []
    known, codes = np.zeros((spec.window + h, 0)), None
    if spec.known:
        known = np.stack([row.known for row in (*past, *ahead)])
    if spec.categories:
        codes = np.zeros((spec.window + h, len(spec.categories)), dtype=np.int64)
        codes[: spec.window + len(ahead)] = [row.codes for row in (*past, *ahead)]
        last = codes[spec.window - 1]
        for j, one in enumerate(spec.categories):
            if one.role == "static":
                codes[:, j] = last[j]
    last_row = list(past)[-1]
    return Window(
        target=_tensor(np.stack([row.target for row in past])),
        observed=_tensor(np.stack([row.observed for row in past])),
        covariates=_tensor(np.stack([row.covariates for row in past])),
        known=_tensor(known),
        calendar=_tensor(row_times(spec, calendar, past, future)),
        static=_tensor(last_row.static) if spec.static else None,
        codes=None if codes is None else _tensor(codes),
    )


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)[None]
