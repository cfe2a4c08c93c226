"""Tasks with a state of one symbol: parity, counting modulo m, and a flip-flop.

    counting    y_t = u_1 + ... + u_t  modulo m            u_t uniform on 0 ... m - 1
    flip-flop   pairs of an instruction (write, read, ignore) and a bit; at a read: the bit that was
                written last

Parity is m = 2. Gates in [0, 1] cannot do it at all lengths (Sarrof et al., 2024,
arXiv:2405.17394; Grazzi et al., 2024, arXiv:2411.12537), while they can do a flip-flop. In the
flip-flop of Liu et al. (2023, arXiv:2306.00946), as here, a read is followed by the bit that was
asked for.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from longstate.memory import Bits, demand_of_counter
from longstate.tasks._task import Batch, Budget, Task, whole

WRITE, READ, IGNORE = 2, 3, 4


@dataclass(frozen=True, kw_only=True)
class Counting(Task):
    """Sums modulo `modulus`.

    Args:
        modulus: m.
    """

    modulus: int

    def demand(self, length: int) -> Bits:
        return demand_of_counter(self.modulus)

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        x = whole(self.modulus, (batch, length), generator)
        scored = (torch.arange(length) > 0).expand(batch, length)  # the first is its own answer
        return Batch(x, x.cumsum(1) % self.modulus, scored)

    def _begin(self, batch: int) -> Tensor:
        return torch.ones(batch, dtype=torch.complex128)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A rotation: h_t = exp(2 pi i u_t / m) h_{t-1}; for parity a sign."""
        turn = 2 * math.pi / self.modulus
        state = torch.polar(torch.ones(()).double(), x.double() * turn) * state
        return (state.angle() / turn).round().long() % self.modulus, state


@dataclass(frozen=True, kw_only=True)
class FlipFlop(Task):
    """Symbols: the bits 0 and 1, then write, read and ignore.

    Args:
        ignored: probability of an ignore; a read and a write are equally likely otherwise.
    """

    ignored: float = 0.8

    def demand(self, length: int) -> Bits:
        return demand_of_counter(2)

    def least(self) -> int:
        return 4

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        n = (length + 1) // 2
        said = torch.full((batch, n), IGNORE)
        dice = torch.rand(batch, n, generator=generator)
        said[dice < 1 - self.ignored] = READ
        said[dice < (1 - self.ignored) / 2] = WRITE
        said[:, 0], said[:, -1] = WRITE, READ
        bits = whole(2, (batch, n), generator)
        place = torch.where(said == WRITE, torch.arange(n), -1).cummax(1).values
        written = bits.gather(1, place)
        bits = torch.where(said == READ, written, bits)
        x = torch.stack([said, bits], 2).flatten(1)[:, :length]
        y = torch.stack([written, written], 2).flatten(1)[:, :length]
        return Batch(x, y, x == READ)

    def _begin(self, batch: int) -> tuple[Tensor, Tensor]:
        zero = torch.zeros(batch, dtype=torch.long)
        return zero, zero

    def _step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple]:
        """h_t = a_t h_{t-1} + b_t with a_t in {0, 1}: 0 at a bit after a write."""
        h, previous = state
        a = (previous != WRITE).long()
        h = a * h + (1 - a) * x
        return h, (h, x)


TASKS: tuple[Task, ...] = (
    Counting(
        name="parity",
        why="One bit that every input may turn over. Layers whose decays lie in [0, 1] cannot "
        "compute it for all lengths, however long they are trained; one signed decay, "
        "a_t = 1 - 2 u_t, does. Trained up to length 40, tested up to 256.",
        modulus=2,
        symbols=2,
        answers=2,
        chance=1 / 2,
        budget=Budget(40, (80, 256), batch=64, shortest=3),
    ),
    FlipFlop(
        name="flip_flop",
        why="Keep one bit over any number of distractions, and replace it at once when told to. "
        "Attention makes rare errors here; a gate of exactly 0 or 1 makes none (Liu et al., 2023).",
        symbols=5,
        answers=2,
        chance=1 / 2,
        budget=Budget(64, (128, 512)),
    ),
    Counting(
        name="counting",
        why="Addition modulo 5, a cyclic group: it needs states that turn, so complex decays on "
        "the unit circle or a dense transition. Real diagonal ones cannot.",
        modulus=5,
        symbols=5,
        answers=5,
        chance=1 / 5,
        budget=Budget(40, (80, 256), steps=800, batch=64, shortest=3),
    ),
)
