"""Figures of results, with the kind of the numbers in the title."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from longstate.memory._result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(
    result: Result, title: str, x: str, y: str, paint: Callable[[Any], None], *, wide: bool = False
) -> "Figure":
    """A figure with one pair of axes; kind and scope are below the title."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0 if wide else 5.5, 3.6), layout="constrained")
    ax = figure.add_subplot()
    paint(ax)
    ax.set_title(f"{title}\n[{result.kind.replace('_', ' ')}; {result.scope}]", fontsize=10)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    return figure
