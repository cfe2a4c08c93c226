"""The plan of a screen and its outcome, as values."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from longstate.errors import InputError, expect_whole
from longstate.memory import Bits
from longstate.tasks._candidates import Candidate, candidate, check
from longstate.tasks._settings import Settings
from longstate.tasks._tasks import task

DEFAULT = (
    "recall", "selective_copy", "induction", "copy", "parity", "flip_flop", "counting", "dyck",
    "a5", "anbn", "delay", "icl_linear",
)  # fmt: skip
"""The tasks of the default screen."""
RATES = (1e-3, 3e-3, 1e-2)


@dataclass(frozen=True)
class Plan:
    """What to run.

    Args:
        layers: names; see `longstate tasks run --help`.
        tasks: names.
        seeds: number of trainings with the best rate.
        rates: learning rates of the sweep.
        settings: of each run.

    Raises:
        InputError: a name is unknown, a layer breaks the contract, or a number is out of range.
    """

    layers: Sequence[str]
    tasks: Sequence[str] = DEFAULT
    seeds: int = 3
    rates: Sequence[float] = RATES
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if not self.layers or not self.tasks or not self.rates:
            raise InputError("a screen needs at least one layer, one task and one learning rate")
        expect_whole("seeds", self.seeds)
        for rate in self.rates:
            if not 0 < rate < 1:
                raise InputError(f"a learning rate must be above 0 and below 1; got {rate!r}")
        for name in self.tasks:
            task(name)

    def candidates(self) -> list[Candidate]:
        """The layers, checked."""
        found = [candidate(name) for name in dict.fromkeys(self.layers)]
        for one in found:
            check(one, self.settings.width)
        return found


@dataclass(frozen=True)
class Cell:
    """The outcome of one layer on one task.

    Args:
        task: name.
        layer: name.
        rate: the learning rate that was best.
        accuracy: on the training length, the mean over the seeds.
        spread: the difference of the best and the worst seed.
        longer: the mean accuracy at each longer length.
        each: the accuracy of every seed, at each length.
        rows: the share of rows without an error, at the training length; None for numbers.
        chance: accuracy without memory.
        demand: bits that the task needs.
        held: bits that the best seed's states held at least, an estimate from its accuracy.
        state_bytes: of one row, after the training length.
        parameters: of the model.
        seconds: of one run, on average.
        cut: runs that were ended by the time limit.
        runs: number of seeds.
    """

    task: str
    layer: str
    rate: float
    accuracy: float
    spread: float
    longer: dict[int, float]
    each: dict[int, list[float]]
    rows: float | None
    chance: float
    demand: Bits
    held: Bits | None
    state_bytes: int
    parameters: int
    seconds: float
    cut: int
    runs: int

    @property
    def score(self) -> float:
        """Accuracy between chance, 0, and perfect, 1."""
        room = 1 - self.chance
        return max(0.0, (self.accuracy - self.chance) / room) if room > 0 else 1.0


@dataclass(frozen=True)
class Screen:
    """All outcomes so far.

    Args:
        plan: what was asked for.
        cells: one for each layer and task of which at least one run has ended.
        errors: what failed, in words.
        complete: whether all runs have ended.
        facts: machine and software.
    """

    plan: Plan
    cells: list[Cell]
    errors: list[str]
    complete: bool
    facts: dict[str, str]

    def ranking(self) -> list[tuple[str, float, int]]:
        """Layers, their mean score and the number of tasks, best first."""
        found = []
        for layer in dict.fromkeys(cell.layer for cell in self.cells):
            scores = [cell.score for cell in self.cells if cell.layer == layer]
            found.append((layer, statistics.fmean(scores), len(scores)))
        return sorted(found, key=lambda row: -row[1])

    def to_json(self) -> str:
        """All outcomes as JSON."""
        cells = []
        for cell in self.cells:
            kept = None if cell.held is None else cell.held.to_dict()
            values = {**vars(cell), "demand": cell.demand.to_dict(), "held": kept}
            cells.append({**values, "score": cell.score})
        plan = {**vars(self.plan), "settings": vars(self.plan.settings)}
        whole = {
            "plan": plan, "complete": self.complete, "errors": self.errors, "facts": self.facts,
            "ranking": self.ranking(), "cells": cells,
        }  # fmt: skip
        return json.dumps(whole, indent=1)
