import gzip
import hashlib
from importlib.resources import files

import numpy as np
import pandas as pd

from longstate.datasets import nyc_weather

# Of the text that tools/make_nyc_weather.py wrote.
DIGEST = "3b19fefb622386b720ae36d66ed1aa718f1fdbad8bc34926fc1014fe49736d05"


def test_is_the_file_that_the_tool_makes():
    packed = files("longstate.datasets").joinpath("nyc_weather.csv.gz").read_bytes()
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == DIGEST


def test_every_hour_has_a_row():
    frame = nyc_weather()
    assert list(frame) == ["time", "temperature", "humidity", "wind_speed", "pressure"]
    assert (frame["time"].diff().dropna() == pd.Timedelta(hours=1)).all()
    assert frame["time"].iloc[0] == pd.Timestamp("2013-01-01 06:00")


def test_gaps_stay_gaps():
    missing = nyc_weather().isna().sum()
    assert missing.to_dict() == {
        "time": 0, "temperature": 24, "humidity": 24, "wind_speed": 27, "pressure": 855,
    }  # fmt: skip


def test_values_are_weather():
    frame = nyc_weather().set_index("time")
    assert frame["temperature"].between(-30, 45).sum() == 8706
    assert frame["humidity"].dropna().between(0, 100).all()
    assert frame["wind_speed"].dropna().between(0, 40).all()
    assert frame["pressure"].dropna().between(950, 1060).all()
    # Warmest around 19:00 UTC, two in the afternoon in New York: the clock is right.
    hottest = frame["temperature"].groupby(np.asarray(frame.index.hour)).mean().idxmax()
    assert hottest in (18, 19, 20)
