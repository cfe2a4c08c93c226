"""Panels in use: other origins and horizons, new rows, backtests. What one series can do, each
series of a panel can."""

import numpy as np
import pandas as pd
import pytest
import torch

from longstate import Forecaster
from longstate.errors import InputError
from tests.train.helpers import QUICK, TINY, months

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LATE = pd.Timestamp("2020-12-01")


def fit(frame, **columns):
    made = Forecaster(4, window=12, size=TINY, training=QUICK)
    return made.fit(frame, "y", **{"id": "unique_id", **columns})


def equal(a, b):
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def close(a, b):
    pd.testing.assert_frame_equal(a, b, rtol=1e-4)


def with_columns(frame):
    """A covariate x; z and a text that are known in advance, for six more months."""
    ahead = [
        one[["unique_id", "kind"]].tail(1).merge(
            pd.DataFrame({"ds": pd.date_range(one["ds"].max(), periods=7, freq="MS")[1:]}), "cross"
        )
        for _, one in frame.groupby("unique_id")
    ]  # fmt: skip
    whole = pd.concat([frame, *ahead], ignore_index=True)
    draw = np.random.default_rng(1)
    events = np.array(["fair", "flood"])[draw.integers(0, 2, len(whole))]
    x, z = draw.standard_normal((2, len(whole)))
    return whole.assign(z=z, event=events, x=np.where(whole["y"].isna(), np.nan, x))


@pytest.fixture(scope="module")
def frame():
    return months()


@pytest.fixture(scope="module")
def plain(frame):
    return fit(frame)


@pytest.fixture(scope="module")
def full(frame):
    return with_columns(frame)


@pytest.fixture(scope="module")
def known(full):
    made = fit(full, covariates="x", known=("z", "event"), static="kind")
    torch.manual_seed(0)
    for weight in (*made.model.embed.parameters(), made.model.head.weight):
        weight.data.normal_()  # so that each of these is seen in a forecast
    made.model.choice.weight.copy_(torch.tensor(made.model.choice.available) / 6)
    return made


def hidden(frame, after):
    later = frame["ds"] > after
    return frame.assign(**{name: frame[name].mask(later) for name in ("y", "x")})


def test_an_origin_is_the_data_up_to_it(plain, known, frame, full):
    found = plain.predict(frame, origin=LATE)
    equal(found, plain.predict(frame[frame["ds"] <= LATE]))
    assert (found["ds"].groupby(found["unique_id"]).min() == LATE + pd.DateOffset(months=1)).all()
    equal(known.predict(full, origin="2020-12-01"), known.predict(hidden(full, LATE)))
    unknown = full.assign(x=full["x"].mask((full["unique_id"] == "s2") & (full["ds"] <= LATE)))
    equal(known.predict(unknown, origin=LATE), known.predict(hidden(unknown, LATE)))
    between = plain.predict(frame, origin="2020-12-20")
    equal(between, found)
    assert "begins after 2020-12-01, the last row" in between.attrs["notes"][1]
    assert any("fitted to rows after" in note for note in found.attrs["notes"])


def test_series_that_end_or_begin_elsewhere_are_named(plain, frame):
    ends = frame[(frame["unique_id"] != "s1") | (frame["ds"] <= "2020-06-01")]
    found = plain.predict(ends, origin="2020-09-01")
    assert any(
        "1 series ('s1') have no value at 2020-09-01; their forecasts begin after" in note
        for note in found.attrs["notes"]
    )
    assert found["ds"][found["unique_id"] == "s1"].min() == pd.Timestamp("2020-07-01")
    early = plain.predict(frame, origin="2018-01-01")
    assert "1 series ('s2') begin after the origin; they are not forecast." in early.attrs["notes"]
    assert "s2" not in set(early["unique_id"])


def test_an_origin_without_times_is_a_row_of_each_series(frame):
    bare = frame.drop(columns="ds")
    made = fit(bare)
    found = made.predict(bare, origin=40)
    equal(found, made.predict(bare.groupby("unique_id").head(41)))
    assert found["row"][found["unique_id"] == "s0"].tolist() == [41, 42, 43, 44]
    assert found["row"][found["unique_id"] == "s2"].tolist() == [30, 31, 32, 33]
    counted = frame.assign(ds=frame.groupby("unique_id").cumcount())
    numbers = fit(counted).predict(counted, origin=40)  # in a panel an integer is a time
    assert numbers["ds"][:4].tolist() == [41, 42, 43, 44]


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ("soon", "the origin 'soon' is no time"),
        ("2010-01-01", "lies before the first row, 2015-01-01"),
        ("2030-01-01", "lies after the last row, 2021-08-01"),
        (5, "the origin '5' is no time"),
        ("2015-01-01", "no series can be forecast: 2 series.*have fewer than 2 values"),
    ],
)
def test_wrong_origins_are_refused(plain, frame, origin, message):
    with pytest.raises(InputError, match=message):
        plain.predict(frame, origin=origin)


def test_a_longer_horizon_reads_the_forecast(known, full):
    """The second part is the forecast from a table in which the first came true."""
    data = hidden(full, pd.Timestamp("2020-12-01"))
    whole = known.predict(data, horizon=7)
    first = known.predict(data)
    assert whole.groupby("unique_id").size().tolist() == [7] * 6
    equal(whole.groupby("unique_id", sort=False).head(4).reset_index(drop=True), first)
    came = first.set_index(["unique_id", "ds"])["y"]
    keys = pd.MultiIndex.from_frame(data[["unique_id", "ds"]])
    later = pd.Series(came.reindex(keys).to_numpy(), data.index)
    grown = data.assign(y=data["y"].fillna(later))
    held = grown.sort_values("ds").groupby("unique_id")[["x"]].ffill()
    grown = grown.assign(x=held["x"].where(grown["y"].notna()))
    second = known.predict(grown)
    tail = whole.groupby("unique_id", sort=False).tail(3).reset_index(drop=True)
    part = second.groupby("unique_id", sort=False).head(3).reset_index(drop=True)
    close(tail[["unique_id", "ds", "y"]], part[["unique_id", "ds", "y"]])
    own = part["y_q0.9"][0] - part["y"][0]
    end = first["y_q0.9"][3] - first["y"][3]
    wide = own * abs(own) + end * abs(end)
    found = tail["y_q0.9"][0] - tail["y"][0]
    assert np.isclose(found, np.sign(wide) * np.sqrt(abs(wide)), rtol=1e-3)
    assert any("not calibrated" in note for note in whole.attrs["notes"])
    given = full.assign(y=data["y"])  # x of the future is not read
    equal(known.predict(given, horizon=7), whole)
    shorter = known.predict(data, horizon=2)
    equal(shorter, first.groupby("unique_id", sort=False).head(2).reset_index(drop=True))


def test_a_longer_horizon_needs_more_of_the_future(known, full):
    with pytest.raises(InputError, match="lack the 8 rows of the future"):
        known.predict(full, horizon=5)
    some = full[(full["unique_id"] != "s3") | full["y"].notna()]
    found = known.predict(some)
    assert set(found["unique_id"]) == {"s0", "s1", "s2", "s4", "s5"}


def test_a_short_series_rolls_on_too(plain, frame):
    short = pd.concat([frame[frame["unique_id"] == "s0"], frame[frame["unique_id"] == "s1"][-3:]])
    found = plain.predict(short, horizon=30)
    assert found.groupby("unique_id").size().tolist() == [30, 30]
    assert found.notna().all().all()


def test_updates_are_the_whole_data(known, full):
    """Rows of some series, of all, in any order; with known columns of the future, and a covariate
    whose last value is older than the window."""
    old = (full["unique_id"] == "s1") & (full["ds"] > "2019-06-01")
    full = full.assign(x=full["x"].mask(old))
    made = fit(full[full["ds"] <= LATE], covariates="x", known=("z", "event"), static="kind")
    made._model = known.model
    seen = full["ds"].between("2021-01-01", "2021-03-01")
    few = full["unique_id"].isin(["s1", "s4"])
    made.update(full[seen & few].sample(frac=1, random_state=0))
    made.update(full[~few & (full["ds"] > LATE)].drop(columns="kind").assign(kind=None))
    made.update(full[few & (full["ds"] > "2021-03-01")])
    equal(made.predict(), known.predict(full))
    kept = made._recent.past.groupby("unique_id").size()
    assert (kept.drop("s1") == 12).all()
    assert kept["s1"] == 27  # from the value of x on


def test_an_update_of_some_series_leaves_the_others(plain, frame):
    made = fit(frame[frame["ds"] <= LATE])
    made._model = plain.model
    made.update(frame[(frame["ds"] > LATE) & (frame["unique_id"] == "s3")])
    expected = plain.predict(frame[(frame["ds"] <= LATE) | (frame["unique_id"] == "s3")])
    equal(made.predict(), expected)
    new = frame[frame["unique_id"] == "s1"].assign(unique_id="new")
    made.update(new)
    assert "new" in set(made.predict()["unique_id"])
    equal(made.predict(horizon=6).head(4), made.predict().head(4))


def test_rows_without_times_are_counted(frame):
    bare = frame[["unique_id", "y"]]
    number = bare.groupby("unique_id").cumcount()
    made = fit(bare[number < 40])
    for i in range(40, 80, 8):
        made.update(bare[(number >= i) & (number < i + 8)])
    equal(made.predict(), made.predict(bare))
    assert made.predict()["row"][:4].tolist() == [80, 81, 82, 83]


def test_a_wide_frame_is_updated_with_wide_rows(frame):
    wide = frame.pivot(index="ds", columns="unique_id", values="y").reset_index()
    names = [f"s{i}" for i in range(6)]
    made = Forecaster(4, window=12, size=TINY, training=QUICK).fit(wide[:72], names, wide=True)
    made.update(wide[72:])
    equal(made.predict(), made.predict(wide))


def test_wrong_updates_change_nothing(plain, frame, tmp_path):
    plain.update(frame[:0])
    before = plain.predict()
    last = frame.groupby("unique_id").tail(1)
    later = last.assign(ds=last["ds"] + pd.DateOffset(months=1))
    for rows, message in (
        (frame[70:71], "series 's0' has a new row at 2020-11-01.*come after its last one, at 2021"),
        (last, r"series 's0' has two rows at 2021-08-01.*\(of the rows that are kept"),
        (later.drop(columns="y"), "the rows have no column 'y'"),
        (later.assign(y="oops"), "a number was expected"),
        (later.assign(unique_id=None), "names no series"),
        (later.assign(ds="never"), "'ds' holds 'never'"),
        (later.assign(ds=later["ds"] + pd.Timedelta("9D")), "beside the step of the panel"),
    ):
        with pytest.raises(InputError, match=message):
            plain.update(rows)
    equal(plain.predict(), before)
    plain.save(tmp_path / "m.safetensors")
    loaded = Forecaster.load(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="there are no rows to forecast from"):
        loaded.predict()
    equal(loaded.update(frame).predict(), before)


def test_a_panel_of_one_is_the_single_series(frame):
    one = frame[frame["unique_id"] == "s0"][["unique_id", "ds", "y"]]
    panel, single = fit(one), fit(one[["ds", "y"]], id=None)

    def same(use):
        found, expected = use(panel, one), use(single, one[["ds", "y"]])
        close(found.drop(columns="unique_id"), expected)

    same(lambda model, data: model.predict(data, horizon=9))
    same(lambda model, data: model.predict(data, origin="2020-05-01", horizon=2))
    for refit in (False, True):
        same(lambda model, data, again=refit: model.backtest(data, refit=again).forecasts)
