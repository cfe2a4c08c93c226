"""Figures of a forecast evaluation and of the training."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import MaxNLocator

from longstate.reports._figure import COLOURS, draw, legend
from longstate.reports._markup import Markup, element
from longstate.reports._units import short_time, steps
from longstate.train._evaluation import Example, ForecastEvaluation
from longstate.train._history import TrainingHistory
from longstate.train._residuals import Autocorrelation

LINES: dict[str, dict[str, Any]] = {
    "model": {"color": COLOURS["model"], "linewidth": 2.0, "zorder": 4},
    # Dashes over the line: where the two agree, both are visible.
    "ridge": {"color": COLOURS["ridge"], "linestyle": (0, (4, 3)), "zorder": 5},
    "seasonal naive": {"color": COLOURS["seasonal"], "linestyle": (0, (2.5, 1.5))},
    "last value": {"color": COLOURS["last"], "linestyle": (0, (1, 1.3))},
    "network": {"color": COLOURS["model"], "linestyle": (0, (1, 2)), "zorder": 3},
    "line": {"color": COLOURS["muted"], "linestyle": (0, (6, 1.5))},
    "smoothing": {"color": COLOURS["muted"], "linestyle": (0, (3, 1, 1, 1))},
    "map": {"color": COLOURS["seasonal"], "linestyle": (0, (8, 2))},
}
MOST = 4  # pictures of one kind
_OTHER: dict[str, Any] = {"color": COLOURS["muted"]}


def line(method: str) -> dict[str, Any]:
    """The line style of a method, the same in all figures; not only the colour differs."""
    return LINES.get(method, _OTHER)


def best_baseline(evaluation: ForecastEvaluation) -> str | None:
    """The simple method with the least error, other than the one that the model is."""
    others = evaluation.rivals
    return min(others, key=lambda s: s.mse).method if others else None


def error_by_step(evaluation: ForecastEvaluation, interval: float | None) -> Markup:
    largest = {s.method: max(s.mse_by_step) for s in evaluation.scores}
    shown = (largest["model"], largest.get(best_baseline(evaluation) or "", 0.0))
    # Cut off methods that are much worse, which would compress the others.
    top = min(max(largest.values()), 2.5 * max(shown))
    cut = [method for method, error in largest.items() if error > top]

    def paint(ax: Axes) -> None:
        for score in evaluation.scores:
            at = np.arange(1, len(score.mse_by_step) + 1)
            mark = "o" if len(at) == 1 else None
            ax.plot(at, score.mse_by_step, label=score.method, marker=mark, **line(score.method))
        ax.set_ylim(0, 1.05 * top or 1.0)
        ax.set_xlim(1, max(2, evaluation.horizon))
        ax.set_xlabel("steps ahead")
        ax.set_ylabel("mean squared error, scaled")
        legend(ax)

    return draw(
        "Error by distance into the future",
        "Line chart of the squared error of the model and of the simple methods against the number "
        "of steps ahead.",
        "estimate",
        f"Mean over {evaluation.windows:,} test windows, up to "
        f"{steps(evaluation.horizon, interval)} ahead. 1 is the variance of "
        f"{'each series' if evaluation.series else 'the target'} in the training part."
        + (f" Cut off at the top: {', '.join(cut)}." if cut else ""),
        paint,
    )


def calibration(evaluation: ForecastEvaluation) -> Markup:
    asked = [q.level for q in evaluation.quantiles]
    found = [q.observed for q in evaluation.quantiles]

    def paint(ax: Axes) -> None:
        ax.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=0.8, label="calibrated")
        low = [min(q.observed_by_step) for q in evaluation.quantiles]
        high = [max(q.observed_by_step) for q in evaluation.quantiles]
        ax.vlines(asked, low, high, color=COLOURS["model"], linewidth=4, alpha=0.25,
                  label="range over steps ahead")  # fmt: skip
        ax.plot(asked, found, "o", color=COLOURS["model"], markersize=4, label="model")
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="level of the quantile",
               ylabel="share of true values at or below it")  # fmt: skip
        legend(ax, 3)

    return draw(
        "Calibration of the quantiles",
        "Chart of the share of true values at or below each forecast quantile against its level.",
        "estimate",
        "Dots above the line: the quantile is too high. Below: too low.",
        paint,
    )


def residuals(one: Autocorrelation) -> Markup:
    """Autocorrelation of errors at each lag, with its bound."""
    lags = np.arange(1, len(one.values) + 1)

    def paint(ax: Axes) -> None:
        bound = np.asarray(one.bounds)
        ax.fill_between(
            lags, -bound, bound, color=COLOURS["muted"], alpha=0.18, linewidth=0,
            label="95 % of white noise", step="mid",
        )  # fmt: skip
        ax.vlines(lags, 0, one.values, color=COLOURS["model"], linewidth=1.6)
        ax.axhline(0, color=COLOURS["muted"], linewidth=0.6)
        ax.set_xlim(0.5, len(lags) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        ax.set_xlabel("lag, steps")
        ax.set_ylabel("autocorrelation")
        legend(ax)

    return draw(
        f"Errors of {one.target} and later ones",
        f"Bar chart of the autocorrelation of the errors of {one.target} against the lag.",
        "estimate",
        f"Lags 1 to {len(lags):,}; {len(one.outside):,} are outside the bound.",
        paint,
    )


def example(one: Example, against: str | None) -> Markup:
    """One window: past, true values, the model with its quantiles, the best simple method.

    Args:
        one: the window; one without true values is of the future.
        against: a method beside the model.
    """
    at, dates = times_of(one.times)
    w = len(one.past)
    ahead = at[w:]
    known = not np.isnan(one.truth).all()

    def paint(ax: Axes) -> None:
        ax.plot(at[:w], one.past, color=COLOURS["ink"], linewidth=0.9)
        fill_bands(ax, ahead, one)
        # The line of the true values starts at the last known value, so that it has no gap.
        joined = np.r_[one.past[-1:], one.truth]
        ax.plot(at[w - 1 :] if w else ahead, joined, color=COLOURS["ink"], linewidth=0.9,
                label="truth" if known else "data")  # fmt: skip
        for method in ("model", against):
            if method in one.forecasts:
                mark = "o" if len(ahead) == 1 else None
                ax.plot(ahead, one.forecasts[method], label=method, marker=mark, **line(method))
        if w:
            ax.axvline(at[w - 1], color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (2, 2)))
        ax.margins(x=0.01)
        if dates:
            date_axis(ax)
        legend(ax, 5)

    levels = sorted(one.quantiles)
    bands = f" Bands: quantiles {', '.join(f'{q:g}' for q in levels)}." if len(levels) > 1 else ""
    first = one.times[w] if w < len(one.times) else ""
    what = "One test window" if known else "The future"
    return draw(
        f"{one.target}, from {short_time(first)}",
        f"Line chart of {one.target}: the "
        + ("truth, the model's forecast and the best simple method." if known
           else "data and the forecast of the rows after it."),
        "estimate",
        f"{what} in the data's own units; left of the dashed line is known.{bands}",
        paint,
    )  # fmt: skip


def date_axis(ax: Axes, most: int = 7) -> None:
    """At most so many ticks, at round dates."""
    locator = AutoDateLocator(minticks=3, maxticks=7)  # with 6 it finds none for some spans
    ax.xaxis.set_major_locator(locator)
    if most < 7:
        low, high = ax.get_xlim()
        inside = [x for x in ax.get_xticks() if low <= x <= high]
        ax.set_xticks(inside[:: -(-len(inside) // most) or 1])
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def fill_bands(ax: Axes, ahead: np.ndarray, one: Example) -> None:
    levels = sorted(one.quantiles)
    for i in range(len(levels) // 2):
        low, high = levels[i], levels[-1 - i]
        ax.fill_between(
            ahead, np.asarray(one.quantiles[low]), np.asarray(one.quantiles[high]),
            color=COLOURS["model"], alpha=0.16, linewidth=0,
            label="bands" if i == 0 else None,
        )  # fmt: skip


def times_of(times: tuple[str, ...]) -> tuple[np.ndarray, bool]:
    """Row numbers, or dates. Numbers first, because NumPy would read row 8000 as a year."""
    try:
        return np.array(times, dtype=np.float64), False
    except ValueError:
        return np.array(times, dtype="datetime64[ms]"), True


def training_section(history: TrainingHistory | None) -> Markup | None:
    """The course of the training; None if it is not known."""
    if history is None or not history.looks:
        return None
    picture = element("div", loss_curve(history), class_="figures")
    return element("section", element("h2", "Training"), picture)


def loss_curve(history: TrainingHistory) -> Markup:
    at = [look.step for look in history.looks]

    def paint(ax: Axes) -> None:
        train = [look.train_loss for look in history.looks]
        validation = [look.validation_loss for look in history.looks]
        ax.plot(at, train, color=COLOURS["muted"], linestyle=(0, (4, 1.5)), label="training")
        ax.plot(at, validation, color=COLOURS["model"], linewidth=1.8, label="validation")
        best = [(s, v) for s, v in zip(at, validation, strict=True) if s == history.best_step]
        ax.plot(
            *zip(*best[-1:], strict=True), "o", color=COLOURS["model"], label="kept"
        ) if best else None
        ax.set_xlabel("optimiser steps")
        ax.set_ylabel("loss")
        legend(ax)

    return draw(
        "Loss while training",
        "Line chart of the training and the validation loss against optimiser steps.",
        "estimate",
        f"Ended: {history.ended}, after {history.seconds:,.0f} s. The training loss is a mean over "
        "batches, with dropout; the validation loss covers its whole part.",
        paint,
    )
