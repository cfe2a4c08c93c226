"""Local times that a time zone left out: an hour in spring, and whole days at the date line (Samoa
had no 30 December 2011)."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from longstate.models._steps import DAY

if TYPE_CHECKING:
    import pandas as pd

_FIRST, _LAST = "1840-01-01 12:00", "2037-12-31 12:00"


@lru_cache(maxsize=32)
def skipped_days(zone: str | None) -> tuple[int, ...]:
    """Days that the clocks of a zone left out, in days since 1970, in order."""
    import pandas as pd

    if zone is None:
        return ()
    noons = pd.date_range(_FIRST, _LAST, freq="D", unit="us")
    local = noons.tz_localize(zone, nonexistent="NaT", ambiguous=np.ones(len(noons), bool))
    missing = np.asarray(local.isna())
    return tuple((noons.asi8[missing] // DAY).tolist())


def naive(stamps: Any, wall: bool) -> Any:
    """Stamps without their zone: in local time, or in UTC."""
    if stamps.tz is None:
        return stamps
    return stamps.tz_localize(None) if wall else stamps.tz_convert("UTC").tz_localize(None)


def localize(
    times: "pd.DatetimeIndex", zone: str, *, second: bool = False, infer: bool = False
) -> "pd.DatetimeIndex":
    """Local times in a zone. A time that is left out is the next valid one.

    Args:
        times: without a zone.
        zone: its name.
        second: a time that occurs twice in autumn is the second one, not the first.
        infer: the order of the times decides that.
    """
    days = skipped_days(zone)
    if days:  # pandas moves a time by an hour too much there
        at = times.normalize()
        inside = np.isin(at.as_unit("us").asi8 // DAY, days)
        times = times.where(~inside, at + np.timedelta64(1, "D"))
    first: Literal["infer"] | np.ndarray = np.full(len(times), not second)
    first = "infer" if infer else first
    return times.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
