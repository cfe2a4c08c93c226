"""Durations in words: 24 steps of an hour are a day."""

from longstate._numbers import number

_DAY = 86400.0
_UNITS = (
    ("s", 1.0),
    ("min", 60.0),
    ("h", 3600.0),
    ("day", _DAY),
    ("week", 7 * _DAY),
    ("month", 365.2425 / 12 * _DAY),
    ("year", 365.2425 * _DAY),
)


def duration(seconds: float) -> str:
    """A duration in the largest unit with a count of at least two; weeks and months only for whole
    numbers. A month is a twelfth of a year."""
    for name, size in reversed(_UNITS):
        count = seconds / size
        if name in ("week", "month") and abs(count - round(count)) > 1e-9 * count:
            continue
        if count >= 2 or (name != "week" and abs(count - 1) < 1e-9) or size == 1.0:
            plural = "s" if name in ("day", "week", "month", "year") and count != 1 else ""
            return f"{_rounded(count)} {name}{plural}"
    return f"{_rounded(seconds)} s"


def steps(count: float, interval: float | None) -> str:
    """`count` steps, and how long that is when the time between samples is known.

    Args:
        count: number of steps.
        interval: seconds between samples, or None.
    """
    text = f"{_rounded(count)} step{'' if count == 1 else 's'}"
    return text if interval is None else f"{text} ({duration(count * interval)})"


def marks(low: float, high: float, interval: float | None) -> list[tuple[float, str]]:
    """Round times between `low` and `high` steps: position in steps, and name."""
    if interval is None:
        return []
    round_times = (
        ("1 s", 1), ("10 s", 10), ("1 min", 60), ("10 min", 600), ("1 h", 3600),
        ("6 h", 21600), ("1 day", 86400), ("1 week", 604800), ("1 month", 2629746),
        ("1 year", 31556952), ("10 years", 315569520),
    )  # fmt: skip
    return [(s / interval, name) for name, s in round_times if low <= s / interval <= high]


def short_time(time: str) -> str:
    """An ISO time without zero seconds."""
    time = time.replace("T", " ").removesuffix(".000")
    return time[:-3] if time.count(":") == 2 and time.endswith(":00") else time


def _rounded(x: float) -> str:
    """Three significant digits, without an exponent."""
    return number(float(f"{x:.3g}"), 3, exponent=False)
