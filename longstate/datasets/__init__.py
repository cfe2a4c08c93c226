"""Series that are part of the package, so that the demo and the examples need no network."""

from importlib.resources import files as _files
from typing import TYPE_CHECKING

from longstate._lazy import public as _public

if TYPE_CHECKING:
    import pandas as pd


def nyc_airports() -> "pd.DataFrame":
    """Hourly departures from New York's three airports in 2013, and the weather.

    Columns:
        time: start of the hour in UTC, without a time zone. There are 8,760 rows, one per hour.
        scheduled: departures planned for the hour. The timetable is known in advance.
        late: departures that left in the hour, 15 minutes or more behind their schedule.
        cancelled: planned for the hour and cancelled.
        temperature (°C), humidity (%), wind_speed (m/s), visibility (km, at most 16.09),
        precipitation (mm in the hour), pressure (hPa): at JFK; NaN where not reported, which is
            54 hours altogether, 3 more of the wind and 831 more of the pressure.

    Source: nycflights13 (Hadley Wickham; CC0). See `longstate/datasets/README.md`.
    """
    import pandas as pd

    with _files(__name__).joinpath("nyc_airports.csv.gz").open("rb") as file:
        return pd.read_csv(file, compression="gzip", parse_dates=["time"])


def __dir__() -> list[str]:
    return _public(globals())
