"""The forecaster as an estimator of sktime.

The columns of X are taken as known in advance, and one model forecasts all columns of y. In panels
and hierarchies sktime trains one model for each series.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.train import Forecaster, Size, Training

try:
    from sktime.forecasting.base import BaseForecaster
except ImportError as e:
    raise ImportError("SktimeForecaster needs sktime: pip install 'longstate[sktime]'") from e


class SktimeForecaster(BaseForecaster):
    """`longstate.Forecaster` with the interface of sktime.

        SktimeForecaster().fit(y, fh=[1, 2, 3]).predict()

    The last step of `fh` is the trained horizon. `update` trains again with `update_params=True`;
    without, the next forecast follows the new rows, and nothing is fitted.

    Args:
        window, layers, season, size, training, seed: as `Forecaster` takes them; None for size and
            training takes theirs.
        quantiles: levels that are trained, at least two. Levels between them are interpolated,
            linear in the quantile of a standard normal distribution; levels beyond are refused.

    Examples:
        >>> from longstate.adapters import SktimeForecaster
        >>> SktimeForecaster().fit(y, fh=[1, 2, 3]).predict_interval()  # doctest: +SKIP
    """

    _tags = {  # noqa: RUF012
        "authors": "The longstate authors",
        "capability:exogenous": True,
        "capability:insample": False,
        "capability:missing_values": True,
        "capability:multivariate": True,
        "capability:non_contiguous_X": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:update": True,
        "requires-fh-in-fit": True,
        "y_inner_mtype": "pd.DataFrame",
        "X_inner_mtype": "pd.DataFrame",
    }
    _config = {"remember_data": False}  # noqa: RUF012
    _y = _X = None  # as long as nobody sets `remember_data`; what is needed is in `_rows`

    def __init__(
        self,
        window: int | None = None,
        layers: str | Sequence[str] = "s4d",
        quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
        season: int | None = None,
        size: Size | None = None,
        training: Training | None = None,
        seed: int = 0,
    ):
        self.window, self.layers, self.quantiles = window, layers, quantiles
        self.season, self.size, self.training, self.seed = season, size, training, seed
        super().__init__()

    def _fit(self, y: pd.DataFrame, X: pd.DataFrame | None, fh: Any) -> "SktimeForecaster":
        if len(self.quantiles) < 2:
            raise InputError(f"quantiles must be two levels or more; got {list(self.quantiles)}")
        columns = [*y.columns, *([] if X is None else X.columns)]
        *names, self._time = _distinct([*columns, "time"])
        self._targets, self._known = names[: y.shape[1]], names[y.shape[1] :]
        self._columns = y.columns
        self._horizon = int(max(fh.to_relative(self.cutoff)))
        self._rows = self._joined(y, X)
        self._train()
        return self

    def _train(self) -> None:
        forecaster = Forecaster(
            self._horizon,
            window=self.window,
            layers=self.layers,
            quantiles=self.quantiles,
            season=self.season,
            size=self.size or Size(),
            training=self.training or Training(),
            seed=self.seed,
        )
        frame = self._frame(self._rows)
        time = self._time if self._time in frame else None
        self.forecaster_ = forecaster.fit(frame, self._targets, known=self._known, time=time)

    def _update(
        self, y: pd.DataFrame, X: pd.DataFrame | None = None, update_params: bool = True
    ) -> "SktimeForecaster":
        self._rows = _followed(self._rows, self._joined(y, X))
        if update_params:
            self._train()
        return self

    def _predict(self, fh: Any, X: pd.DataFrame | None) -> pd.DataFrame:
        found, steps = self._ahead(fh, X)
        values = found[self._targets].to_numpy()[steps]
        return pd.DataFrame(values, fh.to_absolute_index(self.cutoff), self._columns)

    def _predict_quantiles(
        self, fh: Any, X: pd.DataFrame | None, alpha: Sequence[float]
    ) -> pd.DataFrame:
        found, steps = self._ahead(fh, X)
        levels = self.forecaster_.quantiles
        between = _between(levels, alpha)
        values = [
            found[[f"{name}_q{level:g}" for level in levels]].to_numpy()[steps] @ between
            for name in self._targets
        ]
        columns = pd.MultiIndex.from_product([self._get_varnames(), alpha])
        return pd.DataFrame(np.hstack(values), fh.to_absolute_index(self.cutoff), columns)

    def _ahead(self, fh: Any, X: pd.DataFrame | None) -> tuple[pd.DataFrame, np.ndarray]:
        """The forecast after the last row with a target, and the rows of it that `fh` asks for."""
        steps = np.asarray(fh.to_relative(self.cutoff)).astype(int) - 1
        rows = self._rows
        gap = len(rows) - 1 - int(np.flatnonzero(rows[self._targets].notna().any(axis=1))[-1])
        if X is not None:
            ahead = X.set_axis(self._known, axis=1)
            rows = _followed(rows, ahead[ahead.index > rows.index[-1]])
        horizon = self._horizon + gap if gap else None
        return self.forecaster_.predict(self._frame(rows), horizon=horizon), steps + gap

    def _joined(self, y: pd.DataFrame, X: pd.DataFrame | None) -> pd.DataFrame:
        """y and X with the names of `fit`."""
        parts = [y.set_axis(self._targets, axis=1)]
        if X is not None:
            parts.append(X.set_axis(self._known, axis=1).reindex(y.index))
        return pd.concat(parts, axis=1)

    def _frame(self, rows: pd.DataFrame) -> pd.DataFrame:
        """With the times as a column. An index of numbers counts rows."""
        if isinstance(rows.index, pd.DatetimeIndex | pd.PeriodIndex):
            return rows.rename_axis(self._time).reset_index()
        return rows.reset_index(drop=True)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Settings for the checks of sktime: small models, which forecast badly."""
        quick = {
            "size": Size(d_model=4, n_layers=1, d_state=4),
            "training": Training(epochs=1, windows_per_epoch=8),
        }
        return [quick, {**quick, "window": 3, "quantiles": (0.02, 0.5, 0.98)}]


def _distinct(columns: Sequence[Any]) -> list[str]:
    """Names of columns as texts that differ."""
    found: list[str] = []
    for name in map(str, columns):
        while name in found:
            name += "_"
        found.append(name)
    return found


def _followed(rows: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """The rows, and those of `new`, which replace them at the same times."""
    return pd.concat([rows[~rows.index.isin(new.index)], new])


def _between(levels: Sequence[float], wanted: Sequence[float]) -> np.ndarray:
    """(levels, wanted): the weights of the trained quantiles in each wanted one.

    Raises:
        InputError: a wanted level is not between the trained ones.
    """
    least, most = levels[0], levels[-1]
    outside = [x for x in wanted if not least - 1e-9 <= x <= most + 1e-9]
    if outside:
        raise InputError(
            f"the level {outside[0]:g} is beyond the trained ones, from {least:g} to {most:g}; "
            "train with wider quantiles, such as quantiles=(0.01, 0.25, 0.5, 0.75, 0.99)"
        )
    place = NormalDist().inv_cdf
    at, have = [place(min(max(x, least), most)) for x in wanted], [place(x) for x in levels]
    return np.array([np.interp(at, have, unit) for unit in np.eye(len(levels))])
