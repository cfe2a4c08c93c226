"""The forecaster with the calls and columns of statsforecast, mlforecast and neuralforecast.

Long frames have one row for each series and time: `unique_id`, `ds`, `y`. A level of 80 is the band
between the quantiles 0.1 and 0.9.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from longstate.errors import InputError, expect_whole, near
from longstate.train import Forecaster
from longstate.train._frame import Data, Names, as_frame, names_of


class NixtlaForecaster:
    """One model for all series of a long frame.

        model = NixtlaForecaster(Forecaster(horizon=12))
        model.fit(df).predict(h=12, level=[80])
        model.cross_validation(df, h=12, n_windows=3, step_size=12, level=[80])

    Args:
        forecaster: the settings. It stays as it is: copies of it are trained. Its `quantiles`
            decide which levels there are.
        alias: column of the forecast.
        id_col, time_col, target_col: columns of the frames.
        known, covariates, static: further columns, as `Forecaster.fit` takes them.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        *,
        alias: str = "longstate",
        id_col: str = "unique_id",
        time_col: str = "ds",
        target_col: str = "y",
        known: Names = (),
        covariates: Names = (),
        static: Names = (),
    ):
        self.settings, self.alias = forecaster, alias
        self.id_col, self.time_col, self.target_col = id_col, time_col, target_col
        self.known, self.covariates, self.static = map(names_of, (known, covariates, static))
        self._forecaster: Forecaster | None = None
        self._rows = pd.DataFrame()

    def fit(self, df: Data) -> "NixtlaForecaster":
        """Train on all series.

        Args:
            df: a long frame, in any order.

        Raises:
            InputError: the frame lacks a column, or cannot be used.
        """
        rows = self._read(df, self.target_col)
        self._forecaster, self._rows = self._trained(rows, self.settings.horizon), rows
        return self

    @property
    def forecaster(self) -> Forecaster:
        """The trained forecaster.

        Raises:
            InputError: nothing is trained yet.
        """
        if self._forecaster is None:
            raise InputError("the forecaster is not fitted yet; call fit first")
        return self._forecaster

    def predict(
        self, h: int | None = None, X_df: Data | None = None, level: Sequence[float] | None = None
    ) -> pd.DataFrame:
        """Forecast after the last row of each series of `fit`.

        Args:
            h: number of steps; None takes the horizon of the forecaster. See `Forecaster.predict`
                for more steps than that.
            X_df: for `known` columns: a long frame with them for the horizon of the forecaster, or
                the multiple of it that has h steps.
            level: widths of bands in percent.

        Returns:
            Id, time, `alias`, and `alias-lo-80` and `alias-hi-80` for a level of 80.

        Raises:
            InputError: h, a level or X_df cannot be used.
        """
        if h is not None:
            expect_whole("h", h)
        return self._forecast(self.forecaster, self._rows, X_df, level, h)

    def cross_validation(
        self,
        df: Data,
        h: int,
        n_windows: int = 1,
        step_size: int = 1,
        level: Sequence[float] | None = None,
        refit: bool | int = False,
    ) -> pd.DataFrame:
        """Forecast from the last `n_windows` origins of each series, each from the rows before it.

        Args:
            df: a long frame.
            h: number of steps of each forecast, for which the forecaster is trained.
            n_windows: number of origins. step_size: rows between them.
            level: widths of bands in percent.
            refit: train before every origin; a number n before every n-th. False trains once,
                before the first.

        Returns:
            Id, time, cutoff (the last time that was read), true value, and the columns of
            `predict`. Rows that the frame lacks are left out.

        Raises:
            InputError: an argument or the frame cannot be used.
        """
        for name, value in (("h", h), ("n_windows", n_windows), ("step_size", step_size)):
            expect_whole(name, value)
        expect_whole("refit", int(refit), 0)
        self._quantiles(level)
        rows, keys = self._read(df, self.target_col), [self.id_col, self.time_col]
        found, forecaster = [], None
        for i, (past, future) in enumerate(self._windows(rows, h, n_windows, step_size)):
            if forecaster is None or (refit and i % int(refit) == 0):
                forecaster = self._trained(past, h)
            given = future[[*keys, *self.known]] if self.known else None
            forecast = self._forecast(forecaster, past, given, level)
            truth = future[[*keys, self.target_col]].assign(
                cutoff=future[self.id_col].map(past.groupby(self.id_col)[self.time_col].max())
            )
            columns = [*keys, "cutoff", self.target_col]
            found.append(truth[columns].merge(forecast, on=keys))
        order = [self.id_col, "cutoff", self.time_col]
        return pd.concat(found).sort_values(order, ignore_index=True)

    def _windows(
        self, rows: pd.DataFrame, h: int, n_windows: int, step_size: int
    ) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        """The rows before each origin, and the h after it.

        Raises:
            InputError: no series is long enough.
        """
        left = rows.groupby(self.id_col, sort=False).cumcount(ascending=False)  # rows after it
        need = h + (n_windows - 1) * step_size
        if left.max() < need:
            raise InputError(
                f"{n_windows} windows of {h} rows, {step_size} apart, need more than {need} rows "
                f"of a series; the longest one has {left.max() + 1}"
            )
        for after in range(need, h - 1, -step_size):
            yield rows[left >= after], rows[(left < after) & (left >= after - h)]

    def _trained(self, rows: pd.DataFrame, horizon: int) -> Forecaster:
        new = copy.copy(self.settings)
        new.horizon = horizon
        return new.fit(
            rows,
            self.target_col,
            id=self.id_col,
            time=self.time_col,
            known=self.known,
            covariates=self.covariates,
            static=self.static,
        )

    def _forecast(
        self,
        forecaster: Forecaster,
        rows: pd.DataFrame,
        ahead: Data | None,
        level: Any,
        h: int | None = None,
    ) -> pd.DataFrame:
        """The forecast with the columns of `predict`."""
        quantiles = self._quantiles(level)
        if ahead is not None:
            rows = pd.concat([rows, self._read(ahead, *self.known)], ignore_index=True)
        found = forecaster.predict(rows, horizon=h)
        names = {self.target_col: self.alias}
        names |= {f"{self.target_col}_q{q:g}": f"{self.alias}-{end}" for end, q in quantiles}
        columns = [self.id_col, self.time_col, *names]
        return found[columns].rename(columns=names)

    def _quantiles(self, level: Sequence[float] | None) -> list[tuple[str, float]]:
        """The end of the name of each column of a band, and its quantile.

        Raises:
            InputError: the forecaster has no such quantile.
        """
        have, found = self.settings.quantiles, []
        for one in [] if level is None else np.atleast_1d(level).tolist():
            for side, wanted in (("lo", 50 - one / 2), ("hi", 50 + one / 2)):
                near_by = [q for q in have if abs(100 * q - wanted) < 1e-6]
                if not near_by:
                    raise InputError(
                        f"a level of {one:g} needs the quantiles {50 - one / 2:g} % and "
                        f"{50 + one / 2:g} %; give Forecaster(quantiles=...) with them, it has "
                        f"{', '.join(f'{q:g}' for q in have) or 'none'}"
                    )
                found.append((f"{side}-{one:g}", near_by[0]))
        return found

    def _read(self, df: Data, *needed: str) -> pd.DataFrame:
        """A long frame, the rows of each series ordered by time.

        Raises:
            InputError: a column is missing, or there are no rows.
        """
        frame = as_frame(df)
        if frame.index.name in (self.id_col, self.time_col):
            frame = frame.reset_index()
        for name in (self.id_col, self.time_col, *needed):
            if name not in frame.columns:
                raise InputError(f"the frame has no column {name!r}; {near(name, frame.columns)}")
        if not len(frame):
            raise InputError("the frame has no rows")
        return frame.sort_values([self.id_col, self.time_col], ignore_index=True)
