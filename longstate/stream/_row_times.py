"""The features of the times of a window and its horizon, from rows that arrived."""

from collections.abc import Collection
from itertools import islice

import numpy as np
import pandas as pd

from longstate.models import Calendar, ForecastSpec
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
