"""A bound on the difference between a rounded state and the exact state, for the same inputs.

    e_t = A_t e_{t-1} + r_t        |e_t| <= sum over k of |A ... A| |r_{t-k}| <= |r| / (1 - rho)

r is the largest change by one rounding: half a step, or one step for stochastic rounding. rho
bounds the decay of one sample for all inputs: from each eigenvalue if the system is diagonal, from
all powers of the matrix if it is dense, from `longstate.memory.certify` if the layer is selective.
If a layer may keep a value for ever (rho = 1), errors may add up without limit, and the bound is
infinite.

It is no bound for a model, because the inputs of the later layers change too.

Axes: g groups, m numbers, n stored states.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longstate._numbers import number
from longstate.compress._quantized import Grid, QuantizedState
from longstate.errors import InputError
from longstate.memory import Result, certify, widened
from longstate.memory._gramians import real_matrices
from longstate.memory._powers import Powers
from longstate.systems import DiagonalSystem

_ROUNDING = 1e-12  # of float64, in eigenvalues and sums


@dataclass(frozen=True, eq=False, kw_only=True)
class Drift(Result):
    """Bounds on the change of a state by rounding.

    Args:
        state (g, n): of each stored state (of the modulus if it is complex). If the system is
            dense: (g, 1), of the Euclidean norm of each group.
        rate: bound of the decay of one sample, in the slowest state.
        output (o): of each output of a linear layer. None: the layer is selective, so its readout
            depends on the input.
    """

    state: Float[Tensor, "g n"]
    rate: float
    output: Tensor | None

    def rows(self) -> tuple[list[str], list[list[str]]]:
        found = [("state, worst", self.state), ("state, median", self.state.median())]
        if self.output is not None:
            found.append(("output, worst", self.output))
        body = [[name, number(float(v.max()))] for name, v in found]
        return ["of what", "at most"], [*body, ["decay of a step", number(self.rate)]]


def drift(quantized: QuantizedState, *, radius: float | None = None) -> Drift:
    """Bound the change of a layer's state by rounding, for all inputs.

    Args:
        quantized: a layer, not a model.
        radius: largest Euclidean norm of one input sample, for a selective layer; see `certify`.

    Raises:
        InputError: it is a model, or a selective layer without a radius.
    """
    layer = quantized.layer
    if hasattr(layer, "each_block"):
        raise InputError(
            "drift is for one layer, not for a model, in which the inputs of later layers change "
            "too; quantize one layer"
        )
    (grid,) = quantized.grids
    change = _change(grid, quantized.rounding)
    output = None
    if hasattr(layer, "system"):
        with torch.no_grad():
            system = widened(layer).system()
        C = real_matrices(system)[2]
        if isinstance(system, DiagonalSystem):
            sizes = system.A.abs().reshape(change.shape[0], -1) * (1 + _ROUNDING)
            pairs = change.reshape(*sizes.shape[:1], -1, sizes.shape[1])
            state = pairs.norm(dim=1) / _left(sizes, quantized.every)
            read = C.reshape(len(sizes), C.shape[-2], -1, sizes.shape[1]).norm(dim=2)
            output = (read * state[:, None]).sum(-1).flatten()
            rate = float(sizes.max())
        else:
            powers = Powers(real_matrices(system)[0].reshape(len(change), *C.shape[-1:] * 2))
            state = (change.norm(dim=-1) * powers.total(powers.growth()[0]))[:, None]
            read = C.reshape(len(change), -1, C.shape[-1]).norm(dim=-1)
            output = (read * state).flatten()
            rate = float(torch.linalg.eigvals(powers.squares[0].value).abs().max())
    else:
        claims = certify(layer, attack=False, radius=radius).claims
        rate = max(c.certified or 0.0 for c in claims if c.what == "decay of a step, at most")
        state = change / _left(torch.full_like(change, rate), quantized.every)
    worst = float(state.max())
    finite = math.isfinite(worst)
    return Drift(
        kind="certified",
        scope="all inputs, while no number leaves its range (clipped = 0), without the rounding of "
        "the layer's own arithmetic",
        sentence=f"Rounding never moves a number of the state by more than {number(worst)}."
        if finite
        else "There is no finite bound: the layer may keep a value for ever.",
        state=state * (1 + _ROUNDING),
        rate=rate,
        output=output,
    )


def _change(grid: Grid, rounding: str) -> Tensor:
    """The largest change by one rounding (g, r m)."""
    step = grid.step / grid.levels if rounding == "feedback" else grid.step
    return (step * (1.0 if rounding == "stochastic" else 0.5)).flatten(1)


def _left(rate: Tensor, every: int) -> Tensor:
    """1 - rate^every; 0 where nothing decays, so that the bound is infinite."""
    return (1 - rate**every).clamp(min=0)
