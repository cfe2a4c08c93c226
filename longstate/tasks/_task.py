"""What every task has: a seeded generator, an oracle, and how much memory it needs.

A task is a map from sequences to answers that can be learned only with memory. Its answers are
    "symbol"    one of `answers` classes at each scored position
    "set"       a set of symbols, such as all that may come next; right only as a whole
    "numbers"   `answers` real numbers

The oracle is a solution by hand: a state and a step, called once for each sample, so it cannot see
the future. It needs no training, and so checks generator and scores. Its accuracy is 1, except in
context, where the first examples do not determine the function.

Chance is what the best guess from the current sample alone reaches. The accuracy of symbols and
sets is the share of scored positions that are right; of numbers it is the share of the variance of
the targets that is explained, R², and can be negative.

Axes: b batch, t time, f features, v answers.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from longstate.errors import expect, expect_whole
from longstate.memory import Bits

PRECISION = 0.01
"""Share of a number's variance that may be wrong where numbers are counted in bits."""
NUMBER_BITS = 0.5 * math.log2(1 / PRECISION)
"""Bits of a Gaussian number at that error, by its rate-distortion function."""


class Batch(NamedTuple):
    """Rows of a task.

    inputs (b, t): symbols, or (b, t, f): numbers.
    targets (b, t): symbols; (b, t, v): bool for sets, numbers otherwise.
    scored (b, t): bool; positions whose answers count.
    """

    inputs: Tensor
    targets: Tensor
    scored: Tensor


@dataclass(frozen=True)
class Budget:
    """What a small model gets on a CPU.

    Args:
        length: training length; the longest if `shortest` is given.
        longer: lengths to test beyond it.
        steps: of training.
        batch: rows of each step.
        shortest: training draws a length from here to `length` for every step; None: always
            `length`.
    """

    length: int
    longer: tuple[int, ...]
    steps: int = 600
    batch: int = 32
    shortest: int | None = None


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A generator with its oracle. Subclasses define the five methods at the end.

    Args:
        name: as on the command line.
        why: a paragraph: what it shows, and where it comes from.
        symbols: number of input symbols; 0 if the inputs are numbers.
        features: numbers of a sample; 0 if the inputs are symbols.
        answers: classes, members of a set, or numbers of an answer.
        answer: "symbol", "set" or "numbers"; see the top of this file.
        items: answers, independent of each other, that the state holds at the same time.
        gaussian: whether answers are numbers that are normal and independent of the current sample.
        chance: accuracy of the best guess without memory, where it is known exactly.
        budget: of training.
    """

    name: str
    why: str
    symbols: int = 0
    features: int = 0
    answers: int
    answer: Literal["symbol", "set", "numbers"] = "symbol"
    items: int = 1
    gaussian: bool = False
    chance: float | None = None
    budget: Budget

    def sample(self, batch: int, length: int, generator: Generator | None = None) -> Batch:
        """Draw rows.

        Args:
            batch: number of rows.
            length: samples of a row.
            generator: of the random numbers; the default one of PyTorch if None.

        Raises:
            InputError: a size is not a whole number, or too small for this task.
        """
        expect_whole("batch", batch)
        expect_whole("length", length)
        self.check(length)
        return self._draw(batch, length, generator or torch.default_generator)

    def solve(self, inputs: Tensor) -> Tensor:
        """The oracle's answers (b, t) or (b, t, v)."""
        state, answers = self._begin(len(inputs)), []
        for x in inputs.unbind(1):
            answer, state = self._step(x, state)
            answers.append(answer)
        return torch.stack(answers, 1)

    def check(self, length: int) -> None:
        """Raise `InputError` if a row cannot have this length."""
        least = self.least()
        expect(length >= least, f"{self.name} needs a length of at least {least}; got {length}")

    def least(self) -> int:
        """The shortest length of a row."""
        return 2

    @abstractmethod
    def demand(self, length: int) -> Bits:
        """Bits that a state must hold for perfect answers at this length."""

    @abstractmethod
    def _draw(self, batch: int, length: int, generator: Generator) -> Batch: ...

    @abstractmethod
    def _begin(self, batch: int) -> Any:
        """The oracle's state before the first sample."""

    @abstractmethod
    def _step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The oracle's answer (b) or (b, v) to a sample x (b) or (b, f), and its next state."""


def whole(high: int, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Whole numbers from 0 to `high` - 1."""
    return torch.randint(0, high, shape, generator=generator)


def choose(batch: int, many: int, few: int, generator: Generator) -> Tensor:
    """`few` different whole numbers below `many` in each row, in random order: (b, few)."""
    return torch.rand(batch, many, generator=generator).argsort(1)[:, :few]


def exactly(bits: float, task: str) -> Bits:
    """A demand that counts the cases that a state must distinguish."""
    return Bits(
        kind="exact",
        scope="this task, uniform input, without error",
        sentence=f"To {task}, a state must hold {bits:.4f} bits.",
        bits=bits,
    )


def at_least(bits: float, task: str) -> Bits:
    """A demand that is proved from below only."""
    return Bits(
        kind="lower_bound",
        scope="this task",
        sentence=f"To {task}, a state must hold at least {bits:.4f} bits.",
        bits=bits,
    )


def about(numbers: float, task: str) -> Bits:
    """The size of the oracle's state, for tasks whose least state is not known."""
    bits = numbers * NUMBER_BITS
    return Bits(
        kind="estimate",
        scope=f"the oracle's state, at an error of {PRECISION:.0%} of the variance",
        sentence=f"To {task}, the oracle keeps {numbers:g} numbers: about {bits:.4f} bits.",
        bits=bits,
    )
