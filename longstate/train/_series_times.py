"""The order of the rows of a long table of series: by case, and by time."""

from pathlib import Path

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.models import Calendar
from longstate.models._calendar import ROWS
from longstate.models._time_text import read
from longstate.train._time_form import check_clear, find_form


def in_order(path: Path, frame: pd.DataFrame, case: str, time: str) -> pd.DataFrame:
    """The rows of each case by their times, which may be numbers or dates in any format.

    Raises:
        InputError: a time is missing or cannot be read, or a case has two rows of one time.
    """
    form = find_form(frame[time])
    check_clear(form.form, frame[time])
    stamps = read(Calendar(ROWS, form.form, form.zone), frame[time])
    bad = np.flatnonzero(pd.isna(stamps))
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"{path} line {row + 2}: column {time!r} holds {str(frame[time].iloc[row])[:60]!r}; "
            "a number or a date was expected, written the same way in every line"
        )
    twice = pd.DataFrame({"case": frame[case].to_numpy(), "time": stamps}).duplicated().to_numpy()
    if twice.any():
        row = int(twice.argmax())
        raise InputError(
            f"{path} line {row + 2}: case {frame[case].iloc[row]} has another row of the time "
            f"{frame[time].iloc[row]}"
        )
    cases, ranks = pd.factorize(frame[case])[0], pd.Series(stamps).rank(method="first")
    return frame.iloc[np.lexsort((ranks.to_numpy(), cases))]
