import gzip
import hashlib
from importlib.resources import files

import numpy as np
import pandas as pd

from longstate.datasets import nyc_airports

# Of the text that tools/make_nyc_airports.py wrote.
DIGEST = "108b91b5fd3ef17954e8d2cbb398fafbaa5dfe15eed7bfb3359f8d00d02e8bce"


def test_is_the_file_that_the_tool_makes():
    packed = files("longstate.datasets").joinpath("nyc_airports.csv.gz").read_bytes()
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == DIGEST


def test_every_hour_has_a_row():
    frame = nyc_airports()
    assert list(frame) == [
        "time", "scheduled", "late", "cancelled", "temperature", "humidity", "wind_speed",
        "visibility", "precipitation", "pressure",
    ]  # fmt: skip
    assert (frame["time"].diff().dropna() == pd.Timedelta(hours=1)).all()
    assert frame["time"].iloc[0] == pd.Timestamp("2013-01-01 05:00")
    assert len(frame) == 365 * 24


def test_missing_values_are_nan():
    missing = nyc_airports().isna().sum()
    assert missing[["scheduled", "late", "cancelled"]].sum() == 0
    assert missing["temperature"] == 54
    assert missing["wind_speed"] == 57
    assert missing["pressure"] == 885


def test_counts_of_flights_are_consistent():
    frame = nyc_airports()
    # 336,776 flights, 8,255 without a departure; two were so late that they left in another year.
    assert frame["scheduled"].sum() == 336_776
    assert frame["cancelled"].sum() == 8_255
    assert (frame["cancelled"] <= frame["scheduled"]).all()
    # Storms over New York on 24 and 25 June made their evenings late.
    busiest = frame.groupby(frame["time"].dt.date)["late"].sum().nlargest(20).index
    assert {str(day) for day in busiest} & {"2013-06-24", "2013-06-25", "2013-06-26"}


def test_weather_is_in_plausible_ranges():
    frame = nyc_airports().set_index("time")
    for column, low, high in (
        ("temperature", -30, 45), ("humidity", 5, 100), ("wind_speed", 0, 40),
        ("visibility", 0, 16.1), ("precipitation", 0, 100), ("pressure", 950, 1060),
    ):  # fmt: skip
        assert frame[column].dropna().between(low, high).all(), column
    # Warmest around 19:00 UTC, two in the afternoon in New York: the clock is right.
    hottest = frame["temperature"].groupby(np.asarray(frame.index.hour)).mean().idxmax()
    assert hottest in (18, 19, 20)
