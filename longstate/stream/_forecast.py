"""Forecast as rows arrive, one forecast per row, in constant memory.

The last `window` rows are kept. The last value is subtracted from the window, which changes all its
inputs, so each forecast is one pass over the window; older rows are not needed.

Rows arrive in order of time. Missing rows are added as gaps. Columns that are known in advance must
be pushed in advance: a row with empty targets is a row of the future that contains them. The same
row is pushed again, with targets, when its time has come.

A row whose time is more than a window away from the last row is held until the next row confirms
it, so that one wrong time does not spoil the stream.

Axes: b batch (1), w window, h horizon, c targets, p covariates, k known.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from longstate.errors import InputError
from longstate.models import Calendar, Forecast, ForecastModel, Window
from longstate.models._calendar import HOLIDAY_RUN, ROWS
from longstate.models._remarks import strange_values, unseen_columns
from longstate.models._scale import Scale, Units
from longstate.models._time_text import texts
from longstate.stream._adaptive import Adaptive
from longstate.stream._forecast_saving import Kept, load_rows, save_rows
from longstate.stream._identity import describe
from longstate.stream._row import Row, gap, row_of
from longstate.stream._row_times import window_of

MOST_HOLIDAYS = 4096
MOST_NOTES = 16  # that wait for the next forecast


class Streamed(NamedTuple):
    """A forecast and the row after which it was made.

    Args:
        origin: time of the last row, in the format of the data; its number, from 0, if there are
            no times.
        forecast: b = 1.
        note: sentences about missing rows of the window, columns without a value in it, and values
            that are unlike those of training; None if there are none.
        series: of a panel.
    """

    origin: str
    forecast: Forecast
    note: str | None = None
    series: str | None = None


class ForecastStream:
    """A stream of forecasts: push rows, get forecasts.

    Args:
        model: in evaluation mode.
        adapt: rate at which the quantiles follow the truth as it arrives, such as 0.01; 0 gives
            the quantiles of `Forecaster.predict`.
        series: the series of a panel; one that was not in the training gets the scale of its
            window.

    Raises:
        InputError: the rate is not from 0 to 1.
    """

    def __init__(self, model: ForecastModel, *, adapt: float = 0.0, series: str | None = None):
        self.model, self.spec = model.eval(), model.spec
        if (series is None) != (self.spec.id is None):
            raise InputError("a stream of a panel needs a series; PanelStream has one for each")
        self._units: Units | None = model.scale.units
        if series is not None:
            known = series in self.spec.series
            at = self.spec.series.index(series) if known else 0
            self._units = model.scale.units.each(lambda x: x[at]) if known else None
        self._adaptive = Adaptive(self.spec, adapt)
        self._static_mean = model.static_scale.mean.numpy() if self.spec.static else np.zeros(0)
        self._is_static = np.array([c.role == "static" for c in self.spec.categories], dtype=bool)
        self._past: deque[Row] = deque(maxlen=self.spec.window)
        self._future: deque[Row] = deque()
        self._doubtful: Row | None = None
        self._count = 0
        self._since: dict[str, int] = {}
        self._notes: deque[str] = deque(maxlen=MOST_NOTES)
        self._identity: dict[str, Any] | None = None
        self._calendar = self.spec.calendar or Calendar(ROWS)

    def push(self, values: Mapping[str, str | float]) -> Streamed | None:
        """Add one row.

        Args:
            values: column -> number or text, and the time as text. Empty text is a missing value.

        Returns:
            The forecast after this row; None until there are `window` rows, and, with known
            columns, `horizon` rows of the future.

        Raises:
            InputError: a column is missing or not a number, the time does not fit, or no row of the
                window but the last is observed. The stream can be used further.
        """
        before = self._past[-1].time if self._past else None
        row = row_of(self.spec, self._calendar, values, before)
        if self._calendar.even and row.time is not None:
            row = self._on_grid(row)
        future = self.spec.reads_ahead and not row.observed.any()
        if not future:
            self._settle_doubt(row)
        self._check_time(row, self._future[-1] if self._future and future else None, future)
        if future:
            self._push_future(row)
            due = len(self._future) == self.spec.horizon
        else:
            self._push_past(row)
            due = not self.spec.reads_ahead or len(self._future) >= self.spec.horizon
        if not due or len(self._past) < self.spec.window:
            return None
        forecast, lacks = self.model.checked(self._window())
        notes = [*([] if lacks is None else [lacks]), *unseen_columns(self.spec, self._since)]
        notes += self._notes
        self._notes.clear()
        origin = self._label(self._past[-1], self._count - 1)
        return Streamed(origin, self._adaptive.correct(forecast), " ".join(notes) or None)

    def _label(self, row: Row, count: int) -> str:
        if row.time is None:
            return str(count)
        return texts(self._calendar, pd.Index([row.time]))[0]

    def save(self, path: str | Path) -> None:
        """Write the rows that are kept, atomically, so that the stream can continue later."""
        if self._identity is None:
            self._identity = describe(self.model)
        save_rows(path, self._identity, self.packed())

    def load(self, path: str | Path) -> None:
        """Continue from a file of `save`, written by a stream of the same model.

        Raises:
            InputError: the file is missing, damaged, or of another model. The stream is unchanged.
        """
        self.take(load_rows(path, self.model))

    def packed(self) -> Kept:
        """Everything that the next forecast needs of this stream."""
        more, kept = self._adaptive.tensors(), self._kept()
        return Kept(self._calendar, self._count, self._since, kept, more)

    def take(self, found: Kept) -> None:
        """The inverse of `packed`."""
        self._adaptive.load(found.tensors)
        self._calendar, self._count, self._since = found.calendar, found.number, found.since
        self._past = deque((Row(*r) for r in found.rows["past"]), maxlen=self.spec.window)
        self._future = deque(Row(*r) for r in found.rows["future"])
        self._doubtful = Row(*found.rows["doubtful"][0]) if found.rows["doubtful"] else None

    def _kept(self) -> dict[str, list[Row]]:
        doubtful = [] if self._doubtful is None else [self._doubtful]
        return {"past": [*self._past], "future": [*self._future], "doubtful": doubtful}

    def _on_grid(self, row: Row) -> Row:
        stamps = pd.Index([row.time])
        self._calendar = self._calendar.anchored(stamps)
        place = self._calendar.index_of(stamps)
        if self._calendar.off_grid(stamps, place).any():
            raise InputError(
                f"the time {row.time} does not fit its step (every {self._calendar.words})"
            )
        return row._replace(time=self._calendar.at(place)[0])

    def _steps(self, start: Any, end: Any) -> int:
        """Number of steps between two times; 1 for later rows if times are only labels."""
        if not self._calendar.even:
            return int(end > start) - int(end < start)
        first, last = self._calendar.index_of(pd.Index([start, end]))
        return int(last - first)

    def _settle_doubt(self, row: Row) -> None:
        """Accept the held row if this row follows it; otherwise drop it."""
        waiting, self._doubtful = self._doubtful, None
        if waiting is None or not 0 < self._steps(waiting.time, row.time) < self.spec.window:
            return
        if self._past and self._steps(self._past[-1].time, waiting.time) < 0:
            self._past.clear()  # the rows before it had wrong, later times
            self._future.clear()
        self._push_past(waiting)

    def _check_time(self, row: Row, before: Row | None, future: bool) -> None:
        before = before or (self._past[-1] if self._past else None)
        if row.time is None or before is None:
            return
        steps = self._steps(before.time, row.time)
        if abs(steps) > self.spec.window and not future:
            self._doubtful = row
            after = "after" if steps > 0 else "before"
            raise InputError(
                f"the time {row.time} lies {abs(steps)} steps {after} {before.time}, more than the "
                f"window of {self.spec.window} rows; it is held until a row follows it"
            )
        if steps < 1:
            raise InputError(f"the time {row.time} does not come after {before.time}")
        if future and steps != 1:
            expected = self._calendar.next(before.time, 1)[0] if self._calendar.even else "the next"
            raise InputError(f"the time {row.time} does not fit; {expected} was expected")

    def _push_future(self, row: Row) -> None:
        if np.isnan(row.known).any():
            raise InputError("a row of the future must fill every column known in advance")
        if len(self._future) >= self.spec.window + 2 * self.spec.horizon:
            raise InputError(
                f"{len(self._future)} rows of the future are waiting; more are refused"
            )
        self._future.append(row)

    def _push_past(self, row: Row) -> None:
        last = self._past[-1] if self._past else None
        if last is None and not row.observed.all():
            return  # no last value to hold yet
        if last is not None and row.time is not None and self._calendar.even:
            self._push_gaps(last.time, row.time)
        self._append(row)

    def _push_gaps(self, start: Any, end: Any) -> None:
        """One row of gaps for each step between; no more than a window holds."""
        first, last = self._calendar.index_of(pd.Index([start, end]))
        if (
            self._calendar.inferred and last - first <= HOLIDAY_RUN + 1
        ):  # as in training, working days without a row are holidays
            days = self._calendar.at(np.arange(first + 1, last))
            if len(days):
                holidays = (*self._calendar.holidays, *(str(day.date()) for day in days))
                recent = tuple(sorted(holidays)[-MOST_HOLIDAYS:])
                self._calendar = replace(self._calendar, holidays=recent)
            return
        for time in self._calendar.at(np.arange(max(first + 1, last - self.spec.window), last)):
            self._append(gap(self.spec, time))

    def _append(self, row: Row) -> None:
        announced = self._future.popleft() if self._future else None
        if announced is not None:
            row = row._replace(
                known=np.where(np.isnan(row.known), announced.known, row.known),
                codes=np.where(row.codes == 0, announced.codes, row.codes),
            )
        self._observe(row)
        self._adaptive.row(torch.from_numpy(row.target), torch.from_numpy(row.observed))
        held = self._past[-1] if self._past else None
        covariates = self.model.covariate_scale.mean if held is None else held.covariates
        known = self.model.known_scale.mean if held is None else held.known
        static = self._static_mean if held is None else held.static
        codes = row.codes if held is None else held.codes
        target = row.target if held is None else np.where(row.observed, row.target, held.target)
        self._past.append(
            row._replace(
                target=target,
                covariates=np.where(np.isnan(row.covariates), covariates, row.covariates),
                known=np.where(np.isnan(row.known), known, row.known),
                static=np.where(np.isnan(row.static), static, row.static),
                codes=np.where(self._is_static & (row.codes == 0), codes, row.codes),
            )
        )
        self._count += 1

    def _observe(self, row: Row) -> None:
        """Count the rows since each column's last value, and remark on strange values."""
        spec, values = self.spec, (row.target, row.covariates, row.known)
        names = (*spec.targets, *spec.covariates, *spec.known)
        for name, value in zip(names, np.concatenate(values), strict=True):
            self._since[name] = self._since.get(name, 0) + 1 if np.isnan(value) else 0
        target, covariates, known = (x[None] for x in values)
        self._notes += strange_values(
            self.model,
            target,
            covariates,
            known,
            lambda _: self._label(row, self._count),
            self._units or Units(*torch.tensor([0.0, 1.0, torch.inf]).unbind()),
        )

    def _window(self) -> Window:
        window = window_of(self.spec, self._calendar, self._past, self._future)
        if self.spec.id is None:
            return window
        units = self._units
        if units is None:
            scale = Scale(len(self.spec.targets), self.spec.transform)
            scale.fit(window.target[0], self.spec.lower)
            units = scale.units
        return window._replace(units=units.each(lambda x: x[None, None]))
