"""A stream for each series of a panel."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from longstate import Forecaster
from longstate.cli.stream import forecast_lines
from longstate.errors import InputError
from longstate.stream import ForecastStream, PanelStream
from tests.train.helpers import QUICK, TINY, months

STATIC = ("kind", "size")


@pytest.fixture(scope="module")
def whole():
    return months().sort_values(["ds", "unique_id"], ignore_index=True)


@pytest.fixture(scope="module")
def frame(whole):
    """The last 14 months."""
    return whole.tail(14 * 6)


@pytest.fixture(scope="module")
def fitted(whole):
    made = Forecaster(4, window=12, size=TINY, training=QUICK)
    model = made.fit(whole, static=STATIC).model
    for weight in (*model.embed.parameters(), model.static.weight, model.head.weight):
        weight.data.normal_()  # so that each of these is seen in a forecast
    model.choice.weight.copy_(0.5 * torch.tensor(model.choice.available))
    return made


def rows(frame):
    return frame.assign(ds=frame["ds"].astype(str)).to_dict("records")


def pushed(stream, frame):
    """The last forecast of each series."""
    found = {}
    for row in rows(frame):
        streamed = stream.push(row)
        if streamed is not None:
            found[streamed.series] = streamed
    return found


def test_streams_give_the_forecasts_of_predict(fitted, frame):
    new = frame[frame["unique_id"] == "s3"].assign(unique_id="new", kind="unseen").tail(12)
    both = pd.concat([frame, new])
    found = pushed(PanelStream(fitted.model), both)
    expected = fitted.predict(both).set_index("unique_id")
    assert set(found) == set(expected.index)
    for name, streamed in found.items():
        point = streamed.forecast.point[0, :, 0].tolist()
        assert_close(point, expected.loc[name, "y"].to_list(), rtol=1e-4, atol=0)
        assert streamed.origin == "2021-08-01"


def test_static_columns_and_texts_count(fitted, frame):
    tail = frame[frame["unique_id"] == "s0"].tail(12)
    forecasts = [
        pushed(PanelStream(fitted.model), tail.assign(**one))["s0"].forecast.point.flatten()
        for one in ({}, {"kind": "b"}, {"kind": "unseen"}, {"size": 3.0})
    ]
    assert len({tuple(f.tolist()) for f in forecasts}) == 4


def test_continues_after_a_restart(fitted, frame, tmp_path):
    first, second = frame[:40], frame[40:]
    whole = PanelStream(fitted.model, adapt=0.1)
    pushed(whole, first)
    whole.save(tmp_path / "state")
    again = PanelStream(fitted.model, adapt=0.1)
    again.load(tmp_path / "state")
    assert len(again) == len(whole)
    a, b = pushed(whole, second), pushed(again, second)
    assert set(a) == set(b) == set(frame["unique_id"])
    for name, streamed in a.items():
        assert_close(streamed.forecast, b[name].forecast, rtol=0, atol=0)


def test_states_of_others_are_refused(fitted, whole, frame, tmp_path):
    stream = PanelStream(fitted.model)
    pushed(stream, frame[:50])
    stream.save(tmp_path / "state")
    other = Forecaster(4, window=12, size=TINY, training=QUICK, seed=1).fit(whole, static=STATIC)
    with pytest.raises(InputError, match="state"):
        PanelStream(other.model).load(tmp_path / "state")
    one = whole[whole["unique_id"] == "s0"][["ds", "y"]]
    single = Forecaster(4, window=12, size=TINY, training=QUICK).fit(one, "y")
    with pytest.raises(InputError, match="of a single series"):
        PanelStream(single.model)
    with pytest.raises(InputError, match="needs a series"):
        ForecastStream(fitted.model)
    with pytest.raises(InputError, match="most must be at least 1"):
        PanelStream(fitted.model, most=0)


def test_the_series_without_a_row_for_longest_is_dropped(fitted, frame):
    stream = PanelStream(fitted.model, most=2)
    own = {name: iter(rows(frame[frame["unique_id"] == name])) for name in ("s0", "s1", "s3")}
    for name in ("s0", "s1", "s0", "s3"):
        stream.push(next(own[name]))
    assert len(stream) == 2
    assert list(stream._streams) == ["s0", "s3"]


def test_wrong_rows_change_nothing(fitted, frame):
    stream = PanelStream(fitted.model)
    pushed(stream, frame[:30])
    count = len(stream)
    with pytest.raises(InputError, match="names no series"):
        stream.push({**rows(frame)[30], "unique_id": ""})
    with pytest.raises(InputError, match="a number was expected"):
        stream.push({**rows(frame)[30], "unique_id": "other", "y": "much"})
    assert len(stream) == count


def test_lines_of_a_file(fitted, frame, tmp_path):
    text = frame.to_csv(index=False)
    lines = [line.encode() for line in text.splitlines()]
    out = list(forecast_lines(PanelStream(fitted.model), lines, None))
    last = {cells[0]: cells for cells in csv.reader(io.StringIO("\n".join(out)))}
    expected = fitted.predict(frame).set_index("unique_id")
    assert set(last) == set(frame["unique_id"])
    for name, cells in last.items():
        assert cells[1] == "2021-08-01"
        point = np.array(cells[2:6], dtype=float).tolist()
        assert_close(point, expected.loc[name, "y"].to_list(), rtol=1e-4, atol=0)
