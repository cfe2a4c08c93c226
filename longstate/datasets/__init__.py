"""Series that ship inside the package, so that the demo and the examples need no network."""

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def nyc_weather() -> "pd.DataFrame":
    """One year of hourly weather at New York's JFK airport, 2013.

    Columns: `time` (UTC, without a time zone), `temperature` (°C), `humidity` (%), `wind_speed`
    (m/s), `pressure` (hPa). Every hour has a row. What the station did not report is NaN: 24 hours
    altogether, 3 more of the wind and 831 more of the pressure.

    Source: table `weather` of nycflights13 (Hadley Wickham; CC0), from the ASOS records of the US
    National Weather Service. See `longstate/datasets/README.md`.
    """
    import pandas as pd

    with files(__name__).joinpath("nyc_weather.csv.gz").open("rb") as file:
        return pd.read_csv(file, compression="gzip", parse_dates=["time"])
