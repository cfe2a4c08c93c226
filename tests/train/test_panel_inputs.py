"""Panels from data of many forms, and the sentences about data that cannot be used."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from longstate import Forecaster
from longstate.errors import InputError
from longstate.train import Training
from longstate.train._columns import Columns
from longstate.train._panel_table import make_panel
from longstate.train._scaling import pairs
from longstate.train._windows import Windows
from tests.train.helpers import QUICK, TINY, months

LONG = Columns(("y",), time="ds", id="unique_id")


@pytest.fixture
def frame():
    return months()[["unique_id", "ds", "y"]]


def fit(frame, **options):
    made = Forecaster(4, window=12, size=TINY, training=QUICK)
    return made.fit(frame, **{"target": "y", "id": "unique_id", **options})


def series(name, times, frame):
    new = pd.DataFrame({"unique_id": name, "ds": times, "y": np.arange(float(len(times)))})
    return pd.concat([frame, new])


def twice(frame):
    return pd.concat([frame, frame[:2]])


def unnamed(frame):
    return frame.assign(unique_id=frame["unique_id"].mask(frame.index == 3))


def quarterly(frame):
    return series("w", pd.date_range("2015-01-01", periods=20, freq="QS"), frame)


def beside(frame):
    return series("w", pd.date_range("2015-01-15", periods=20, freq="30D"), frame)


def unread(frame):
    return frame.assign(ds=frame["ds"].astype(str).mask(frame.index == 7, "never"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (twice, "series 's0' has two rows at 2015-01-01.*keep one of them"),
        (unnamed, "column 'unique_id' names no series in line 5; every row needs one"),
        (quarterly, r"series 'w' has no two rows one step \(every month\) apart"),
        (beside, "series 'w' has a row at 2015-01-15.*beside the step of the panel"),
        (unread, "'ds' holds 'never' in line 9"),
        (lambda f: f.rename(columns={"unique_id": "a"}), "there is no column 'unique_id'"),
        (lambda f: f.assign(y=np.nan), "the column 'y' is empty"),
        (lambda f: f.assign(y=5.0), "'y' is constant over the training part"),
        (lambda f: f[:0], "the table has no rows"),
    ],
)
def test_data_that_cannot_be_used(change, sentence, frame):
    with pytest.raises(InputError, match=sentence):
        fit(change(frame))


def test_static_columns_have_one_value(frame):
    ambiguous = months()
    ambiguous.loc[5, "size"] = 7
    with pytest.raises(InputError, match="'size' changes within series 's0'"):
        fit(ambiguous, static="size")
    with pytest.raises(InputError, match="static columns are of the series of a panel"):
        fit(months().drop(columns="unique_id"), id=None, static="size")
    gaps = months()
    gaps.loc[5, "size"], gaps.loc[7, "kind"] = np.nan, None
    table = make_panel(gaps, Columns(("y",), time="ds", id="unique_id", static=("size",)))
    size = dict(zip(table.panel.names, table.static[table.panel.firsts, 0], strict=True))
    assert size == {f"s{i}": float(i) for i in range(6)}
    assert fit(gaps, static=("size", "kind")).predict(gaps)["y"].notna().all()


@pytest.mark.parametrize("kind", ["category", int, float])
def test_ids_keep_their_type(kind, frame):
    numbers = frame.assign(unique_id=frame["unique_id"].str[1:].astype(int))
    typed = numbers.assign(unique_id=numbers["unique_id"].astype(kind))
    forecast = fit(typed).predict(typed)
    assert forecast["unique_id"].dtype == typed["unique_id"].dtype
    plain = fit(numbers).predict(numbers)
    assert forecast["y"].tolist() == plain["y"].tolist()


def test_indexes_and_numbers_as_times(frame):
    plain = fit(frame).predict(frame)
    for index in ("ds", ["unique_id", "ds"]):
        moved = frame.set_index(index)
        assert fit(moved).predict(moved)["y"].tolist() == plain["y"].tolist()
    counted = frame.assign(ds=frame.groupby("unique_id").cumcount())
    model = fit(counted)
    forecast = model.predict(counted)
    assert forecast["ds"][:4].tolist() == [80, 81, 82, 83]
    bare = fit(frame.drop(columns="ds")).predict(frame.drop(columns="ds"))
    assert bare["row"][:4].tolist() == [80, 81, 82, 83]


def test_series_without_a_value_are_left_out(frame):
    empty = frame.assign(y=frame["y"].mask(frame["unique_id"] == "s2"))
    one = series("z", [frame["ds"].max()], empty)
    model = fit(one)
    assert "s2" not in model.model.spec.series
    assert any("1 series ('s2') have no value" in n for n in model.facts["notes"])
    with pytest.warns(UserWarning, match=r"\('z'\) have fewer than 2 values"):
        assert set(model.predict(one)["unique_id"]) == {"s0", "s1", "s3", "s4", "s5"}


def test_gaps_within_a_series_are_added():
    frame = months()[["unique_id", "ds", "y"]]
    holed = frame.drop(index=[10, 11, 100])
    table = make_panel(holed, LONG)
    assert (~table.observed).sum() == 3
    assert table.target[10, 0] == table.target[11, 0] == frame["y"][9]
    assert any("3 rows have a gap" in n for n in table.notes)


def test_times_of_working_days_and_zones():
    days = pd.bdate_range("2023-01-02", periods=120)
    draw = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"unique_id": n, "ds": days, "y": draw.standard_normal(120)}) for n in "ab"
    ]
    forecast = fit(pd.concat(parts)).predict(pd.concat(parts))
    assert list(forecast["ds"][:4]) == list(pd.bdate_range(days[-1], periods=5)[1:])
    zoned = pd.concat(parts).assign(ds=lambda d: d["ds"].dt.tz_localize("Europe/Berlin"))
    assert str(fit(zoned).predict(zoned)["ds"].dt.tz) == "Europe/Berlin"


def with_holidays(frame):
    """y is larger in the months of a holiday that is named, and known for the future."""
    ahead = [
        pd.DataFrame(
            {"unique_id": n, "ds": pd.date_range(one["ds"].max(), periods=5, freq="MS")[1:]}
        )
        for n, one in frame.groupby("unique_id")
    ]
    whole = pd.concat([frame, *ahead], ignore_index=True)
    draw = np.random.default_rng(1).integers(0, 3, len(whole))
    names = np.array([None, "fair", "flood"], dtype=object)[draw]
    y = np.array([0.0, 2.0, -2.0])[draw]
    return whole.assign(event=names, y=y + whole["y"] * 0)


def test_texts_that_are_known_in_advance_are_read(frame):
    data = with_holidays(frame)
    training = Training(epochs=30, learning_rate=2e-2, windows_per_epoch=512, batch_size=32)
    model = Forecaster(4, window=12, size=TINY, training=training, quantiles=())
    model.fit(data, "y", id="unique_id", known="event")
    evaluation = model.evaluate(data)
    assert evaluation.score("network").mse < 0.5 * evaluation.score("ridge").mse
    with pytest.raises(InputError, match="lack the 4 rows of the future"):
        model.predict(data[data["y"].notna()])
    other = data.assign(event=data["event"].mask(data["y"].isna(), "a new one"))
    none = data.assign(event=data["event"].mask(data["y"].isna()))
    forecasts = [model.predict(x, method="network")["y"].tolist() for x in (other, none, data)]
    assert forecasts[0] == forecasts[1]
    assert forecasts[0] != forecasts[2]


def test_a_single_series_may_have_texts(frame, tmp_path):
    data = with_holidays(frame)
    one = data[data["unique_id"] == "s0"].drop(columns="unique_id")
    model = fit(one, id=None, known="event")
    assert model.model.spec.categories[0].levels == ("fair", "flood")
    model.save(tmp_path / "m")
    forecast = model.predict(one)
    assert Forecaster.load(tmp_path / "m").predict(one).equals(forecast)
    assert len(forecast) == 4


def with_texts(model):
    """Weights that read texts; equal ones in all channels would be lost in the first norm."""
    draw = torch.Generator().manual_seed(0)
    model.model.embed[0].weight.data[1:].normal_(generator=draw)
    model.model.head.weight.data.normal_(generator=draw)


def test_texts_of_the_past_are_not_read_ahead(frame):
    """A covariate is unknown in the horizon: only its rows of the window count."""
    data = with_holidays(frame)
    past = data[data["y"].notna()]
    model = fit(past, covariates="event")
    with_texts(model)
    a = model.predict(past, method="network")["y"].tolist()
    assert model.predict(data, method="network")["y"].tolist() == a
    changed = past.assign(event="fair")
    assert model.predict(changed, method="network")["y"].tolist() != a


def test_texts_after_a_window_are_not_read_in_training(frame):
    past = with_holidays(frame).dropna(subset="y")
    model = fit(past, covariates="event")
    with_texts(model)
    table, at = model._table(past), np.array([40])
    found = []
    for rows in (slice(0), slice(40, None), slice(30, None)):
        codes = table.codes.copy()
        codes[rows] = 3 - codes[rows].clip(1)
        window = Windows(replace(table, codes=codes), model.model.spec).at(at).window
        found.append(model.model(window).point)
    assert_close(found[1], found[0], rtol=0, atol=0)
    assert (found[2] - found[0]).abs().min() > 1e-3


def test_a_row_before_is_of_the_same_series(frame):
    """Steps and seasons, which scale bands and scores, do not cross from one series to the next."""
    table = make_panel(frame, LONG)
    for lag in (1, 12):
        for until in (table.span, 60):
            rows = pairs(table, lag, until)
            of = table.places.of(rows)
            assert (of == table.places.of(rows - lag)).all()
            assert (table.panel.position[rows] < until).all()
            counts = [max(0, min(n, until - (80 - n)) - lag) for n in (80, 60, 30, 80, 70, 45)]
            assert np.bincount(of, minlength=6).tolist() == counts


def test_bounds_and_transforms_hold_for_each_series(frame):
    model = fit(frame, lower=0, transform="log1p")
    assert model.model.scale.power.shape == (6, 1)
    forecast = model.predict(frame)
    assert (forecast[["y", "y_q0.1"]] >= 0).all().all()
    with pytest.raises(InputError, match="upper is 50, but column 'y'"):
        fit(frame, upper=50)


def test_a_short_panel_has_a_horizon_in_each_part():
    """10 % of 30 rows are no horizon of 4."""
    names, times = ["a", "b", "c"], pd.date_range("2020-01-01", periods=30, freq="MS")
    values = np.random.default_rng(0).standard_normal(90)
    index = pd.MultiIndex.from_product([names, times], names=["unique_id", "ds"])
    made = fit(pd.DataFrame({"y": values}, index=index).reset_index())
    rows = [round(30 * share) for share in made.facts["split"]]
    assert rows == [20, 4, 6]
    assert any(note.startswith("The data is short") for note in made.facts["notes"])
