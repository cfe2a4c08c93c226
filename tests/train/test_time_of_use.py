"""Any origin, a longer horizon, and new rows."""

import numpy as np
import pandas as pd
import pytest

from longstate import Forecaster
from longstate.errors import InputError
from longstate.models._choice import PARTS
from tests.train.helpers import QUICK, TINY, hourly

pytestmark = pytest.mark.filterwarnings(
    "ignore:The :UserWarning", "ignore:Bands:UserWarning", "ignore:After:UserWarning"
)


def fit(frame, **columns):
    return Forecaster(4, window=30, size=TINY, training=QUICK).fit(frame, "y", **columns)


@pytest.fixture(scope="module")
def frame():
    return hourly()


@pytest.fixture(scope="module")
def plain(frame):
    return fit(frame, covariates="x")


@pytest.fixture(scope="module")
def known(frame):
    return fit(frame, covariates="x", known="z")


def hidden(frame, rows):
    frame = frame.copy()
    frame.loc[frame.index[-rows:], ["y", "x"]] = np.nan
    return frame


def equal(a, b):
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_an_origin_is_the_data_up_to_it(plain, known, frame):
    equal(plain.predict(frame, origin=frame["date"][200]), plain.predict(frame[:201]))
    equal(plain.predict(frame, origin=200), plain.predict(frame[:201]))
    expected = known.predict(hidden(frame[:220], 19))
    equal(known.predict(frame, origin=pd.Timestamp(frame["date"][200])), expected)
    between = plain.predict(frame, origin="2024-01-09 08:30")
    equal(between, plain.predict(frame[:201]))
    assert "begins after 2024-01-09 08:00:00" in between.attrs["notes"][0]
    assert any("fitted to rows after" in note for note in between.attrs["notes"])


def test_an_origin_without_times_is_a_row(frame):
    made = fit(frame.drop(columns="date"))
    equal(made.predict(frame, origin="200"), made.predict(frame[:201]))
    assert made.predict(frame, origin=200)["row"].tolist() == [201, 202, 203, 204]


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ("soon", "the origin 'soon' is no time"),
        ("2020-01-01", "lies before the first row, 2024-01-01 00:00:00"),
        ("2030-01-01", "lies after the last row, 2024-01-17 15:00:00"),
        (400, "from 0 to 399"),
        (True, "got 'True'"),
        (10, "needs the last 30 rows; the data has 11 up to 2024-01-01 10:00:00"),
    ],
)
def test_wrong_origins_are_refused(plain, frame, origin, message):
    with pytest.raises(InputError, match=message):
        plain.predict(frame, origin=origin)


def test_a_longer_horizon_reads_the_forecast(known, frame):
    """The second part is the forecast from a table in which the first came true."""
    data = hidden(frame, 12)
    whole = known.predict(data, horizon=7)
    first = known.predict(data)
    equal(whole[:4], first)
    grown = data.copy()
    grown.loc[388:391, "y"] = first["y"].to_numpy()
    grown["x"] = grown["x"].ffill()
    grown.loc[392:, "x"] = np.nan
    second = known.predict(grown)
    assert np.allclose(whole["y"][4:], second["y"][:3], rtol=1e-6)
    own = second["y_q0.9"][0] - second["y"][0]
    end = first["y_q0.9"][3] - first["y"][3]
    wide = whole["y_q0.9"][4] - whole["y"][4]
    assert np.isclose(wide, np.sqrt(own**2 + end**2), rtol=1e-4)
    assert any("not calibrated" in note for note in whole.attrs["notes"])
    equal(known.predict(data, horizon=2), first[:2])


def test_wrong_horizons_are_refused(known, frame):
    for horizon in (0, -1, 1.5, "a", 10**9):
        with pytest.raises(InputError, match="horizon must be a whole number"):
            known.predict(frame, horizon=horizon)
    with pytest.raises(InputError, match=r"needs 8 rows \(2 times the trained horizon\)"):
        known.predict(hidden(frame, 7), horizon=5)


def test_updates_are_the_whole_data(known, frame):
    made = fit(frame[:300], covariates="x", known="z")
    data = hidden(frame, 6)
    data.loc[[340, 341], "y"] = np.nan
    made.update(data[300:345])
    for i in range(345, 400, 11):
        made.update(data[i : i + 11])
    equal(made.predict(), made.predict(data))
    made.update(frame[394:395])  # the first row of the future has come
    later = hidden(frame, 5)
    later.loc[[340, 341], "y"] = np.nan
    equal(made.predict(), made.predict(later))
    assert len(made._recent.past) < 40


def test_a_missing_row_is_no_row_of_the_future(known, frame):
    """Rows of the future are those after the last row, however many have come."""
    made = fit(frame[:300], covariates="x", known="z")
    made.update(hidden(frame[300:380], 30))
    made.update(frame[351:360])  # without the row 350
    expected = hidden(frame[:380].drop(index=350), 20)
    equal(made.predict(), made.predict(expected))


def test_a_text_that_is_not_known_in_advance_needs_no_future(frame):
    words = np.array(["low", "high"])[(frame["x"] > 0).astype(int)]
    made = fit(frame.assign(x=words), covariates="x")
    assert made.model.spec.categories[0].role == "covariate"
    assert len(made.predict(frame.assign(x=words), horizon=6)) == 6
    known = fit(frame.assign(x=words), known="x")
    with pytest.raises(InputError, match="needs 4 rows after the last target with 'x' filled"):
        known.predict(frame.assign(x=words))
    data = frame.assign(x=words)
    found = known.predict(data, origin=300)
    equal(found, known.predict(data.assign(y=data["y"].where(data.index <= 300))))


def test_rows_without_times_are_counted(frame):
    y = frame["y"].to_numpy()
    made = Forecaster(4, window=30, size=TINY, training=QUICK).fit(y[:300])
    for value in y[300:]:
        made.update(np.array([value]))
    equal(made.predict(), made.predict(y))


def test_wrong_updates_change_nothing(plain, frame, tmp_path):
    plain.update(frame[:0])
    before = plain.predict()
    for rows, message in (
        (frame[100:101], "must go forward"),
        (frame[-1:].drop(columns="x"), "the rows have no column 'x'"),
        (frame[-1:].assign(y="oops"), "a number was expected"),
    ):
        with pytest.raises(InputError, match=message):
            plain.update(rows)
    equal(plain.predict(), before)
    plain.save(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="there are no rows to forecast from"):
        Forecaster.load(tmp_path / "m.safetensors").predict()
    with pytest.raises(InputError, match="call fit first"):
        Forecaster(4).update(frame)


def test_a_network_without_a_weight_is_not_run(frame, monkeypatch):
    made = fit(frame)
    choice = made.model.choice
    choice.weight.zero_()
    choice.weight[PARTS.index("line")] = 1.0
    expected = made.predict(frame)
    monkeypatch.setattr(made.model, "scaled", lambda *_: pytest.fail("the network ran"))
    equal(made.predict(frame), expected)
    with pytest.raises(pytest.fail.Exception):
        made.predict(frame, method="network")


def test_short_data_gets_parts_that_fit(frame):
    made = Forecaster(5, size=TINY, training=QUICK).fit(frame[:40], "y")
    assert np.allclose(np.array(made.facts["split"]) * 40, [27, 5, 8])
    assert any(note.startswith("The data is short") for note in made.facts["notes"])
    assert len(made.predict(frame[:40])) == 5
    with pytest.raises(InputError, match="needs 16 at least"):
        Forecaster(5).fit(frame[:15], "y")
