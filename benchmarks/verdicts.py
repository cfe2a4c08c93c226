"""How figures of results become the verdict on a claim: rules, checks and verdicts.

A claim is a few checks. A check is a rule about one, two or three figures, each a cell of a table
in `results/`. Nothing here contains a figure.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from tables import Result, Spread, spread

SOLVED, FAILED, ALIKE, ROUNDING, MUCH = 0.99, 0.5, 0.9, 1e-12, 1000.0
FEWEST_SEEDS = 3


class Rule(NamedTuple):
    """Attributes:
    name: of the rule, as on the page.
    meaning: a sentence for the page.
    holds: of the figures.
    """

    name: str
    meaning: str
    holds: Callable[..., bool]


HIGHER = Rule(
    "higher",
    "The first figure is above the second, and their spreads do not overlap.",
    lambda a, b: a.low > b.high,
)
LOWER = Rule(
    "lower",
    "The first figure is below the second, and their spreads do not overlap.",
    lambda a, b: a.high < b.low,
)
KEPT = Rule(
    "kept",
    "An error does not grow: the change, with its spread, includes zero or is below it.",
    lambda change: change.low <= 0,
)
SOLVES = Rule(
    "solved",
    f"The mean accuracy is at least {SOLVED}.",
    lambda a: a.middle >= SOLVED,
)
FAILS = Rule(
    "fails",
    f"The mean accuracy covers less than {FAILED:.0%} of the way from chance to perfect.",
    lambda a, chance: (a.middle - chance.middle) / (1 - chance.middle) < FAILED,
)
AT_CHANCE = Rule(
    "at chance",
    f"The mean accuracy covers less than {1 - ALIKE:.0%} of the way from chance to perfect.",
    lambda a, chance: (a.middle - chance.middle) / (1 - chance.middle) < 1 - ALIKE,
)
AS_GOOD = Rule(
    "as good",
    f"The first mean is at least {ALIKE:.0%} of the second.",
    lambda a, b: a.middle >= ALIKE * b.middle,
)
SILENT = Rule(
    "no better than silence",
    f"The error is at least {ALIKE:.0%} of that of an output of zero.",
    lambda error: error.middle >= ALIKE,
)
CONSTANT = Rule(
    "constant",
    f"Neither mean is below {ALIKE:.0%} of the other.",
    lambda a, b: min(a.middle, b.middle) >= ALIKE * max(a.middle, b.middle),
)
TIMES = Rule(
    "far larger",
    f"The first figure is at least {MUCH:,.0f} times the second.",
    lambda a, b: a.low >= MUCH * b.high,
)
EXACT = Rule(
    "exact",
    f"The relative error is at most {ROUNDING:g}, the rounding of float64 over many terms.",
    lambda a: a.high <= ROUNDING,
)
RULES = (HIGHER, LOWER, KEPT, SOLVES, FAILS, AT_CHANCE, AS_GOOD, SILENT, CONSTANT, TIMES, EXACT)


class Found(NamedTuple):
    """Attributes:
    cell: as it stands in the file.
    spread: what it says.
    seeds: how many; None where chance plays no part.
    result: the file.
    """

    cell: str
    spread: Spread
    seeds: int | None
    result: Result

    @property
    def enough(self) -> bool:
        """Whether there are enough seeds, where chance plays a part."""
        return self.seeds is None or self.seeds >= FEWEST_SEEDS


@dataclass(frozen=True)
class Figure:
    """A cell of a table.

    Args:
        name: what it is of, in words.
        studies: names of results, separated by `|`; the first with enough seeds counts.
        table: the heading above it; "" is the first table of a file without headings.
        row: the first cell of its row.
        column: its column.
        also: other cells of the row, by column.
        drawn: False if chance plays no part in the figure, so that it needs no seeds.
    """

    name: str
    studies: str
    table: str
    row: str
    column: str
    also: dict[str, str] = field(default_factory=dict)
    drawn: bool = True

    def find(self, results: dict[str, Result]) -> Found | None:
        """The figure; None if no result has it.

        Raises:
            ValueError: the cell is no figure, or the table does not say over how many seeds it is.
        """
        read = [self._of(results[s]) for s in self.studies.split("|") if s in results]
        found = [f for f in read if f is not None]
        return next((f for f in found if f.enough), found[0] if found else None)

    def _of(self, result: Result) -> Found | None:
        """The figure of one result."""
        table = result.tables.get(self.table)
        row = None if table is None else table.row(first=self.row, **self.also)
        if row is None or not row.get(self.column):
            return None
        seeds = result.seeds(row) if self.drawn else None
        if self.drawn and seeds is None:
            raise ValueError(f"{result.path.name} does not say how many seeds {self.row} has")
        return Found(row[self.column], spread(row[self.column]), seeds, result)


@dataclass(frozen=True)
class Check:
    """A part of a claim that figures decide.

    Args:
        words: what must be true, a sentence without figures.
        rule: one of `RULES`.
        figures: in the order of the rule.
    """

    words: str
    rule: Rule
    figures: tuple[Figure, ...]

    def found(self, results: dict[str, Result]) -> list[Found | None]:
        return [figure.find(results) for figure in self.figures]

    def holds(self, results: dict[str, Result]) -> bool | None:
        """None: not measured yet, or with too few seeds."""
        found = [f for f in self.found(results) if f is not None]
        if len(found) < len(self.figures) or not all(f.enough for f in found):
            return None
        return bool(self.rule.holds(*(f.spread for f in found)))


def verdict(outcomes: list[bool | None]) -> str:
    """Of the outcomes of all checks of a claim."""
    known = [outcome for outcome in outcomes if outcome is not None]
    if not known:
        return "not measured yet"
    if all(known):
        said = "held"
    else:
        said = "held in part" if any(known) else "did not hold"
    missing = len(outcomes) - len(known)
    return f"{said}; {missing} of {len(outcomes)} checks not measured yet" if missing else said
