"""Figures of the page about a screen of layers."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from longstate.reports._figure import COLOURS, Labels, draw, legend
from longstate.reports._markup import Markup
from longstate.tasks import Cell, Screen

_COLOURS = ("layer0", "layer1", "layer2", "layer3", "muted")
_STYLES = ("-", "--", ":", "-.")
_MOST = 10  # layers in one picture


def score_map(found: Screen) -> Markup:
    """A disc for each layer and task; its area is the score."""
    layers = [layer for layer, _, _ in found.ranking()]
    tasks = list(dict.fromkeys(c.task for c in found.cells))

    def paint(ax: Axes) -> None:
        for c in found.cells:
            at = tasks.index(c.task), layers.index(c.layer)
            ax.scatter(*at, s=110, facecolor="none", edgecolor=COLOURS["rule"], linewidth=0.8)
            ax.scatter(*at, s=110 * c.score, color=COLOURS["model"], linewidth=0)
        ax.set_xticks(range(len(tasks)), tasks, rotation=60, ha="right")
        ax.set_yticks(range(len(layers)), layers)
        ax.set(xlim=(-0.6, len(tasks) - 0.4), ylim=(len(layers) - 0.4, -0.6))
        ax.grid(False)

    return draw(
        "Scores",
        "A disc for each layer and task; a full one is perfect, an empty one is chance.",
        "estimate",
        "A full disc is perfect, an empty one is chance; at the training length.",
        paint,
        1.6 + 0.24 * len(layers),
    )


def bits_figure(found: Screen) -> Markup:
    """Bits that the task needs, and bits that each state held."""
    cells = [c for c in found.cells if c.held is not None]
    tasks = list(dict.fromkeys(c.task for c in cells))

    def paint(ax: Axes) -> None:
        for i, name in enumerate(tasks):
            some = [c for c in cells if c.task == name]
            needed = some[0].demand.bits
            ax.plot([i - 0.35, i + 0.35], [needed, needed], color=COLOURS["ink"], linewidth=1.4,
                    label="needed" if i == 0 else None)  # fmt: skip
            held = [c.held.bits for c in some if c.held is not None]
            ax.plot([i] * len(held), held, "o", color=COLOURS["model"], markersize=4, alpha=0.7,
                    label="held" if i == 0 else None)  # fmt: skip
        ax.set_xticks(range(len(tasks)), tasks, rotation=60, ha="right")
        ax.set_yscale("symlog", linthresh=1)
        ax.yaxis.set_major_formatter(Labels())
        ax.set(ylabel="bits", xlim=(-0.6, len(tasks) - 0.4), ylim=(-0.1, None))
        legend(ax, 2)

    return draw(
        "Bits needed, and bits that states held",
        "A line at the bits that each task needs, and a dot for each layer at those it held.",
        "estimate",
        "Line: what the task needs. Dots: what the states of each layer held at least, by Fano's "
        "inequality from the accuracy on test rows. The keys of recall are needed too, but not "
        "counted as held.",
        paint,
        3.2,
    )


def length_figure(cells: Sequence[Cell]) -> Markup:
    """Accuracy at the training length and beyond."""
    from longstate.tasks import task

    first = task(cells[0].task).budget.length

    def paint(ax: Axes) -> None:
        for i, c in enumerate(cells[:_MOST]):
            lengths = [first, *c.longer]
            ax.plot(
                range(len(lengths)), [max(-0.2, x) for x in (c.accuracy, *c.longer.values())],
                marker="o", markersize=3, label=c.layer, color=COLOURS[_COLOURS[i % 5]],
                linestyle=_STYLES[i // 5 % 4],
            )  # fmt: skip
        ax.axhline(cells[0].chance, color=COLOURS["muted"], linewidth=0.8, linestyle=":")
        ax.set_xticks(range(1 + len(cells[0].longer)), [str(first), *map(str, cells[0].longer)])
        ax.set(xlabel="length", ylabel="accuracy", ylim=(None, 1.05))
        legend(ax, 4)

    more = f" The {_MOST} best layers." if len(cells) > _MOST else ""
    return draw(
        f"{cells[0].task}: beyond the training length",
        f"Accuracy on {cells[0].task} at {first}, the training length, and at longer ones.",
        "estimate",
        f"Trained at {first}; mean over the seeds. Dotted: chance.{more}",
        paint,
    )
