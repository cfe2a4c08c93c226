"""Place rows on the grid of a calendar."""

import re
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from longstate._numbers import duration
from longstate.errors import InputError
from longstate.models import Calendar
from longstate.models._calendar import ROWS
from longstate.models._time_text import passed, read, shown, texts
from longstate.models._zones import naive
from longstate.train._irregular import irregular_calendar, is_irregular, taken
from longstate.train._time_form import check_clear, find_form
from longstate.train._time_step import Timing, find_step, fits, missing_days

COUNT = (
    "step 'rows' (--step rows) counts rows instead of time, and step 'stamps' (--step stamps) "
    "reads the times as they are"
)


class Placed(NamedTuple):
    """Values with rows of nan for missing times, their times, and notes."""

    values: pd.DataFrame
    times: pd.Index
    calendar: Calendar
    notes: tuple[str, ...]


def place_rows(
    values: pd.DataFrame, column: pd.Series, calendar: Calendar | None, timing: Timing
) -> Placed:
    """Read the times, and put each row on the grid.

    Args:
        values: the numbers of each row.
        column: the times, in the format of the data.
        calendar: that of training; None to find it.
        timing: settings of the times, used to find the calendar.
    """
    empty = (column.isna() & values.isna().all(axis=1)).to_numpy()
    lines = np.flatnonzero(~empty) + 2
    values, column = values[~empty].reset_index(drop=True), column[~empty].reset_index(drop=True)
    if len(column) == 0:
        raise InputError(f"the time column {column.name!r} is empty")
    stamps, base, notes = read_column(column, calendar, timing, lines)
    _check_order(stamps, base, column.name, lines)
    try:
        return _on_grid(values, stamps, base, calendar, timing, column.name, lines, notes)
    except InputError:
        free = calendar is None and timing.step is None and not timing.holidays
        if not free or not is_irregular(stamps):
            raise
    found = irregular_calendar(base, stamps)
    return Placed(values, stamps, found, (*notes, taken(found)))


def read_column(
    column: pd.Series,
    calendar: Calendar | None,
    timing: Timing,
    lines: np.ndarray,
    *,
    ordered: bool = True,
) -> tuple[pd.Index, Calendar, list[str]]:
    """The stamps of a column, in any order; the calendar that reads them, without a step if none
    was given; and notes on their format.

    Args:
        column: the times, in the format of the data.
        calendar: that of training; None to find the format.
        timing: settings of the times.
        lines: line of the file of each of them, for messages.
        ordered: whether they are of one series, in order.

    Raises:
        InputError: times cannot be read, or their format is not clear.
    """
    if pd.api.types.infer_dtype(column, skipna=True) == "period":
        column = pd.Series(pd.PeriodIndex(column), name=column.name)
    notes: list[str] = []
    if calendar is None:
        form = find_form(column, ordered=ordered)
        check_clear(form.form, column)
        notes += form.notes if timing.zone is None else ()
        calendar = Calendar(ROWS, form.form, timing.zone or form.zone)
    return read_stamps(calendar, column, lines), calendar, notes


def _on_grid(
    values: pd.DataFrame,
    stamps: pd.Index,
    base: Calendar,
    calendar: Calendar | None,
    timing: Timing,
    name: object,
    lines: np.ndarray,
    before: list[str],
) -> Placed:
    """Find the step, and add missing rows."""
    notes = list(before)
    found = base.anchored(stamps) if calendar is not None else find_step(base, stamps, timing)
    found = with_holidays(found, stamps, calendar is None, notes)
    if found is None or (found.even and not fits(found, stamps)):
        raise _uneven(found or base, stamps, name, lines)
    if not found.even:
        return Placed(values, stamps, found, tuple(notes))
    return _fill(values, stamps, found, name, lines, notes)


def read_stamps(base: Calendar, column: pd.Series, lines: np.ndarray) -> pd.Index:
    """The times of a column.

    Args:
        base: zone and format. column: the times. lines: of the file, for messages.

    Raises:
        InputError: one of them cannot be read.
    """
    try:
        stamps = read(base, column)
    except (KeyError, ValueError) as e:  # an unknown zone
        raise InputError(f"the time zone {base.zone!r} is not known ({e})") from None
    bad = np.flatnonzero(pd.isna(stamps))
    if len(bad) == 0:
        return stamps
    row = int(bad[0])
    cell = str(column.iloc[row])
    like = "2024-01-31 12:00"
    if base.anchor is not None:
        like = texts(base, base.stamps(base.clock(pd.Index([base.untext(base.anchor)]))))[0]
    what = "a number" if not base.dated else f"a date such as {like}"
    raise InputError(
        f"the time column {column.name!r} holds {cell[:60]!r} in line {lines[row]}; {what} was "
        "expected, written the same way in every line"
    )


def _check_order(stamps: pd.Index, base: Calendar, name: object, lines: np.ndarray) -> None:
    clock = naive(stamps, False).asi8 if base.dated else np.asarray(stamps)
    gaps = np.diff(clock)
    same, back = gaps == 0, gaps < 0
    remedy = f" (such lines: {same.sum():,}); keep one row of a time, or their mean"
    for wrong, what, more in (
        (same, "repeats the time of", remedy), (back, "is earlier than", ""),
    ):  # fmt: skip
        if not wrong.any():
            continue
        row = int(np.flatnonzero(wrong)[0]) + 1
        hint = "; if the rows are of several series, id (--id) names their column"
        moved = stamps[row - 1] - stamps[row]
        if base.dated and base.zone is None and moved < pd.Timedelta(1, "h"):
            hint = "; if clocks were set back there, zone (--zone) names the time zone"
        raise InputError(
            f"the time column {name!r} must go forward: line {lines[row]} "
            f"({shown(base, stamps[row])}) {what} line {lines[row - 1]}{more}{hint}"
        )


def with_holidays(
    found: Calendar | None, stamps: pd.Index, training: bool, notes: list[str]
) -> Calendar | None:
    """Add the holidays of later data, if those of training were found in the data."""
    if found is None or not found.inferred:
        return found
    whole = found if not training else replace(found, holidays=())
    missing = [str(day) for day in missing_days(whole, stamps)]
    if missing:
        few = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        notes.append(
            f"{len(missing)} working days without a row ({few}) are taken as holidays, not as gaps."
        )
    if training:
        last = str(stamps[-1].date())
        ahead = [day for day in found.holidays if day > last]
        if ahead:
            dates = ", ".join(sorted({day[5:] for day in ahead}))
            notes.append(f"Holidays that came every year are expected again: {dates}.")
        return found
    return replace(found, holidays=tuple(sorted({*found.holidays, *missing})))


def _uneven(found: Calendar, stamps: pd.Index, name: object, lines: np.ndarray) -> InputError:
    if len(stamps) < 3 and not found.even:
        return InputError(
            f"the time column {name!r} has too few rows ({len(stamps)}) to find its step; step "
            "(--step) gives it"
        )
    row = 1
    if found.even:
        step = f"its step (every {found.words})"
        numbers = found.index_of(stamps)
        off = found.off_grid(stamps, numbers)
        off[1:] |= np.diff(numbers) <= 0
        row = int(np.flatnonzero(off)[0]) if off.any() else row
    else:
        best = _closest(found, stamps)
        step, row = (
            f"the usual step (about {_usual_words(found, stamps)})",
            _first_off(best, stamps),
        )
    time = _whole(shown(found, stamps[row]))
    return InputError(
        f"the time column {name!r} is uneven: line {lines[row]} ({time}) "
        f"does not fit {step}; {COUNT}; for times with jitter, round or resample them"
    )


def _whole(text: str) -> str:
    """A time without fractions of a second."""
    return re.sub(r"(:\d\d)\.\d+", r"\1", text).replace("T", " ")


def _usual_words(base: Calendar, stamps: pd.Index) -> str:
    usual = float(np.median(np.diff(passed(stamps))))
    return duration(usual) if base.dated else f"{usual:g}"


def _closest(base: Calendar, stamps: pd.Index) -> Calendar:
    """The usual gap as a step, for a message."""
    clock = base.clock(stamps)
    sizes, counts = np.unique(np.diff(clock), return_counts=True)
    size = sizes[counts.argmax()] if counts.max() > 1 else sizes[len(sizes) // 2]
    if not base.dated:
        return replace(base, step=f"{size:g}").anchored(stamps)
    length: Any = pd.tseries.frequencies.to_offset(pd.Timedelta(int(size), "us"))
    step = length.freqstr
    return replace(base, step=step).anchored(stamps)


def _first_off(calendar: Calendar, stamps: pd.Index) -> int:
    off = calendar.off_grid(stamps, calendar.index_of(stamps))
    return int(np.flatnonzero(off)[0]) if off.any() else 1


def _fill(
    values: pd.DataFrame,
    stamps: pd.Index,
    calendar: Calendar,
    name: object,
    lines: np.ndarray,
    notes: list[str],
) -> Placed:
    numbers = calendar.index_of(stamps)
    steps = np.diff(numbers)
    length, have = int(numbers[-1] - numbers[0]) + 1, len(numbers)
    if have > 2 and steps.min() > 1:
        raise InputError(
            f"the time column {name!r} has no two rows one step (every {calendar.words}) apart; "
            f"the nearest are {steps.min()} steps apart"
        )
    if length > 2 * have:
        row = int(steps.argmax()) + 1
        raise InputError(
            f"the time column {name!r} has {have} rows where every {calendar.words} from "
            f"{shown(calendar, stamps[0])} to {shown(calendar, stamps[-1])} makes {length}; more "
            f"rows are missing than present, most before line {lines[row]} "
            f"({shown(calendar, stamps[row])}), which comes {steps[row - 1]} steps after the line "
            f"before it; {COUNT}"
        )
    grid = calendar.at(np.arange(numbers[0], numbers[-1] + 1))
    off = np.abs(calendar.clock(stamps) - calendar.clock(calendar.at(numbers)))
    if calendar.dated and off.any():
        notes.append(beside_note(calendar, int((off > 0).sum()), int(off.max())))
    if length > have:
        notes.append(added_note(calendar, length - have))
        places = numbers - numbers[0]
        values = values.set_axis(places).reindex(np.arange(length))
    return Placed(values, grid, calendar, tuple(notes))


def beside_note(calendar: Calendar, count: int, most: int) -> str:
    """A sentence on times that were rounded to the grid, by at most so many units of the clock."""
    length = pd.Timedelta(most, "ns" if calendar.unit == "ns" else "us")
    return (
        f"{count} times lie beside their step (every {calendar.words}) by at "
        f"most {length.total_seconds():g} seconds; they were rounded to it."
    )


def added_note(calendar: Calendar, count: int) -> str:
    """A sentence on rows that were missing."""
    return f"{count} missing rows (one every {calendar.words}) were added as gaps."
