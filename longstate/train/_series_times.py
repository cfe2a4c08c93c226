"""The order of the rows of a long table of series: by case, and by time; and their stamps."""

from pathlib import Path

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.models import Calendar
from longstate.models._calendar import ROWS
from longstate.models._time_text import read
from longstate.train._time_form import Form, check_clear, find_form


def in_order(
    path: Path, frame: pd.DataFrame, case: str, time: str, dated: bool | None = None
) -> tuple[pd.DataFrame, pd.Index]:
    """The rows of each case by their times, which may be numbers or dates in any format.

    Args:
        path: for messages.
        frame: the table.
        case, time: columns.
        dated: whether the times of the training were dates; None if it read no stamps.

    Returns:
        The rows in order, and their stamps: dates, or numbers.

    Raises:
        InputError: a time is missing or cannot be read, a case has two rows of one time, or times
            are dates where those of the training were numbers, or the other way round.
    """
    form = Form("number", None) if dated is False else find_form(frame[time], ordered=False)
    if dated and form.form == "number":
        raise InputError(
            f"{path}: column {time!r} holds {str(frame[time].iloc[0])[:60]!r}; the times of the "
            "training were dates, so dates were expected"
        )
    check_clear(form.form, frame[time])
    stamps = read(Calendar(ROWS, form.form, form.zone), frame[time])
    bad = np.flatnonzero(pd.isna(stamps))
    if len(bad):
        row = int(bad[0])
        wanted = "a number or a date was expected, written the same way in every line"
        if dated is False:
            wanted = "a number was expected, as in the training"
        raise InputError(
            f"{path} line {row + 2}: column {time!r} holds {str(frame[time].iloc[row])[:60]!r}; "
            f"{wanted}"
        )
    twice = pd.DataFrame({"case": frame[case].to_numpy(), "time": stamps}).duplicated().to_numpy()
    if twice.any():
        row = int(twice.argmax())
        raise InputError(
            f"{path} line {row + 2}: case {frame[case].iloc[row]} has another row of the time "
            f"{frame[time].iloc[row]}"
        )
    cases, ranks = pd.factorize(frame[case])[0], pd.Series(stamps).rank(method="first")
    order = np.lexsort((ranks.to_numpy(), cases))
    return frame.iloc[order], stamps[order]
