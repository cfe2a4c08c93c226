"""The time scale of each state.

In a linear system the part along each eigenvector of A shrinks by a factor |a| per step: its time
scale is -1 / log|a|, for every input. If eigenvectors are nearly dependent (S4, LinOSS) their sums
may grow first and last longer: `certify` bounds this in a norm. The forgetting of a selective layer
depends on its input: along a recorded trace a state shrinks by the product of its decays, so its
Lyapunov exponent on this data is exactly the mean of log decay, and its time scale is minus one
over that.

Axes: c channels, n state of a channel; b batch, t time.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from longstate._numbers import number
from longstate.errors import InputError
from longstate.memory._gramians import System
from longstate.memory._plot import draw
from longstate.memory._result import THIS_DATA, Result
from longstate.systems import DiagonalSystem, Trace
from longstate.systems._numbers import in_float64

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, kw_only=True)
class Timescales(Result):
    """Steps after which 1 / e of a state is left; for a linear system, of its part along one
    eigenvector.

    Args:
        steps (..., n): one for each state; infinite if it is not forgotten, or grows.
        reference: length of the training sequences, to compare with. None if unknown.
    """

    steps: Float[Tensor, "*batch n"]
    reference: int | None

    def beyond(self) -> float:
        """Share of states whose time scale is longer than the reference.

        Raises:
            InputError: there is no reference.
        """
        if self.reference is None:
            raise InputError("there is no reference length to compare with; pass reference=")
        return float((self.steps > self.reference).double().mean())

    def rows(self) -> tuple[list[str], list[list[str]]]:
        flat = self.steps.flatten().sort().values
        at = {"shortest": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "longest": 1.0}
        last = len(flat) - 1
        body = [[name, number(float(flat[round(q * last)]))] for name, q in at.items()]
        return ["states", "steps"], body

    def plot(self) -> "Figure":
        flat = self.steps.flatten()
        finite = flat[flat.isfinite() & (flat > 0)]

        def paint(ax):
            noise = torch.rand(len(finite), generator=torch.Generator().manual_seed(0))
            ax.semilogx(finite, noise, ".", markersize=3, alpha=0.5)
            if self.reference is not None:
                ax.axvline(self.reference, color="C3", label=f"training length {self.reference}")
                ax.legend()
            ax.set_yticks([])

        return draw(self, "Time scales of the states", "steps", "", paint)


def timescales(memory: System | Trace, *, reference: int | None = None) -> Timescales:
    """Time scales of a linear system, or of a selective layer on recorded data.

    Args:
        memory: a discrete system, or a trace.
        reference: length of the sequences the model was trained on.

    Raises:
        InputError: the system is continuous, or the states of the trace are mixed at every step (an
            exact online regression); see `average_contraction` for those.
    """
    if isinstance(memory, Trace):
        if memory.erase is not None:
            raise InputError(
                "this layer mixes its states at every step, so single states have no time scale; "
                "average_contraction measures how fast the whole state forgets"
            )
        exponent = in_float64(memory.decay).abs().log().mean((0, 1))
        scope = THIS_DATA
    else:
        if not memory.discrete:
            raise InputError("the system is continuous; call discretize(rule, dt) first")
        exponent = eigenvalues(memory).abs().log()
        scope = "all inputs"
    steps = torch.where(exponent < 0, -1 / exponent, math.inf)
    return Timescales(
        kind="exact",
        scope=scope,
        sentence=_sentence(steps, reference),
        steps=steps,
        reference=reference,
    )


def eigenvalues(system: System) -> Tensor:
    """Eigenvalues of A (..., n), in float64, on the CPU."""
    if isinstance(system, DiagonalSystem):
        return in_float64(system.A)
    return torch.linalg.eigvals(in_float64(system.to_dense().A))


def _sentence(steps: Tensor, reference: int | None) -> str:
    flat = steps.flatten().sort().values
    text = (
        f"Half of the states forget within {number(float(flat[(len(flat) - 1) // 2]))} steps; the "
        f"slowest reaches {number(float(flat[-1]))} steps back"
    )
    if reference is None:
        return text + "."
    share = 100 * float((flat > reference).double().mean())
    return text + f", and {share:.3g} % reach further than the training length {reference}."
