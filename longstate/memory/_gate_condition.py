"""When a recurrence with a gate forgets its start: a condition that is sufficient.

    convex           h' = (1 - g) * h + g * (A h + B x)
    multiplicative   h' = g * (A h + B x)                      g = G(x, h), between low and high

A product of Lipschitz constants does not decide it: with G(h) = sigmoid(-4 (h + 8)), A = 0.9 and
B x = -20 the gate's constant is 1, the product 0.9, and there are two stable fixed points, 0 and
-200, of the multiplicative form. The gate's constant L must be multiplied by the size of what it
gates. In the maximum norm, with |A| <= rho, |B x| <= drive and a ball of states of radius R that
the recurrence does not leave,

    convex           R = drive / (1 - rho)
                     factor = 1 - low (1 - rho) + L ((1 + rho) R + drive)
    multiplicative   R = high drive / (1 - high rho)
                     factor = high rho + L (rho R + drive)

bound the Lipschitz constant of one step on the ball. If the factor is below 1, runs with the same
input that begin in the ball forget their starts at that rate; there is then one fixed point for a
constant input. If L = 0 (a gate that depends on the input alone) the ball does not matter.

Bhat, "Mathematical Formalism for Memory Compression in Selective State Space Models", 2024,
arXiv:2410.03158, is reported to ask for rho L < 1; see docs/memory.md.
"""

import math
from dataclasses import dataclass
from typing import Literal

from longstate._numbers import number
from longstate.errors import expect
from longstate.memory._result import Result


@dataclass(frozen=True, eq=False, kw_only=True)
class GateContraction(Result):
    """Whether a recurrence with a gate is proved to forget its start.

    Args:
        factor: bound of the Lipschitz constant of a step; infinite if nothing is proved.
        radius: of the ball of states for which it holds.
    """

    factor: float
    radius: float

    @property
    def proved(self) -> bool:
        """Whether the factor is below 1. If not, the recurrence may still forget."""
        return self.factor < 1

    def rows(self) -> tuple[list[str], list[list[str]]]:
        proved = "yes" if self.proved else "no"
        return ["factor", "radius", "proved"], [[number(self.factor), number(self.radius), proved]]


def gate_contraction(
    rho: float,
    *,
    gate: tuple[float, float] = (0.0, 1.0),
    lipschitz: float = 0.0,
    drive: float,
    form: Literal["convex", "multiplicative"] = "convex",
) -> GateContraction:
    """The condition for a gated recurrence to be a contraction.

    Args:
        rho: bound of A in the maximum norm: the largest sum of |A| over a row.
        gate: smallest and largest value of the gate.
        lipschitz: of the gate in h, in the maximum norm; 0 if it does not depend on h.
        drive: largest |B x|, over entries and inputs.
        form: of the recurrence; see the module.

    Raises:
        InputError: an argument is out of its range.
    """
    low, high = gate
    expect(0 <= low <= high <= 1, f"gate must be in order, between 0 and 1; got {gate!r}")
    expect(
        form in ("convex", "multiplicative"), f"form must be convex or multiplicative; got {form!r}"
    )
    for name, value in (("rho", rho), ("lipschitz", lipschitz), ("drive", drive)):
        expect(
            0 <= value < math.inf, f"{name} must be a finite number of at least 0; got {value!r}"
        )
    if form == "convex":
        room, step = 1 - rho, 1 - low * (1 - rho)
        radius = drive / room if room > 0 else math.inf
        gated = (1 + rho) * radius + drive
    else:
        room, step = 1 - high * rho, high * rho
        radius = high * drive / room if room > 0 else math.inf
        gated = rho * radius + drive
    factor = step + (lipschitz * gated if lipschitz else 0.0) if room > 0 else math.inf
    said = "is a contraction" if factor < 1 else "is not proved to be a contraction"
    return GateContraction(
        kind="certified",
        scope=f"all inputs with |B x| <= {number(drive)}, starts with |h| <= {number(radius)}",
        sentence=f"This recurrence {said}: a step multiplies the distance of two states by at most "
        f"{number(factor)}.",
        factor=factor,
        radius=radius,
    )
