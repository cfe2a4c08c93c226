"""Tables at irregular times: when their times are read as they are, and what is said about it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from longstate._numbers import duration, number
from longstate.errors import InputError
from longstate.models import Calendar
from longstate.models._calendar import STAMPS
from longstate.models._time_text import passed
from longstate.train._stamps import irregular
from longstate.train._time_layers import layers_without_time, no_time


def irregular_calendar(base: Calendar, stamps: pd.Index) -> Calendar:
    """`base` for times that are read as they are.

    Raises:
        InputError: there are fewer than two rows.
    """
    if len(stamps) < 2:
        raise InputError("irregular times (step 'stamps') need at least 2 rows; got 1")
    return replace(base, step=STAMPS, usual=float(np.median(np.diff(passed(stamps)))))


def is_irregular(stamps: pd.Index) -> bool:
    """Whether the rows are many enough, and their times irregular enough, to be no mistake."""
    return len(stamps) > 20 and irregular([passed(stamps)])


def check_layers(calendar: Calendar | None, names: Sequence[str]) -> None:
    """Raise `InputError` if times are irregular, and one of these layers takes no time."""
    if calendar is not None and calendar.irregular and layers_without_time(names):
        raise InputError(f"{no_time(names)}; or count rows with step 'rows' (--step rows)")


def usual_words(calendar: Calendar) -> str:
    """The usual time between rows, in words."""
    usual = calendar.usual or 1.0
    return duration(usual) if calendar.dated else number(usual)


def taken(calendar: Calendar) -> str:
    """The remark on times that are found to be irregular."""
    return (
        "The times are irregular: the layers step over the time between rows (usually "
        f"{usual_words(calendar)}), and nothing is resampled. The step 'rows' (--step rows) counts "
        "rows instead."
    )


def assumed(calendar: Calendar, rows: int) -> str:
    """The remark on a forecast whose times are not in the data."""
    return (
        f"The times of {rows} rows that are forecast are not in the data: the usual time between "
        f"rows ({usual_words(calendar)}) is assumed. Rows with a time and empty targets give them."
    )
