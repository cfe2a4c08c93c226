"""Find the `strptime` format of dates in text: the parts of one date, then the order of day, month
and year that fits all rows."""

import re
from itertools import permutations
from typing import NamedTuple

import numpy as np
import pandas as pd

from longstate.models._time_text import read_text

CLOCK = r"(?P<clock>\d{1,2}:\d\d(?P<seconds>:\d\d(?P<fraction>\.\d{1,9})?)?)(?P<half> ?[AaPp][Mm])?"
OFFSET = r"(?P<gap> ?)[+-]\d\d:?\d\d$"
PART = re.compile(r"\d+|[^\W\d_]+|.", re.DOTALL)
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september"),
    *("october", "november", "december"),
)
WORDS = {"t", "z", "utc", "gmt", "at", "um", "uhr", "de"}  # that stand between or behind numbers
TOGETHER = ("%Y%m%d", "%d%m%Y", "%m%d%Y")
IN_WORDS = {"%d": "day", "%m": "month", "%Y": "year", "%y": "year"}


class Pattern(NamedTuple):
    """A format, and a remark if another one would do as well."""

    form: str
    note: str | None


def find_pattern(text: pd.Series, *, ordered: bool = True) -> Pattern | None:
    """The format of the rows of `text`; None if they are not dates with a month.

    Of the orders of day, month and year the one is taken that leaves the fewest rows unread, then
    the one whose rows are in order, then the one with the most even steps.
    """
    longest = int(text.str.len().to_numpy().argmax())
    forms = _forms(text.iloc[longest]) or _guessed(text.iloc[longest])
    if not forms:
        return None
    read = [read_text(form, text) for form in forms]
    marks = [badness(stamps, ordered=ordered) for stamps in read]
    best = min(range(len(forms)), key=marks.__getitem__)
    for i, form in enumerate(forms):
        if i != best and marks[i] == marks[best] and bool((read[i] != read[best]).any()):
            way, other = (_in_words(f) for f in (forms[best], form))
            note = f"Times such as {text.iloc[0]} are read as {way}; every row could also be"
            return Pattern(forms[best], f"{note} {other}.")
    return Pattern(forms[best], None)


def _in_words(form: str) -> str:
    """The date of a format, as in "day/month/year"."""
    date = re.search(r"%[dmyY].*%[dmyY]", form)
    return re.sub(r"%\w", lambda found: IN_WORDS.get(found[0], found[0]), date[0] if date else form)


def _guessed(example: str) -> list[str]:
    """The guess of pandas, and the same with day and month exchanged, if both are numbers."""
    form = pd.tseries.api.guess_datetime_format(example)
    if form is None:
        return []
    return [form, _exchanged(form)] if "%d" in form and "%m" in form else [form]


def _exchanged(form: str) -> str:
    return re.sub("%[dm]", lambda found: {"%d": "%m", "%m": "%d"}[found[0]], form)


def _forms(example: str) -> list[str]:
    """All formats of one date, the most usual one first."""
    rest, tail = example, ""
    offset = re.search(OFFSET, rest)
    if offset and ":" in rest[: offset.start()]:
        rest, tail = rest[: offset.start()], offset["gap"] + "%z"
    clock = re.search(CLOCK, rest)
    if clock is None:
        return [form + tail for form in _dates(rest)]
    form = ("%I" if clock["half"] else "%H") + ":%M"
    form += (":%S" if clock["seconds"] else "") + (".%f" if clock["fraction"] else "")
    form += clock["half"][:-2] + "%p" if clock["half"] else ""
    dates = _dates(rest[: clock.start()] + "\0" + rest[clock.end() :])
    return [date.replace("\0", form) + tail for date in dates]


def _dates(text: str) -> list[str]:
    """Formats of the part without a clock."""
    parts = PART.findall(text)
    words = {i: word for i, part in enumerate(parts) if (word := _word(part)) is not None}
    if len(words) < len(parts):
        return []
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    if [len(parts[i]) for i in numbers] == [8]:
        return ["".join({**words, numbers[0]: form}.values()) for form in TOGETHER]
    open_ = [i for i, part in enumerate(parts) if part.isdigit() and len(part) <= 2]
    years = [i for i, part in enumerate(parts) if part.isdigit() and len(part) == 4]
    if len(years) > 1 or len(numbers) > len(open_) + len(years):
        return []
    named = "%b" in words.values() or "%B" in words.values()
    fields = [f for f, needed in (("%m", not named), ("%d", True), ("%y", not years)) if needed]
    if len(open_) < len(fields):  # a month of a year
        fields.remove("%d")
    if len(open_) != len(fields):
        return []
    words |= dict.fromkeys(years, "%Y")
    orders = sorted(permutations(fields), key=_rare)
    if open_ and parts[open_[0] + 1 : open_[0] + 2] == ["."]:  # month.day is not in use
        orders.sort(key=lambda o: "%m" in o and "%d" in o and o.index("%m") < o.index("%d"))
    found = []
    for order in orders:
        filled = dict(zip(open_, order, strict=True))
        if all(len(parts[i]) == 2 for i, field in filled.items() if field == "%y"):
            found.append("".join({**words, **filled}.values()))
    return found


def _rare(order: tuple[str, ...]) -> int:
    """How rare an order is: the year is last, or first."""
    if "%y" not in order or order[-1] == "%y":
        return 0
    return 1 if order[0] == "%y" else 2


def _word(part: str) -> str | None:
    """A name of a day or a month as a field; None for a word that dates do not have."""
    lower = part.lower()
    for names, short, long in ((DAYS, "%a", "%A"), (MONTHS, "%b", "%B")):
        if lower in names:
            return short if lower == "may" else long
        if lower in {name[:3] for name in names}:
            return short
    return None if part.isalpha() and lower not in WORDS else part.replace("%", "%%")


def badness(stamps: pd.DatetimeIndex, *, ordered: bool = True) -> tuple[int, bool, float, int]:
    """A score, lower is better: unread rows, wrong order, largest step in typical steps, number of
    different steps. Of rows that are not in order the times are ordered."""
    clock = stamps.dropna().asi8
    gaps = np.diff(clock if ordered else np.unique(clock))
    uneven = round(float(gaps.max() / np.median(gaps)), 1) if len(gaps) and gaps.min() > 0 else 1.0
    return int(np.sum(stamps.isna())), bool((gaps <= 0).any()), uneven, len(np.unique(gaps))
