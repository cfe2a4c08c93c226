"""Place the rows of many series on one grid of time.

Axes: n rows of the data, s series.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.models import Calendar
from longstate.models._calendar import STAMPS
from longstate.models._time_text import read, shown
from longstate.train._labels import as_texts
from longstate.train._time_rows import read_column, with_holidays
from longstate.train._time_step import Timing, find_step, fits

MOST_GAPS = 50  # times as many rows of the grid as of the data


class PanelRows(NamedTuple):
    """The order of the rows, and their places.

    Args:
        order (n): rows of the data, by series and then by time.
        series (n): number of the series of each of them.
        number (n): its number on the grid; without one, of the row within its series.
        ids (s): as in the data.
        calendar: None without times.
        notes: sentences about corrections.
    """

    order: np.ndarray
    series: np.ndarray
    number: np.ndarray
    ids: pd.Index
    calendar: Calendar | None
    notes: tuple[str, ...]


def place_panel(
    frame: pd.DataFrame, id: str, time: str | None, calendar: Calendar | None, timing: Timing
) -> PanelRows:
    """Read ids and times.

    Args:
        frame: one row for each series and time, in any order.
        id, time: columns.
        calendar: that of training; None to find it.
        timing: settings of the times, used to find the calendar.

    Raises:
        InputError: an id is missing, times cannot be read, a series has two rows at one time, or
            the series are not on one grid.
    """
    codes, ids = _series(frame[id], id)
    if time is None:
        order = np.argsort(codes, kind="stable")
        return PanelRows(order, codes[order], _count(codes[order]), ids, None, ())
    column = frame[time].reset_index(drop=True)
    lines = np.arange(len(column)) + 2
    stamps, base, notes = read_column(column, calendar, timing, lines, ordered=False)
    stamps = _second_hours(stamps, base, column, codes)
    places, distinct = pd.factorize(stamps, sort=True)
    order = np.lexsort((places, codes))
    codes, places = codes[order], places[order]
    _check_twice(codes, places, ids, base, distinct)
    distinct = pd.Index(distinct)
    if calendar is None:
        first = int(np.bincount(codes).argmax())
        found = _find(base, distinct, pd.Index(distinct[places[codes == first]]), timing)
        if found is None:
            raise InputError(
                f"the times in {time!r} have no step that all series share; step (--step) gives "
                "it, or 'rows' to count rows"
            )
    else:
        found = base.anchored(distinct)
    if found.step == STAMPS:
        raise InputError("the series of a panel cannot have irregular times; step 'rows' counts")
    if not found.even:
        return PanelRows(order, codes, _count(codes), ids, found, tuple(notes))
    found = with_holidays(found, distinct, calendar is None, notes) or found
    grid = found.index_of(distinct)
    off = found.off_grid(distinct, grid)
    number = grid[places]
    same = (np.diff(codes) == 0) & (np.diff(number) == 0)
    if off.any() or same.any():
        row = int(np.flatnonzero(off[places])[0]) if off.any() else int(np.flatnonzero(same)[0])
        raise InputError(
            f"series {str(ids[codes[row]])!r} has a row at {shown(base, distinct[places[row]])}, "
            f"beside the step of the panel (every {found.words}); all series need one step"
        )
    _check_steps(codes, number, ids, found, calendar is None)
    return PanelRows(order, codes, number, ids, found, tuple(notes))


def _second_hours(
    stamps: pd.Index, base: Calendar, column: pd.Series, codes: np.ndarray
) -> pd.Index:
    """Where a series has a local time twice, as in autumn, the order of its own rows tells them
    apart."""
    twice = pd.DataFrame({"series": codes, "time": stamps}).duplicated(keep=False).to_numpy()
    if base.zone is None or not twice.any():
        return stamps
    found = pd.Series(stamps)
    for code in np.unique(codes[twice]):
        rows = np.flatnonzero(codes == code)
        found.iloc[rows] = read(base, column.iloc[rows])
    return pd.Index(found)


def _series(column: pd.Series, name: str) -> tuple[np.ndarray, pd.Index]:
    """Number of the series of each row, and the ids in order of appearance."""
    texts = as_texts(column)
    missing = np.flatnonzero((texts.isna() | (texts == "")).to_numpy())
    if len(missing):
        raise InputError(
            f"column {name!r} names no series in line {missing[0] + 2}"
            + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "")
            + "; every row needs one"
        )
    codes, _ = pd.factorize(texts)
    _, first = np.unique(codes, return_index=True)
    return codes, pd.Index(column.iloc[first])


def _find(base: Calendar, distinct: pd.Index, longest: pd.Index, timing: Timing) -> Calendar | None:
    """The step of all times together; or that of the longest series, if these have none."""
    for stamps in (distinct, longest):
        found = find_step(base, stamps, timing)
        if found is not None and (not found.even or fits(found, stamps)):
            return replace(found, anchor=None).anchored(stamps) if found.even else found
    return None


def _count(codes: np.ndarray) -> np.ndarray:
    """The number of each row within its series; the rows are in order of the series."""
    starts = np.flatnonzero(np.r_[True, np.diff(codes) != 0])
    return np.arange(len(codes)) - np.repeat(starts, np.diff(np.r_[starts, len(codes)]))


def _check_twice(
    codes: np.ndarray, places: np.ndarray, ids: pd.Index, base: Calendar, distinct: pd.Index
) -> None:
    same = np.flatnonzero((np.diff(codes) == 0) & (np.diff(places) == 0))
    if len(same):
        row, local = int(same[0]), base.dated and base.zone is None
        local = local and not (distinct == pd.DatetimeIndex(distinct).normalize()).all()
        raise InputError(
            f"series {str(ids[codes[row]])!r} has two rows at {shown(base, distinct[places[row]])}"
            + (f" (and {len(same) - 1} more rows are alike)" if len(same) > 1 else "")
            + "; keep one of them"
            + (
                "; if clocks were set back there, zone (--zone) names the time zone"
                if local
                else ""
            )
        )


def _check_steps(
    codes: np.ndarray, number: np.ndarray, ids: pd.Index, calendar: Calendar, training: bool
) -> None:
    """Refuse series of a training on a longer step than the others, and grids of almost no rows."""
    inside = np.diff(codes) == 0
    gaps = np.where(inside, np.diff(number), np.iinfo(np.int64).max)
    least = np.full(len(ids), np.iinfo(np.int64).max)
    np.minimum.at(least, codes[:-1], gaps)
    wrong = np.flatnonzero((np.bincount(codes, minlength=len(ids)) > 2) & (least > 1))
    if len(wrong) and training:
        name, more = str(ids[wrong[0]]), len(wrong) - 1
        raise InputError(
            f"series {name!r} has no two rows one step (every {calendar.words}) apart"
            + (f", and {more} more series have none" if more else "")
            + "; all series of a panel need one step"
        )
    rows = int(np.where(inside, gaps, 1).sum())
    if rows > MOST_GAPS * len(codes):
        raise InputError(
            f"the {len(codes):,} rows are spread over {rows:,} steps (every {calendar.words}); "
            "more rows are missing than a panel can have; step 'rows' (--step rows) counts rows"
        )
