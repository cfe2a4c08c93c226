"""Pathfinder: an image, one pixel at a time: are its two dots on the same dashed line?

Linsley et al. (2018, arXiv:1805.08315), as in the Long Range Arena (Tay et al., 2020,
arXiv:2011.04006), there with 32 x 32 pixels. The generator is new and simpler, without smooth
curves: two lines that walk over the grid without touching each other, each third pixel blank. The
dots are the ends of one line, or one end of each.

The oracle joins pixels that are at most two apart; different lines are at least three apart.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from longstate.errors import expect
from longstate.memory import Bits
from longstate.tasks._task import Batch, Budget, Task, at_least

PAPER, LINE, DOT = 0, 1, 2
_MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))
_TURN = 0.3  # probability of a turn at each pixel
Pixel = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Pathfinder(Task):
    """Symbols: paper, line, dot. The length is the number of pixels of a square."""

    def least(self) -> int:
        return 64

    def check(self, length: int) -> None:
        super().check(length)
        side = round(length**0.5)
        expect(
            side * side == length,
            f"{self.name} needs a square number of pixels as length; got {length}",
        )

    def demand(self, length: int) -> Bits:
        return at_least(1, "answer yes or no")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        side = round(length**0.5)
        joined = torch.rand(batch, generator=generator) < 0.5
        x = torch.zeros(batch, side, side, dtype=torch.long)
        for image, same in zip(x, joined.tolist(), strict=True):
            first, second = _lines(side, generator)
            for line in (first, second):
                for i, pixel in enumerate(line):
                    if i % 3 != 2:
                        image[pixel] = LINE
            for pixel in (first[0], first[-1] if same else second[-1]):
                image[pixel] = DOT
        y = torch.zeros(batch, length, dtype=torch.long)
        y[:, -1] = joined
        scored = (torch.arange(length) == length - 1).expand(batch, length)
        return Batch(x.flatten(1), y, scored)

    def _begin(self, batch: int) -> Tensor:
        return torch.zeros(batch, 0, dtype=torch.long)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """All pixels so far; at the end of a square, whether one line joins the dots."""
        seen = torch.cat([state, x[:, None]], 1)
        side = round(seen.shape[1] ** 0.5)
        if side * side != seen.shape[1]:
            return torch.zeros_like(x), seen
        images = seen.unflatten(1, (side, side))
        return torch.tensor([_joined(image) for image in images]).long(), seen


def _joined(image: Tensor) -> bool:
    inked = set(map(tuple, image.nonzero().tolist()))
    dots = list(map(tuple, (image == DOT).nonzero().tolist()))
    if len(dots) != 2:
        return False
    reached, waiting = {dots[0]}, [dots[0]]
    while waiting:
        i, j = waiting.pop()
        near = {(i + a, j + b) for a in range(-2, 3) for b in range(-2, 3)} & inked
        waiting += near - reached
        reached |= near
    return dots[1] in reached


def _lines(side: int, generator: Generator) -> tuple[list[Pixel], list[Pixel]]:
    """Two lines, at least three pixels apart from each other."""
    length = 3 * (side // 3) + 1  # so that the last pixel is no blank
    while True:
        first = _walk(side, length, set(), generator)
        if first is None:
            continue
        taken = {(i + a, j + b) for i, j in first for a in range(-2, 3) for b in range(-2, 3)}
        for _ in range(20):
            second = _walk(side, length, taken, generator)
            if second is not None:
                return first, second


def _walk(side: int, length: int, taken: set[Pixel], generator: Generator) -> list[Pixel] | None:
    """A line of `length` pixels that does not touch itself; None if it got stuck."""
    dice = torch.rand(2 * length + 3, generator=generator).tolist()
    at, way = (int(side * dice[0]), int(side * dice[1])), int(4 * dice[2])
    line = [at]
    if at in taken:
        return None
    for turn, left in zip(dice[3::2], dice[4::2], strict=False):
        if len(line) == length:
            break
        if turn < _TURN:
            way = (way + (1 if left < 0.5 else -1)) % 4
        at = at[0] + _MOVES[way][0], at[1] + _MOVES[way][1]
        beside = sum(abs(at[0] - i) + abs(at[1] - j) == 1 for i, j in line)
        inside = 0 <= at[0] < side and 0 <= at[1] < side
        if not inside or at in taken or at in line or beside > 1:
            return None
        line.append(at)
    return line


_WHY = "Whether two dots lie on one dashed line: pixels that belong together are far apart in the "
_WHY += "sequence. The last and longest task of the Long Range Arena"
TASKS: tuple[Task, ...] = tuple(
    Pathfinder(
        name=f"pathfinder_{side}",
        why=f"{_WHY}, at {side} x {side} pixels.",
        symbols=3,
        answers=2,
        chance=1 / 2,
        budget=Budget(side * side, longer, steps=steps, batch=16),
    )
    for side, longer, steps in ((16, (576,), 800), (32, (), 800))
)
