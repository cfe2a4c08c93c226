"""The forecast of the future in a report: a table and a picture for each target."""

from longstate._numbers import number
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
    parts = [element("h2", "The forecast"), element("p", _sentence(first, bands, interval))]
    for one in shown:
        parts.append(_rows(one, interval, named=len(shown) > 1))
    left = len(ahead.single) - len(shown)
    more = [f"{left:,} further columns are not drawn."] if left else []
    if horizon > ROWS:
        more.append(f"The tables have {ROWS} of {horizon:,} rows.")
    parts += [element("p", " ".join(more), class_="note")] if more else []
    drawn = (figures.example(one, None, interval) for one in shown)
    return element("section", *parts, element("div", *drawn, class_="figures"))


def _sentence(first: Example, bands: tuple[Band, ...], interval: float | None) -> str:
    horizon = len(first.truth)
    start, end = (short_time(first.times[i], interval) for i in (-horizon, -1))
    said = f"{steps(horizon, interval)}, from {start} to {end}, after all rows of the data."
    if not bands:
        return said
    return (
        f"{said} In the test part {100 * bands[0].observed:.0f} % of the true values were in the "
        f"{100 * bands[0].level:.3g} % band."
    )


def _rows(one: Example, interval: float | None, *, named: bool) -> Markup:
    """Some rows of the forecast, the first and the last among them, and the widest band."""
    horizon, levels = len(one.truth), sorted(one.quantiles)
    at = sorted({round(i * (horizon - 1) / (ROWS - 1)) for i in range(ROWS)})
    head = [one.target if named else "time", "forecast"]
    wide = levels[:: len(levels) - 1] if len(levels) > 1 else []
    head += [f"quantile {level:g}" for level in wide]
    point = one.forecasts["model"]
    rows = [
        (
            short_time(one.times[i - horizon], interval),
            number(point[i]),
            *(number(one.quantiles[level][i]) for level in wide),
        )
        for i in at
    ]
    return table(tuple(head), rows)
