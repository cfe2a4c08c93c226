"""What `forecast_peers.py` compares: each method forecasts a set from the same origins.

A method takes the series and a seed, and returns its forecasts (o, s, h) by name, and facts.

Axes: o origins, s series, t rows, h horizon, k known columns, f features.
"""

import time
import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from peer_sets import Series

from longstate import Forecaster
from longstate.train._prepare import window_of

PARTS = ("network", "ridge", "line", "map", "smoothing", "seasonal naive", "last value")
HISTORY = 500  # rows that AutoETS reads where a season has more than 12
ROUNDS, PATIENCE, FEWEST, MOST_ROWS = 1000, 30, 10, 40_000


class Found(NamedTuple):
    """Forecasts by name, and facts for the file of runs."""

    forecasts: dict[str, np.ndarray]
    facts: dict[str, Any]


def naive(series: Series, origins: np.ndarray, season: int) -> np.ndarray:
    """(o, s, h): the values a season before, repeated; a season of 1 is the last value."""
    steps = np.arange(series.horizon) % season - season
    return series.y[:, origins[:, None] + steps].transpose(1, 0, 2)


def simple(series: Series, seed: int) -> Found:
    return Found({"seasonal naive": naive(series, series.origins(), series.season)}, {})


class _Frames:
    """A set as the data frames that longstate reads."""

    def __init__(self, series: Series):
        self.series = series
        self.names = [] if series.known is None else [f"x{i}" for i in range(series.known.shape[2])]
        self.panel = len(series.y) > 1

    def rows(self, first: int, until: int, last: int) -> pd.DataFrame:
        """Rows `first` to `last`, without the target from `until` on."""
        s, found = self.series, []
        for i, y in enumerate(s.y):
            frame = pd.DataFrame({"y": y[first:last].copy()})
            frame.loc[until - first :, "y"] = np.nan
            if s.known is not None:
                frame[self.names] = s.known[i, first:last]
            if s.times is not None:
                frame.insert(0, "ds", s.times[first:last])
            if self.panel:
                frame.insert(0, "unique_id", f"s{i:04d}")
            found.append(frame)
        return pd.concat(found, ignore_index=True)

    def all(self) -> pd.DataFrame:
        rows = self.series.y.shape[1]
        return self.rows(0, rows, rows)


def longstate(series: Series, seed: int) -> Found:
    """The forecaster with its default settings, and its parts; nothing sees the test part."""
    frames = _Frames(series)
    whole, ids = frames.all(), {"id": "unique_id"} if frames.panel else {}
    roles = {"known": frames.names, **ids}
    if series.times is not None:
        roles["time"] = "ds"
    made = Forecaster(series.horizon, seed=seed).fit(whole, "y", refit=False, **roles)
    evaluation = made.evaluate(whole)
    scores = {s.method: [s.mse, s.mae] for s in evaluation.scores}
    _agree(series, evaluation.season, scores)
    origins, reach = series.origins(), 2 * made.model.spec.window + made.model.spec.season
    ahead = series.horizon if frames.names or (series.freq is None and ids == {}) else 0
    names = ["longstate", *(n for n in PARTS if n in scores)]
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for origin in origins:
        frame = frames.rows(max(0, origin - reach), origin, origin + ahead)
        for name in names:
            one = made.predict(frame, method=None if name == "longstate" else name)
            found[name].append(one["y"].to_numpy().reshape(-1, series.horizon))
    choice = {p.name: round(p.weight, 3) for p in made.choice.parts}
    facts = {"all": scores, "choice": choice, "window": made.model.spec.window}
    facts |= {"season": evaluation.season, "notes": list(evaluation.notes)}
    return Found({name: np.array(each) for name, each in found.items()}, facts)


def _agree(series: Series, season: int, scores: dict[str, list[float]]) -> None:
    """The two naive methods, computed here, have the errors that longstate reports."""
    origins = np.arange(series.ends[1], series.y.shape[1] - series.horizon + 1)
    for name, rows in (("last value", 1), ("seasonal naive", season)):
        here = errors(series, naive(series, origins, rows), origins)
        for mine, theirs in zip(here, scores[name], strict=True):
            assert np.isclose(mine.mean(), theirs, rtol=1e-4), (name, mine.mean(), theirs)


def errors(
    series: Series, forecasts: np.ndarray, origins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared and absolute errors (s) in units of the training part's standard deviation."""
    steps = np.arange(series.horizon)
    truth = series.y[:, origins[:, None] + steps].transpose(1, 0, 2)
    away = (forecasts - truth) / series.scale[:, None]
    assert np.isfinite(away).all()
    return (away**2).mean((0, 2)), np.abs(away).mean((0, 2))


def auto_ets(series: Series, seed: int) -> Found:
    from statsforecast.models import AutoETS

    season = series.season if series.season <= 24 else 1  # it has no longer ones
    return _refitted(series, lambda: AutoETS(season_length=season), "AutoETS")


def auto_arima(series: Series, seed: int) -> Found:
    from statsforecast.models import AutoARIMA

    return _refitted(series, lambda: AutoARIMA(season_length=series.season), "AutoARIMA")


def _refitted(series: Series, make: Any, name: str) -> Found:
    """Fitted again at each origin, to all rows before it, or the last `HISTORY`."""
    found = np.empty((len(series.origins()), len(series.y), series.horizon))
    for i, origin in enumerate(series.origins()):
        first = 0 if 1 < series.season <= 12 else max(0, origin - HISTORY)
        for j, y in enumerate(series.y):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[i, j] = make().forecast(y[first:origin], series.horizon)["mean"]
    return Found({name: found}, {})


class _Lags:
    """Features of one row: rows before it, calendar, known columns and the series.

    Args:
        difference: lag of the differences that are forecast; 0 for the values.
    """

    def __init__(self, series: Series, difference: int):
        s, self.series, self.difference = series, series, difference
        window = window_of(s.ends[0], s.horizon, s.season)
        lags = {*range(1, min(24, window) + 1), *(k * s.season for k in (1, 2, 7) if s.season > 1)}
        self.lags = sorted(lag for lag in lags if lag <= max(window, s.season))
        self.means = sorted({k for k in (7, s.season, 28) if 1 < k <= max(self.lags)})
        self.reach = max(self.lags) + difference
        self.z = (s.y - s.y[:, : s.ends[0]].mean(axis=1, keepdims=True)) / s.scale[:, None]
        self.calendar = np.empty((s.y.shape[1], 0))
        if s.times is not None:
            t = s.times
            self.calendar = np.stack([t.hour, t.dayofweek, t.dayofyear, t.month], axis=1)

    def at(self, past: np.ndarray, series: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(n, f) of the rows (n) of series (n), with `past` (n, reach) before them."""
        d = past
        if self.difference:
            d = past[:, self.difference :] - past[:, : -self.difference]
        parts = [d[:, [-lag for lag in self.lags]], self.calendar[rows]]
        parts += [d[:, -k:].mean(axis=1, keepdims=True) for k in self.means]
        if self.series.known is not None:
            parts.append(self.series.known[series, rows])
        if len(self.series.y) > 1:
            parts.append(series[:, None])
        return np.concatenate(parts, axis=1)

    def table(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and values of rows `first` to `last` of all series."""
        rows = np.arange(max(first, self.reach), last)
        kinds, at = (x.ravel() for x in np.meshgrid(range(len(self.z)), rows, indexing="ij"))
        if len(at) > MOST_ROWS:
            keep = np.random.default_rng(0).choice(len(at), MOST_ROWS, replace=False)
            kinds, at = kinds[keep], at[keep]
        past = self.z[kinds[:, None], at[:, None] + np.arange(-self.reach, 0)]
        before = past[:, -self.difference] if self.difference else 0
        return self.at(past, kinds, at), self.z[kinds, at] - before

    def forecasts(self, model: Any, origins: np.ndarray) -> np.ndarray:
        """(o, s, h), row by row, each from the forecasts before it; in scaled units."""
        s = self.series
        at, kinds = (x.ravel() for x in np.meshgrid(origins, range(len(s.y)), indexing="ij"))
        past = self.z[kinds[:, None], at[:, None] + np.arange(-self.reach, 0)]
        for step in range(s.horizon):
            new = model.predict(self.at(past[:, -self.reach :], kinds, at + step))
            if self.difference:
                new = new + past[:, -self.difference]
            past = np.concatenate([past, new[:, None]], axis=1)
        return past[:, -s.horizon :].reshape(len(origins), len(s.y), s.horizon)


def lightgbm(series: Series, seed: int) -> Found:
    """One model for the next row of all series, repeated; values, changes or seasonal changes,
    whichever forecast the validation part best."""
    import lightgbm as lgb

    train, seen = series.ends
    tried: list[tuple[float, int, _Lags, Any]] = []
    for difference in sorted({0, 1, series.season}):
        lags = _Lags(series, difference)
        if lags.reach + FEWEST > train:
            continue
        model = lgb.LGBMRegressor(
            n_estimators=ROUNDS, learning_rate=0.05, n_jobs=1, random_state=seed, verbose=-1,
            bagging_fraction=0.8, bagging_freq=1, feature_fraction=0.8,
        )  # fmt: skip
        stop = lgb.early_stopping(PATIENCE, verbose=False)
        model.fit(*lags.table(0, train), eval_set=[lags.table(train, seen)], callbacks=[stop])
        booster = model.booster_
        last = seen - series.horizon
        origins = np.unique(np.linspace(min(train, last), last, 20).round().astype(int))
        steps = np.arange(series.horizon)
        truth = lags.z[:, origins[:, None] + steps].transpose(1, 0, 2)
        error = float(((lags.forecasts(booster, origins) - truth) ** 2).mean())
        tried.append((error, difference, lags, booster))
    _, difference, lags, model = min(tried, key=lambda x: x[0])
    mean = series.y[:, :train].mean(axis=1)[:, None]
    found = lags.forecasts(model, series.origins()) * series.scale[:, None] + mean
    return Found({"LightGBM": found}, {"difference": difference, "trees": model.num_trees()})


def _best(seconds: float) -> Any:
    """A callback that ends with the weights of the least validation error: the last ones, which
    neuralforecast keeps, are those after its patience. It stops after so many seconds of the
    processor: the clock's would depend on what else runs."""
    import pytorch_lightning as pl

    class Best(pl.Callback):
        error, weights, until = float("inf"), None, time.process_time() + seconds

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.should_stop or time.process_time() > self.until

        def on_validation_end(self, trainer: Any, module: Any) -> None:
            error = float(trainer.callback_metrics.get("ptl/val_loss", float("inf")))
            if not trainer.sanity_checking and error < self.error:
                self.error = error
                self.weights = {k: v.clone() for k, v in module.state_dict().items()}

        def on_train_end(self, trainer: Any, module: Any) -> None:
            if self.weights is not None:
                module.load_state_dict(self.weights)

    return Best()


def neural(name: str, seconds: float, **more: Any) -> Any:
    """A model of neuralforecast as a method, trained for at most so many seconds of the processor.
    `more` are options of the model."""

    def method(series: Series, seed: int) -> Found:
        import logging

        import torch
        from neuralforecast import NeuralForecast, models

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        torch.set_num_threads(1)
        train, seen = series.ends
        count, rows = series.y.shape
        z = (series.y - series.y[:, :train].mean(axis=1, keepdims=True)) / series.scale[:, None]
        frame = pd.DataFrame({
            "unique_id": np.repeat([f"s{i:04d}" for i in range(count)], rows),
            "ds": np.tile(np.arange(rows), count),
            "y": z.ravel(),
        })  # fmt: skip
        names = [] if series.known is None else [f"x{i}" for i in range(series.known.shape[2])]
        if series.known is not None:
            flat = series.known.reshape(count * rows, -1)
            frame[names] = (flat - flat.mean(0)) / flat.std(0)
        options: dict[str, Any] = {"futr_exog_list": names} if names and name != "DLinear" else {}
        kind = name + "x" * (name == "TSMixer" and bool(names))
        options |= {"n_series": count} if name == "TSMixer" else {}
        options |= {"val_check_steps": 50, "early_stop_patience_steps": 10} | more
        model = getattr(models, kind)(
            h=series.horizon, input_size=window_of(train, series.horizon, series.season),
            max_steps=100_000, random_seed=seed, accelerator="cpu", callbacks=[_best(seconds)],
            enable_progress_bar=False, logger=False, enable_checkpointing=False,
            enable_model_summary=False, **options,
        )  # fmt: skip
        made = NeuralForecast([model], freq=1)
        found = made.cross_validation(
            frame, val_size=seen - train, test_size=rows - seen, n_windows=None, step_size=1
        )
        found = found.sort_values(["cutoff", "unique_id", "ds"])
        wanted = found[found["cutoff"].isin(series.origins() - 1)][kind].to_numpy()
        wanted = wanted.reshape(-1, count, series.horizon)
        mean = series.y[:, :train].mean(axis=1)[:, None]
        return Found({name: wanted * series.scale[:, None] + mean}, {"seconds": seconds})

    return method
