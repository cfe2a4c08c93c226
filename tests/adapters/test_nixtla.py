"""The calls and columns of Nixtla's libraries."""

import numpy as np
import pandas as pd
import pytest

from longstate.adapters import NixtlaForecaster
from longstate.errors import InputError
from longstate.train import Forecaster
from tests.train.helpers import QUICK, TINY

KEYS = ["unique_id", "ds"]


def daily(rows=90):
    """Two series of different lengths with a weekly cycle, and a column that is known ahead."""
    draw = np.random.default_rng(0)
    parts = []
    for k, n in enumerate((rows, rows - 20)):
        times = pd.date_range("2024-01-01", periods=rows, freq="D")[rows - n :]
        promo = draw.integers(0, 2, n)
        y = 10 * k + np.sin(2 * np.pi * times.dayofweek / 7) + 3 * promo
        parts.append(pd.DataFrame({"unique_id": f"s{k}", "ds": times, "y": y, "promo": promo}))
    return pd.concat(parts, ignore_index=True)


def settings(horizon=5, **options):
    return Forecaster(horizon, **{"window": 14, "size": TINY, "training": QUICK, **options})


@pytest.fixture(scope="module")
def fitted():
    return NixtlaForecaster(settings(), alias="mine").fit(daily().sample(frac=1, random_state=0))


def test_columns_are_those_of_statsforecast(fitted):
    found = fitted.predict(h=3, level=[80])
    assert list(found.columns) == [*KEYS, "mine", "mine-lo-80", "mine-hi-80"]
    assert list(fitted.predict().columns) == [*KEYS, "mine"]
    assert len(fitted.predict()) == 2 * 5
    for _, one in found.groupby("unique_id"):
        assert list(one["ds"]) == list(pd.date_range("2024-03-31", periods=3))
        assert (one["mine-lo-80"] <= one["mine-hi-80"]).all()


@pytest.mark.filterwarnings("ignore:Bands after row 5")
def test_more_steps_than_the_horizon_roll_on(fitted):
    with pytest.warns(UserWarning, match="trained for 5 rows; each later part of the 12"):
        found = fitted.predict(h=12)
    assert len(found) == 2 * 12
    first = found.groupby("unique_id").head(5).reset_index(drop=True)
    assert first.equals(fitted.predict())


def test_the_forecast_is_that_of_the_forecaster(fitted):
    own = fitted.forecaster.predict(daily())
    found = fitted.predict(level=80)
    assert found["mine"].equals(own["y"])
    assert found["mine-lo-80"].equals(own["y_q0.1"])
    assert found["mine-hi-80"].equals(own["y_q0.9"])


def test_cross_validation_reads_what_is_before_the_cutoff():
    frame, model = daily(), NixtlaForecaster(settings())
    found = model.cross_validation(frame, h=4, n_windows=3, step_size=2, level=[80])
    assert list(found.columns) == [
        *KEYS, "cutoff", "y", "longstate", "longstate-lo-80", "longstate-hi-80"
    ]  # fmt: skip
    assert len(found) == 2 * 3 * 4
    last = frame["ds"].max()
    for name, one in found.groupby("unique_id"):
        cutoffs = [last - pd.Timedelta(days=d) for d in (8, 6, 4)]
        assert list(one["cutoff"].unique()) == cutoffs
        ahead = (one["ds"] - one["cutoff"]).dt.days
        assert list(ahead) == [1, 2, 3, 4] * 3
        truth = frame[frame["unique_id"] == name].set_index("ds")["y"]
        assert list(one["y"]) == list(truth[one["ds"]])
    later = frame.assign(y=frame["y"].where(frame["ds"] <= cutoffs[0], 0.5))
    first = model.cross_validation(later, h=4, n_windows=3, step_size=2)
    same = first["cutoff"] == cutoffs[0]
    assert first["longstate"][same].equals(found["longstate"][same])
    assert not first["longstate"].equals(found["longstate"])
    assert model.settings.horizon == 5
    with pytest.raises(InputError, match="call fit first"):
        model.predict()


def test_refit_trains_before_every_origin(monkeypatch):
    model, rows = NixtlaForecaster(settings()), []
    train = model._trained
    monkeypatch.setattr(model, "_trained", lambda r, h: rows.append(len(r)) or train(r, h))
    frame = daily()
    for refit, trained in ((False, [144]), (True, [144, 148, 152]), (2, [144, 152])):
        rows.clear()
        model.cross_validation(frame, h=4, n_windows=3, step_size=2, refit=refit)
        assert rows == trained


def test_known_columns_come_from_the_future():
    frame = daily()
    model = NixtlaForecaster(settings(), known="promo", static="kind")
    frame["kind"] = frame["unique_id"].str.upper()
    found = model.cross_validation(frame, h=5, n_windows=1)
    assert (found["longstate"] - found["y"]).abs().mean() < 1
    model.fit(frame)
    ahead = pd.date_range("2024-03-31", periods=5)
    future = pd.concat(pd.DataFrame({"unique_id": u, "ds": ahead}) for u in ("s0", "s1"))
    high, low = (model.predict(X_df=future.assign(promo=x))["longstate"] for x in (1, 0))
    assert (high - low).mean() > 1
    with pytest.raises(InputError, match="has no column 'promo'"):
        model.predict(X_df=future)


def test_other_names():
    frame = daily().rename(columns={"unique_id": "shop", "ds": "day", "y": "sold"})
    names = {"id_col": "shop", "time_col": "day", "target_col": "sold"}
    found = NixtlaForecaster(settings(), **names).fit(frame).predict(2)
    assert list(found.columns) == ["shop", "day", "longstate"]


def test_numbers_as_times():
    frame = daily()
    frame["ds"] = (frame["ds"] - frame["ds"].min()).dt.days + 1
    found = NixtlaForecaster(settings()).fit(frame).predict(2)
    assert list(found["ds"]) == [91, 92] * 2


def test_what_cannot_be_used_is_one_sentence(fitted):
    for call, message in (
        (lambda: fitted.predict(0), "h must be"),
        (lambda: fitted.predict(3, level=[90]), "needs the quantiles 5 % and 95 %"),
        (lambda: fitted.fit(daily().drop(columns="ds")), "has no column 'ds'"),
        (lambda: fitted.fit(daily()[:0]), "has no rows"),
        (lambda: fitted.cross_validation(daily(), 4, level=[70]), "needs the quantiles 15 %"),
        (lambda: fitted.cross_validation(daily(), 4, n_windows=0), "n_windows must be"),
        (lambda: fitted.cross_validation(daily(), 50, 3, 50), "longest one has 90"),
    ):
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.filterwarnings("ignore")  # of other libraries
def test_evaluated_by_utilsforecast_beside_statsforecast():
    losses = pytest.importorskip("utilsforecast.losses")
    models = pytest.importorskip("statsforecast.models")
    from statsforecast import StatsForecast
    from utilsforecast.evaluation import evaluate

    frame = daily().drop(columns="promo")
    how = {"df": frame, "h": 4, "n_windows": 2, "step_size": 4, "level": [80]}
    found = NixtlaForecaster(settings()).cross_validation(**how)
    naive = models.SeasonalNaive(7, alias="naive")
    theirs = StatsForecast(models=[naive], freq="D").cross_validation(**how)
    assert list(found.columns) == [x.replace("naive", "longstate") for x in theirs.columns]
    keys = [*KEYS, "cutoff", "y"]
    assert found[keys].astype(str).equals(theirs[keys].astype(str))
    both = theirs.merge(found.drop(columns="y"), on=[*KEYS, "cutoff"]).drop(columns="cutoff")
    scores = evaluate(both, [losses.mae, losses.coverage], level=[80])
    assert scores[["naive", "longstate"]].notna().all().all()
