"""ListOps: nested lists of digits under MAX, MIN, MED (median) and SM (sum modulo 10).

    [MAX 2 9 [MIN 4 7 ] 0 ]   is 9

The grammar of Nangia and Bowman (2018, arXiv:1804.06028), used by the Long Range Arena (Tay et al.,
2020, arXiv:2011.04006) without FIRST and LAST: a node is a digit with probability 3/4 and an
operator with 2 to 5 arguments otherwise; the median of an even number of digits is rounded down.
The generator is new: the root is an operator, and a tree is kept if its length lies between half
the row's length and the row's length. Rows end in blanks; the answer is asked for at the last
bracket.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from longstate.memory import Bits
from longstate.tasks._task import Batch, Budget, Task, at_least

OPERATORS = ("MAX", "MIN", "MED", "SM")
CLOSE, BLANK = 14, 15  # after ten digits and four operators
ARGUMENTS, DEEPEST, DIGIT = 5, 10, 0.75


def value(operator: int, arguments: list[int]) -> int:
    """The value of an operator, by its number in `OPERATORS`."""
    name = OPERATORS[operator]
    if name == "SM":
        return sum(arguments) % 10
    ordered = sorted(arguments)
    if name == "MED":
        half = len(ordered) // 2
        return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) // 2
    return ordered[-1] if name == "MAX" else ordered[0]


class _Dice:
    """Uniform numbers, drawn many at a time."""

    def __init__(self, generator: Generator):
        self.generator = generator
        self.left: list[float] = []

    def __call__(self) -> float:
        if not self.left:
            self.left = torch.rand(4096, generator=self.generator).tolist()
        return self.left.pop()


def _grow(dice: _Dice, out: list[int], depth: int, most: int) -> int | None:
    """Append a node to `out`; its value, or None if it became longer than `most`."""
    if len(out) >= most:
        return None
    if depth and (depth >= DEEPEST or dice() < DIGIT):
        digit = int(10 * dice())
        out.append(digit)
        return digit
    operator = int(len(OPERATORS) * dice())
    out.append(10 + operator)
    arguments = []
    for _ in range(2 + int((ARGUMENTS - 1) * dice())):
        found = _grow(dice, out, depth + 1, most)
        if found is None:
            return None
        arguments.append(found)
    out.append(CLOSE)
    return value(operator, arguments)


@dataclass(frozen=True, kw_only=True)
class ListOps(Task):
    """Symbols: ten digits, four operators with their opening bracket, the closing one, blank."""

    def least(self) -> int:
        return 8

    def demand(self, length: int) -> Bits:
        return at_least(math.log2(10), "keep one partial result of ListOps")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        x = torch.full((batch, length), BLANK)
        y = torch.zeros(batch, length, dtype=torch.long)
        scored = torch.zeros(batch, length, dtype=torch.bool)
        dice = _Dice(generator)
        for row in range(batch):
            while True:
                out: list[int] = []
                answer = _grow(dice, out, 0, length)
                if answer is not None and length / 2 <= len(out) <= length:
                    break
            x[row, : len(out)] = torch.tensor(out)
            y[row, len(out) - 1], scored[row, len(out) - 1] = answer, True
        return Batch(x, y, scored)

    def _begin(self, batch: int) -> list[list[list[int]]]:
        return [[] for _ in range(batch)]

    def _step(self, x: Tensor, state: list[list[list[int]]]) -> tuple[Tensor, list]:
        """A stack machine for each row: lists of an operator and its arguments so far."""
        answers = []
        for symbol, stack in zip(x.tolist(), state, strict=True):
            result = 0
            if 10 <= symbol < CLOSE:
                stack.append([symbol - 10])
            elif symbol != BLANK:
                result = symbol
                if symbol == CLOSE:
                    operator, *arguments = stack.pop()
                    result = value(operator, arguments)
                if stack:
                    stack[-1].append(result)
            answers.append(result)
        return torch.tensor(answers), state


TASKS: tuple[Task, ...] = (
    ListOps(
        name="listops",
        why="Hierarchy: a result depends on all levels of nested lists. It is the first task of "
        "the Long Range Arena, here in rows of 48 symbols.",
        symbols=16,
        answers=10,
        budget=Budget(48, (96, 192), steps=800),
    ),
)
