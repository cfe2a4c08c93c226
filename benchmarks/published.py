"""Ours beside the best of the published scores, at the same size of state, over seeds."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

PUBLISHED = {
    "last": "LAST",
    "aire": "AIRE-Prune",
    "ghost": "GHOST's score",
    "magnitude": "magnitude",
    "random": "random",
}
"""Methods of `longstate.reduce` that are scores of others, or a simple choice for comparison."""

NAMES = PUBLISHED | {"auto": "ours", "energy": "ours, single columns"}


class Comparison(NamedTuple):
    """Attributes:
    best: the published method with the lowest mean cost.
    gap: its cost less ours, mean of the seeds; above 0 where ours is better.
    error: standard error of that difference, which is taken within each seed.
    """

    best: str
    gap: float
    error: float

    @property
    def as_good(self) -> bool:
        """Whether ours is at least as good within one standard error."""
        return self.gap >= -self.error

    def cells(self, digits: int) -> list[str]:
        """Of a table: the method, the difference, and a verdict."""
        verdict = "yes" if self.as_good else "**no**"
        difference = f"{self.gap:+.{digits}f} ± {self.error:.{digits}f}"
        return [NAMES[self.best], difference, verdict]


def compare(costs: dict[str, Sequence[float]]) -> Comparison:
    """Compare "auto" with the best published method.

    Args:
        costs: for each method the cost of every seed, in one order. Less is better.
    """
    best = min((m for m in costs if m in PUBLISHED), key=lambda m: statistics.mean(costs[m]))
    gaps = [theirs - ours for theirs, ours in zip(costs[best], costs["auto"], strict=True)]
    return Comparison(best, statistics.mean(gaps), error_of_mean(gaps))


def error_of_mean(values: Sequence[float]) -> float:
    """Standard error of the mean."""
    return float(statistics.stdev(values) / len(values) ** 0.5)
