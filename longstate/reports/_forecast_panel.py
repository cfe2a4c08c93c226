"""The series of a panel in a forecast report: their errors, and a small drawing of some."""

import numpy as np
from matplotlib.axes import Axes

from longstate._numbers import score
from longstate.reports._figure import COLOURS, axes, draw, legend, log_axis, tiles, to_svg
from longstate.reports._forecast_figures import date_axis, fill_bands, line, times_of
from longstate.reports._forecast_sections import listed
from longstate.reports._markup import Markup, element
from longstate.train._ahead import Ahead
from longstate.train._evaluation import Drawn, Example, ForecastEvaluation

FEWEST = 20  # series for a histogram
WIDTH, HEIGHT = 2.1, 1.35  # of a small drawing, inches


def panel(e: ForecastEvaluation, ahead: Ahead | None) -> Markup | None:
    """Errors by series; None for a single series."""
    if not e.series:
        return None
    parts = listed("Errors by series", e.by_series() or "", e.series, "series")
    if len(e.series) >= FEWEST:
        parts.append(element("div", distribution(e), class_="figures"))
    return element("section", *parts, *_grids(e, ahead))


def distribution(e: ForecastEvaluation) -> Markup:
    """Histogram of the errors of the series, of the model and of the best simple method."""
    own = np.array([one.mse for one in e.series])
    theirs = np.array([one.best_mse for one in e.series])
    both = np.concatenate([own, theirs])
    positive = both[both > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
    edges = np.geomspace(0.95 * low, 1.05 * high, 25)

    def paint(ax: Axes) -> None:
        for name, errors in (("model", own), (e.series[0].best, theirs)):
            counts, _ = np.histogram(np.clip(errors, edges[0], edges[-1]), edges)
            ax.stairs(counts, edges, label=name, **line(name))
        ax.set(xscale="log", xlim=(edges[0], edges[-1]), xlabel="squared error of a series")
        ax.set_ylabel("series")
        ax.set_ylim(bottom=0)
        log_axis(ax.xaxis)
        legend(ax)

    return draw(
        "How the errors are spread",
        "Histogram of the squared errors of the series on a logarithmic axis.",
        "estimate",
        f"{len(e.series):,} series, each in units of its own standard deviation: 1 is the error of "
        "its mean over the training part.",
        paint,
    )


def _grids(e: ForecastEvaluation, ahead: Ahead | None) -> list[Markup]:
    """Small drawings: of all series if they are few, otherwise by the reason for their choice."""
    if len(e.drawn) == len(e.series):
        groups = {f"All {len(e.series):,} series, the largest errors first": e.drawn}
    else:
        titles = {
            "largest error": "The largest errors",
            "random": "Random series between",
            "smallest error": "The smallest errors",
        }
        groups = {
            title: tuple(one for one in e.drawn if one.why == why) for why, title in titles.items()
        }
    errors = {one.name: one.mse for one in e.series}
    known = {} if ahead is None else ahead.windows
    said = (
        "Thin: the data. Thick: the forecast of the last test window, and after the dashed line "
        "that of the future, with its bands. The number is the squared error on all test windows."
        if known
        else "Thin: the data. Thick: the forecast of the last test window. The number is the "
        "squared error on all test windows."
    )
    return [
        tiles(
            title,
            [
                (f"{one.series}: {score(errors[one.series])}", tile(one, known.get(one.series)))
                for one in some
            ],
            "estimate",
            said,
        )
        for title, some in groups.items()
        if some
    ]


def tile(one: Drawn, future: tuple[Example, ...] | None) -> Markup:
    """The last test window of a series, and the forecast of its future.

    Args:
        one: the series.
        future: windows of the forecast of its rows to come, the first target first; None if there
            is none.
    """
    past = one.example
    at, dates = times_of(past.times)
    w = len(past.past)
    with axes(WIDTH, HEIGHT) as ax:
        ax.plot(at, [*past.past, *past.truth], color=COLOURS["ink"], linewidth=0.8)
        ax.plot(at[w:], past.forecasts["model"], **_thick(at[w:]))
        if future:
            _draw_future(ax, future[0])
        ax.margins(x=0.02)
        ax.tick_params(labelsize=7.5)
        ax.locator_params(axis="y", nbins=3)
        if dates:
            date_axis(ax, 3)
        else:
            ax.locator_params(axis="x", nbins=3)
        ax.xaxis.get_offset_text().set_visible(False)
        figure = ax.figure
        return to_svg(figure, f"Line chart of {past.target}: data and forecasts.")  # type: ignore[arg-type]


def _draw_future(ax: Axes, one: Example) -> None:
    at, _ = times_of(one.times)
    w = len(one.past)
    ax.plot(at[:w], one.past, color=COLOURS["ink"], linewidth=0.8)
    fill_bands(ax, at[w:], one)
    ax.plot(at[w:], one.forecasts["model"], **_thick(at[w:]))
    ax.axvline(at[w - 1], color=COLOURS["muted"], linewidth=0.7, linestyle=(0, (2, 2)))


def _thick(at: np.ndarray) -> dict:
    return {**line("model"), "linewidth": 1.5, "marker": "o" if len(at) == 1 else None}
