"""Figures of the evaluation of a classifier."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from longstate.reports._figure import COLOURS, draw, legend
from longstate.reports._markup import Markup
from longstate.train import ClassEvaluation
from longstate.train._series_evaluation import ConfusedCase

_NAMED = 12  # classes whose names fit an axis
_CHANNELS = 4  # of a shown case


def confusion(found: ClassEvaluation) -> Markup:
    """Shares of each true class by predicted class, with the numbers of cases."""
    counts = np.array(found.confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    k = len(found.classes)

    def paint(ax: Axes) -> None:
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = COLOURS["model" if i == j else "seasonal"]
            area = ((j - 0.5, i - 0.5), 1, 1)
            ax.add_patch(Rectangle(*area, color=colour, alpha=0.15 + 0.65 * shares[i, j], lw=0))
            if k <= _NAMED:
                ax.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", fontsize=8)
        ax.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5))
        if k <= _NAMED:
            names = [name if len(name) <= 9 else name[:8] + "…" for name in found.classes]
            turned = 90 if max(map(len, names)) > 4 else 0
            ax.set_xticks(range(k), names, rotation=turned)
            ax.set_yticks(range(k), names)
        ax.grid(False)
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class")

    return draw(
        "Which classes are confused",
        "Matrix of the numbers of cases of each true class by predicted class.",
        "estimate",
        f"{found.cases} {found.where}. Each row is a true class; full colour is all of it.",
        paint,
        height=3.2,
    )


def along(found: ClassEvaluation) -> Markup:
    """Accuracy against the share of the series that was read."""
    share = [100 * s.share for s in found.seen]

    def paint(ax: Axes) -> None:
        ax.plot(share, [100 * s.accuracy for s in found.seen], "o-", color=COLOURS["model"],
                markersize=3.5, linewidth=2, label="network")  # fmt: skip
        ax.plot(share, [100 * s.confidence for s in found.seen], color=COLOURS["muted"],
                linestyle=(0, (4, 1.5)), label="its confidence")  # fmt: skip
        ax.axhline(100 * found.accuracy, color=COLOURS["ridge"], linestyle=(0, (4, 3)),
                   label="outcome, whole")  # fmt: skip
        ax.set(xlim=(0, 102), ylim=(0, 103), xlabel="share of the series that was read, %",
               ylabel="%")  # fmt: skip
        legend(ax, 3)

    return draw(
        "Accuracy against how much was read",
        "Line chart of the network's accuracy and confidence against the share of each series.",
        "estimate",
        "The network decides after every sample. Where its confidence is near its accuracy, the "
        "probabilities can be taken as they are.",
        paint,
    )


def calibration(found: ClassEvaluation) -> Markup:
    """Accuracy of cases by the confidence of their outcome."""

    def paint(ax: Axes) -> None:
        ax.plot([0, 100], [0, 100], color=COLOURS["muted"], linewidth=0.8, label="calibrated")
        most = max(b.cases for b in found.bins)
        ax.scatter(
            [100 * b.confidence for b in found.bins], [100 * b.accuracy for b in found.bins],
            s=[8 + 60 * b.cases / most for b in found.bins], color=COLOURS["model"], zorder=4,
            label="outcome",
        )  # fmt: skip
        ax.set(xlim=(0, 102), ylim=(-2, 103), xlabel="confidence, %", ylabel="accuracy, %")
        legend(ax, 3)

    return draw(
        "Calibration",
        "Chart of the accuracy of cases against the confidence of the outcome.",
        "estimate",
        f"Larger dots are more cases. Below the line: too sure. The mean distance is "
        f"{100 * found.calibration_error:.1f} points.",
        paint,
    )


def confused(case: ConfusedCase) -> Markup:
    """One wrong case."""
    shown = case.values[:_CHANNELS]

    def paint(ax: Axes) -> None:
        at = np.linspace(0, case.length - 1, len(shown[0]))
        for i, values in enumerate(shown):
            y = np.array([np.nan if v is None else v for v in values])
            mark = "o" if len(y) < 3 else None
            ax.plot(at, y, color=COLOURS[f"layer{i}"], linewidth=1, label=f"channel {i}",
                    marker=mark)  # fmt: skip
        ax.set_xlabel("sample")
        if len(shown) > 1:
            legend(ax)

    more = len(case.values) - len(shown)
    rest = f" {more} more channels are not shown." if more else ""
    return draw(
        f"{case.name}: {case.predicted} instead of {case.truth}",
        f"Line chart of a case of class {case.truth}.",
        "estimate",
        f"Probability of {case.predicted}: {100 * case.probability:.0f} %.{rest}",
        paint,
    )
