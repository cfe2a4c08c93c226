"""The forecast of the future in a report: a table and a picture for each target."""

import math
from collections.abc import Sequence

from longstate.reports import _forecast_figures as figures
from longstate.reports._markup import Markup, element, table
from longstate.reports._units import short_time, steps
from longstate.train._ahead import Ahead
from longstate.train._bands import Band
from longstate.train._evaluation import Example

ROWS = 8  # of the table


def future(ahead: Ahead | None, bands: tuple[Band, ...], interval: float | None) -> Markup | None:
    """The forecast of the rows after the data; None where that was not asked for, and for a panel,
    whose drawings have it.

    Args:
        ahead: the forecast. bands: what the test says of its bands.
        interval: seconds between samples, None when unknown.
    """
    if ahead is None or (ahead.windows and not ahead.single):
        return None
    if ahead.lacks is not None:
        said = f"There is no forecast of the rows after the data: {ahead.lacks}."
        return element("section", element("h2", "The forecast"), element("p", said))
    first, shown = ahead.single[0], ahead.single[: figures.MOST]
    horizon = len(first.truth)
    rows = table(*_one_column(first) if len(shown) == 1 else _columns(shown))
    left = len(ahead.single) - len(shown)
    more = [f"The table has {ROWS} of {horizon:,} rows."] if horizon > ROWS else []
    more += [f"{left:,} further columns are not shown."] if left else []
    under = [element("p", " ".join(more), class_="note")] if more else []
    drawn = (figures.example(one, None) for one in shown)
    return element(
        "section",
        element("h2", "The forecast"),
        element("p", _sentence(first, bands, interval)),
        element("div", element("div", rows, *under), *drawn, class_="figures"),
    )


def _sentence(first: Example, bands: tuple[Band, ...], interval: float | None) -> str:
    horizon = len(first.truth)
    start, end = (short_time(first.times[i]) for i in (-horizon, -1))
    said = f"{steps(horizon, interval)}, from {start} to {end}, after all rows of the data."
    if not bands:
        return said
    return (
        f"{said} In the test part {100 * bands[0].observed:.0f} % of the true values were in the "
        f"{100 * bands[0].level:.3g} % band."
    )


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def _one_column(one: Example) -> Table:
    """Times, the forecast and its widest band: names and cells."""
    levels = sorted(one.quantiles)
    wide = levels[:: len(levels) - 1] if len(levels) > 1 else []
    head = ("time", "forecast", *(f"quantile {level:g}" for level in wide))
    columns = [one.forecasts["model"], *(one.quantiles[level] for level in wide)]
    return head, _cells(one.times, [_aligned(columns[0], x) for x in columns])


def _columns(shown: Sequence[Example]) -> Table:
    """Times and the forecast of each column."""
    points = [one.forecasts["model"] for one in shown]
    head = ("time", *(one.target for one in shown))
    return head, _cells(shown[0].times, [_aligned(x, x) for x in points])


def _cells(times: Sequence[str], columns: list[list[str]]) -> list[tuple[str, ...]]:
    """Some rows, the first and the last among them."""
    horizon = len(columns[0])
    at = sorted({round(i * (horizon - 1) / (ROWS - 1)) for i in range(ROWS)})
    return [(short_time(times[i - horizon]), *(x[i] for x in columns)) for i in at]


def _aligned(like: Sequence[float], values: Sequence[float]) -> list[str]:
    """Numbers as text with as many decimals as four digits of the largest of `like` have."""
    largest = max(map(abs, like))
    digits = 3 - math.floor(math.log10(largest)) if largest > 0 else 0
    return [f"{x:,.{min(max(digits, 0), 12)}f}".replace("-", "−") for x in values]
