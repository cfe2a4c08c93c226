"""Forecast as rows come in, one forecast per row, in memory that does not grow.

The last `window` rows are kept. The subtraction of the last value makes every window's input new,
so each forecast is one pass over the window; nothing older is needed.

Rows arrive in order of time. Rows that are missing are put in as gaps. A run with columns that are
known in advance needs them ahead: a row whose targets are empty is a row of the future, and tells
them; the same row comes again, with targets, when its time has come.

Axes: b batch (1), w window, h horizon, c targets, p covariates, k known.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from longstate.errors import InputError
from longstate.models import Forecast, ForecastModel, Window
from longstate.models._spec import calendar_features


class Streamed(NamedTuple):
    """A forecast and the row after which it was made.

    Args:
        origin: time of the last row seen; its number, from 0, where there are no times.
        forecast: b = 1.
    """

    origin: str
    forecast: Forecast


class _Row(NamedTuple):
    time: pd.Timestamp | None
    target: np.ndarray
    observed: np.ndarray
    covariates: np.ndarray
    known: np.ndarray


class ForecastStream:
    """Feed rows, get forecasts.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: ForecastModel):
        self.model, self.spec = model.eval(), model.spec
        self._past: deque[_Row] = deque(maxlen=self.spec.window)
        self._future: deque[_Row] = deque()
        self._count = 0
        self._step = (
            None if self.spec.step is None else pd.tseries.frequencies.to_offset(self.spec.step)
        )

    def push(self, values: Mapping[str, str | float]) -> Streamed | None:
        """Take one row.

        Args:
            values: column -> number or text, and the time as text. Empty text is missing.

        Returns:
            The forecast after this row; None until there are `window` rows, and, with known
            columns, `horizon` rows of the future.

        Raises:
            InputError: a column is missing or not a number, or the time does not fit. The row is
                not taken and the stream goes on.
        """
        row = self._parse(values)
        future = bool(self.spec.known) and not row.observed.any()
        self._check_time(row, self._future[-1] if self._future and future else None, future)
        if future:
            self._push_future(row)
            due = len(self._future) == self.spec.horizon
        else:
            self._push_past(row)
            due = not self.spec.known or len(self._future) >= self.spec.horizon
        if not due or len(self._past) < self.spec.window:
            return None
        origin = self._past[-1].time
        with torch.no_grad():
            forecast = self.model(self._window())
        return Streamed(str(self._count - 1 if origin is None else origin), forecast)

    def _parse(self, values: Mapping[str, str | float]) -> _Row:
        spec = self.spec
        numbers = {}
        for name in (*spec.targets, *spec.covariates, *spec.known):
            if name not in values:
                raise InputError(f"there is no column {name!r} in the row")
            numbers[name] = _number(name, values[name])
        time = None
        if spec.time is not None:
            raw = str(values.get(spec.time, ""))
            when = pd.to_datetime(raw, errors="coerce", utc=True)
            if not isinstance(when, pd.Timestamp):
                raise InputError(f"the time column {spec.time!r} holds {raw!r}, not a date")
            time = when.tz_localize(None)
        target, covariates, known = (
            np.array([numbers[n] for n in names])
            for names in (spec.targets, spec.covariates, spec.known)
        )
        return _Row(time, target, ~np.isnan(target), covariates, known)

    def _check_time(self, row: _Row, before: _Row | None, future: bool) -> None:
        before = before or (self._past[-1] if self._past else None)
        if row.time is None or before is None or before.time is None or self._step is None:
            return
        if row.time <= before.time:
            raise InputError(f"the time {row.time} does not come after {before.time}")
        expected = before.time + self._step
        if row.time < expected or (future and row.time != expected):
            raise InputError(f"the time {row.time} does not fit; {expected} was expected")
        if row.time > expected and row.time not in self._grid(before.time, row.time):
            raise InputError(f"the time {row.time} does not fit a step of {self.spec.step}")

    def _grid(self, start: pd.Timestamp, end: pd.Timestamp) -> pd.DatetimeIndex:
        """Only as much of the grid as a window can hold; the step divides what lies before."""
        if isinstance(self._step, pd.tseries.offsets.Tick):
            steps = (end - start) // pd.Timedelta(self._step)
            skipped = max(0, steps - self.spec.window) * pd.Timedelta(self._step)
            start = start + skipped
        return pd.date_range(start, end, freq=self._step)

    def _push_future(self, row: _Row) -> None:
        if np.isnan(row.known).any():
            raise InputError("a row of the future must fill every column known in advance")
        if len(self._future) >= self.spec.window + 2 * self.spec.horizon:
            raise InputError(
                f"{len(self._future)} rows of the future are waiting; more are refused"
            )
        self._future.append(row)

    def _push_past(self, row: _Row) -> None:
        last = self._past[-1] if self._past else None
        if last is None and not row.observed.all():
            return  # no last value to hold yet
        if last is not None and row.time is not None and last.time is not None:
            for time in self._grid(last.time, row.time)[1:-1]:
                self._append(self._gap(time))
        self._append(row)

    def _gap(self, time: pd.Timestamp) -> _Row:
        nothing = [np.full(len(n), np.nan) for n in (self.spec.targets, self.spec.covariates)]
        known = np.full(len(self.spec.known), np.nan)
        return _Row(time, nothing[0], np.zeros(len(nothing[0]), dtype=bool), nothing[1], known)

    def _append(self, row: _Row) -> None:
        announced = self._future.popleft() if self._future else None
        if announced is not None:
            row = row._replace(known=np.where(np.isnan(row.known), announced.known, row.known))
        held = self._past[-1] if self._past else None
        covariates = self.model.covariate_scale.mean if held is None else held.covariates
        known = self.model.known_scale.mean if held is None else held.known
        target = row.target if held is None else np.where(row.observed, row.target, held.target)
        self._past.append(
            row._replace(
                target=target,
                covariates=np.where(np.isnan(row.covariates), covariates, row.covariates),
                known=np.where(np.isnan(row.known), known, row.known),
            )
        )
        self._count += 1

    def _window(self) -> Window:
        past, h = self._past, self.spec.horizon
        ahead = [row.known for row in list(self._future)[:h]] if self.spec.known else []
        times = None
        if self._step is not None and past[-1].time is not None:
            future = pd.date_range(past[-1].time, periods=h + 1, freq=self._step)[1:]
            times = np.concatenate([np.array([r.time for r in past], dtype="M8[ms]"), future])
        rows = self.spec.window + h
        known = np.zeros((rows, 0))
        if self.spec.known:
            known = np.stack([*(r.known for r in past), *ahead])
        return Window(
            target=_tensor(np.stack([r.target for r in past])),
            observed=_tensor(np.stack([r.observed for r in past])),
            covariates=_tensor(np.stack([r.covariates for r in past])),
            known=_tensor(known),
            calendar=_tensor(calendar_features(times, self.spec.calendar, rows)),
        )


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)[None]


def _number(name: str, value: str | float) -> float:
    text = str(value).strip().lower()
    if text in ("", "na", "nan", "null", "none"):
        return float("nan")
    if text in ("true", "false"):
        return float(text == "true")
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"column {name!r} holds {str(value)!r}; a number was expected") from None
    if abs(number) == float("inf"):
        raise InputError(f"column {name!r} is infinite")
    return number
