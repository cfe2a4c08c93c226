"""Figures of the page about a reduction. Each shows the kind and the scope of its numbers."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from longstate.compress import RateCurve, ReducedLayer, SizeCurve
from longstate.memory import KINDS
from longstate.reports._figure import COLOURS, Labels, draw, legend, log_axis
from longstate.reports._forecast_memory import short
from longstate.reports._markup import Markup

MOST_LAYERS = 12  # whose spectra are drawn
_FAINTEST = 1e-6  # end of the axis, as a share of the largest value
_DASHES = (0, (2, 2))


def kept_units(row: ReducedLayer) -> int:
    """How many units of the spectrum are kept."""
    return round(len(row.spectrum) * row.after / row.before)


def spectrum_figure(row: ReducedLayer) -> Markup:
    """What each unit of one layer adds to its output, and where it was cut."""
    values = np.array(row.spectrum)
    top = max(float(values.max()), 1e-300)
    cut, at = kept_units(row), np.arange(1, len(values) + 1)

    def paint(ax: Axes) -> None:
        shown = values.clip(min=top * _FAINTEST / 10)
        for part, colour, label in (
            (slice(None, cut), COLOURS["model"], "kept"),
            (slice(cut, None), COLOURS["muted"], "left out"),
        ):
            ax.plot(at[part], shown[part], ".", color=colour, label=label, markersize=4)
        ax.axvline(cut + 0.5, color=COLOURS["ridge"], linewidth=0.9, linestyle=_DASHES)
        ax.set(yscale="log", xlabel="unit of the state", ylabel="share of the output")
        low = min(float(values[values > top * _FAINTEST].min(initial=top)), top / 2)
        ax.set_ylim(low / 1.5, top * 1.5)
        log_axis(ax.yaxis)
        legend(ax, 2)

    linear = row.measured_kind == "certified"
    what = (
        "Hankel singular values, all channels together, as a share of their root sum of squares."
        if linear
        else "What each column of the state adds to the layer's output on this data."
    )
    scope = "All inputs" if linear else "This data"
    return draw(
        f"{short(row.layer)}: {row.before} to {row.after}",
        f"Dots: the share of each unit of the state of {row.layer}, with a line at the cut.",
        "exact" if linear else "estimate",
        f"{scope}. {what} The line is the cut.",
        paint,
        2.1,
    )


def errors_figure(rows: Sequence[ReducedLayer]) -> Markup:
    """The error of each layer, inside its bounds where there are any."""

    def paint(ax: Axes) -> None:
        seen: set[str] = set()
        for i, row in enumerate(rows):
            y = len(rows) - i
            if row.kind == "upper_bound" and row.predicted and row.least:
                ax.plot(
                    [row.least, row.predicted], [y, y], color=COLOURS["muted"], linewidth=5,
                    alpha=0.35, solid_capstyle="butt", label=_once(seen, "between bounds"),
                )  # fmt: skip
            elif row.predicted:
                ax.plot(row.predicted, y, "|", color=COLOURS["ridge"], markersize=11,
                        label=_once(seen, "predicted"))  # fmt: skip
            if row.measured:
                ax.plot(row.measured, y, "o", color=COLOURS["model"], markersize=4,
                        label=_once(seen, "measured"))  # fmt: skip
        ax.set_yticks(range(len(rows), 0, -1), [short(row.layer) for row in rows])
        ax.set(xscale="log", xlabel="error, share of the layer's own size")
        ax.set_ylim(0.5, len(rows) + 0.5)
        ax.grid(axis="y", visible=False)
        log_axis(ax.xaxis)
        legend(ax, 3)

    return draw(
        "Error of each layer",
        "One strip for each layer: the measured error as a dot, and its bounds as a bar.",
        max((r.measured_kind for r in rows), key=list(KINDS).index),  # the weakest
        "Of linear layers, for all inputs: the bar is from the least error that any layer of this "
        "size has to the bound of the truncation, and the error must be inside. Of selective "
        "layers, on this data: no such bound exists.",
        paint,
        max(1.7, min(0.9 + 0.3 * len(rows), 9.0)),
    )


def sizes_figure(curve: SizeCurve, metric: str, size: int, value: float) -> Markup:
    """The metric against the bytes of the state, and the model that was written."""

    def paint(ax: Axes) -> None:
        ax.plot(
            [p.bytes for p in curve.points], [p.metric for p in curve.points], marker="o",
            markersize=3.5, color=COLOURS["model"], label="equal shares",
        )  # fmt: skip
        ax.plot(size, value, "*", color=COLOURS["ridge"], markersize=10, label="this model")
        ax.axhline(curve.points[0].metric, color=COLOURS["muted"], linewidth=0.8, linestyle=_DASHES)
        ax.set(xscale="log", xlabel="bytes of the state of a sequence", ylabel=metric)
        log_axis(ax.xaxis)
        ax.yaxis.set_major_formatter(Labels())
        legend(ax, 2)

    return draw(
        "Size of the state and the task",
        f"Line chart of the {metric} against the bytes of the state.",
        "exact",
        "This data. Every layer keeps the same share, without refinement and healing; the star is "
        "the model that was written, with both where they were asked for. The dashed line is the "
        "whole model.",
        paint,
    )


def bits_figure(curve: RateCurve, metric: str) -> Markup:
    """The metric against the bits of a parked state of the smaller model."""

    def paint(ax: Axes) -> None:
        values = [p.metric for p in curve.points]
        for name, colour, bits in (
            ("fixed lengths", "model", [p.bits for p in curve.points]),
            ("entropy coder", "seasonal", [p.coded for p in curve.points]),
            ("Shannon", "last", [p.shannon for p in curve.points]),
        ):
            ax.plot([max(b or 0.0, 1.0) for b in bits], values, marker="o", markersize=3,
                    color=COLOURS[colour], label=name)  # fmt: skip
        for p in curve.plain:
            ax.plot(p.bits, p.metric, "x", color=COLOURS["ridge"], markersize=5)
            ax.annotate(p.codec, (p.bits, p.metric), xytext=(3, 3), textcoords="offset points",
                        color=COLOURS["ridge"], fontsize=8)  # fmt: skip
        ax.axhline(curve.exact, color=COLOURS["muted"], linewidth=0.8, linestyle=_DASHES)
        ax.set(xscale="log", xlabel="bits of the parked state of a sequence", ylabel=metric)
        log_axis(ax.xaxis)
        ax.yaxis.set_major_formatter(Labels())
        legend(ax, 3)

    return draw(
        "Bits of a parked state and the task",
        f"Lines of the {metric} after a state was parked, against its bits.",
        "estimate",
        "This data, the smaller model: what comes after the middle of each stretch, from states "
        "parked there. Shannon: the rate of a Gaussian state with the same covariance. Crosses: "
        "every number rounded alike. The dashed line is the state as it is.",
        paint,
    )


def _once(seen: set[str], label: str) -> str:
    """The label, for the first of several marks that share it."""
    if label in seen:
        return "_"
    seen.add(label)
    return label
