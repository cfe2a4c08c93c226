"""The format of numbers in tables, sentences and figures."""

import math
from decimal import Decimal


def number(x: float, digits: int = 4, *, exponent: bool = True) -> str:
    """A number as text, such as 0.25, 12, 3,400 or 1.2e+06.

    Args:
        x: any float. Just below 1, as decays are, the distance from 1 is shown: "1 - 2e-06".
        digits: significant digits. Numbers of 1000 or more are rounded to integers.
        exponent: whether very large and very small numbers have an exponent.
    """
    if x == 0 or not math.isfinite(x):
        return "0" if x == 0 else f"{x}"
    if 0 < 1 - x < 5e-5:
        return f"1 - {1 - x:.2g}"
    if abs(x) >= 1000 and (abs(x) < 1e6 or not exponent):
        return f"{x:,.0f}"
    text = f"{x:.{digits}g}"
    return text if exponent else f"{Decimal(text):f}"


def score(x: float) -> str:
    """A score as text, with four decimals so that columns align; a small one has two digits."""
    return f"{x:.4f}" if x == 0 or abs(x) >= 5e-4 or x != x else f"{x:.2g}"


def cell(x: float | None, kind: str = "") -> str:
    """A cell of a table: a number and its kind, such as "0.25 upper bound"; "-" for None."""
    return "-" if x is None else f"{number(x)} {kind.replace('_', ' ')}".strip()


def duration(seconds: float) -> str:
    """A length of time in its largest unit, such as 90 minutes as "1.5 hours"."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= size or unit == "second":
            break
    text = number(seconds / size)
    return f"{text} {unit}{'' if text == '1' else 's'}"
