"""A bound on the difference between a rounded state and the exact state, for the same inputs.

    e_t = A_t e_{t-1} + r_t        |e_t| <= sum over k of |A ... A| |r_{t-k}| <= |r| / (1 - rho)

r is the largest change by one rounding: half a step, or one step for stochastic rounding. rho
bounds the decay of one sample for all inputs: from each eigenvalue if the system is diagonal, from
all powers of the matrix if it is dense, from the bounds of `longstate.memory.certify` for each
number if the layer is selective. If a layer may keep a value for ever (rho = 1), errors may add up
without limit, and the bound is infinite.

If steps follow the state, |r| <= c |h| with c = 1 / most (2 / most for stochastic rounding) and
the largest whole number `most`: the step, a power of 2, is at most twice the smallest that would
do. If H bounds the exact state,

    |e_t| <= rho |e_{t-1}| + c (H + rho |e_{t-1}|)        |e| <= c H / (1 - rho (1 + c))

A call rounds at its end, also if it is shorter than `every` samples, so the bound is that of
rounding after every sample. It is no bound for a model, because the inputs of the later layers
change too.

Axes: g groups, r rows, m numbers, n stored states, i inputs, o outputs.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from longstate._numbers import number
from longstate.compress._grids import SHARED, AnyGrid, Grid
from longstate.compress._quantized import QuantizedState
from longstate.errors import InputError
from longstate.memory import Result, certify, widened
from longstate.memory._gramians import real_matrices
from longstate.memory._input_ball import ball_of
from longstate.memory._powers import Powers
from longstate.memory._recording import find_layers
from longstate.memory._selective_bounds import cast, rates, state_size, steps
from longstate.ops.quantized_step import LEAST
from longstate.systems import DiagonalSystem

_ROUNDING = 1e-12  # of float64, in eigenvalues and sums
Times = tuple[float, float]


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


def drift(
    quantized: QuantizedState, *, radius: float | None = None, dt: Times = (1.0, 1.0)
) -> Drift:
    """Bound the change of a layer's state by rounding, for all inputs.

    Args:
        quantized: a layer, not a model.
        radius: largest Euclidean norm of one input sample, for a selective layer, and if steps
            follow the state; see `certify`.
        dt: shortest and longest time between two samples; see `certify`.

    Raises:
        InputError: it is a model; a radius is missing; dt is not a range; or the layer has no
            bound for a range of dt.
    """
    layer: Any = quantized.layer
    if hasattr(layer, "each_block"):
        raise InputError(
            "drift is for one layer, not for a model, in which the inputs of later layers change "
            "too; quantize one layer"
        )
    if not 0 <= dt[0] <= dt[1] < math.inf:
        raise InputError(f"dt must be a shortest and a longest time, at least 0; got {dt!r}")
    (grid,) = quantized.grids
    follows = hasattr(layer, "system") and not isinstance(grid, Grid)
    if follows and (radius is None or dt != (1.0, 1.0)):
        raise InputError(
            "steps that follow the state of a linear layer are bounded for regular samples of "
            "limited length: pass radius=, the largest length that one can have, and no dt"
        )
    output = None
    if not hasattr(layer, "system"):
        rate, size = _of_selective(layer, grid, radius, dt)
        state = _collected(_change(grid), _shared(grid, rate), _shared(grid, size))
        slowest = float(rate.max())
    else:
        with torch.no_grad():
            system = widened(layer).system()
        if isinstance(system, DiagonalSystem):
            rate, size = _of_diagonal(layer, system, radius, dt)
            change = _change(grid)
            pairs = change.fixed.reshape(len(rate), -1, rate.shape[1]).norm(dim=1)
            # both parts of a complex number may be off
            share = change.share * math.sqrt(change.fixed.numel() / rate.numel())
            state = _collected(Change(pairs, share), _shared(grid, rate), _shared(grid, size))
            slowest = float(rate.max())
        else:
            state, slowest = _of_dense(system, grid, radius, dt)
        output = _read(system, state)
    worst = float(state.max())
    finite = math.isfinite(worst)
    return Drift(
        kind="certified",
        scope=_scope(grid, radius, dt),
        sentence=f"Rounding never moves a number of the state by more than {number(worst)}."
        if finite
        else "There is no finite bound: the layer may keep a value for ever.",
        state=state * (1 + _ROUNDING),
        rate=slowest,
        output=None if output is None else output * (1 + _ROUNDING),
    )


def _scope(grid: AnyGrid, radius: float | None, dt: Times) -> str:
    inputs = "all inputs" if radius is None else f"inputs of length {radius:g} at most"
    when = "regular samples (dt = 1)" if dt == (1, 1) else f"dt between {dt[0]:g} and {dt[1]:g}"
    inside = "while no number leaves its range (clipped = 0)"
    if not isinstance(grid, Grid):
        inside = "from a zero state"
    return f"{inputs}, {when}, {inside}, without the rounding of the layer's own arithmetic"


class Change(NamedTuple):
    """The largest change by one rounding: fixed (g, n) + share * the largest number of the row."""

    fixed: Tensor
    share: float


def _change(grid: AnyGrid) -> Change:
    random = grid.digits.rounding == "stochastic"
    if isinstance(grid, Grid):
        return Change((grid.finest * (1.0 if random else 0.5)).flatten(1), 0.0)
    g, r, m = grid.shape
    tiny = torch.full((g, r * m), 2.0**LEAST, dtype=torch.float64)  # below it a row becomes zero
    return Change(tiny, (2.0 if random else 1.0) / grid.digits.most)


def _collected(change: Change, rate: Tensor, size: Tensor) -> Tensor:
    """The bound (g, n), from decays of a step and sizes of the exact state (g, n)."""
    if change.share == 0:
        return _quotient(change.fixed, 1 - rate)
    # what shares a step shares its error; `rate` and `size` are then the largest beside a number
    return _quotient(change.fixed + change.share * size, 1 - rate * (1 + change.share))


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """a / b; infinite where nothing decays."""
    return torch.where(b > 0, a / b.clamp(min=1e-300), torch.inf)


def _of_selective(
    layer: Any, grid: AnyGrid, radius: float | None, dt: Times
) -> tuple[Tensor, Tensor]:
    """Decay of a step (g, n), and size of the exact state, for all inputs."""
    shape = grid.step.shape if isinstance(grid, Grid) else grid.shape
    s = cast(widened(layer).selection(), torch.float64)
    certify(layer, attack=False, radius=radius, dt=dt)  # refuses what has no bounds
    ball = ball_of(find_layers(layer)[0], radius, None)
    if s.rate is None:  # nothing says that it forgets
        return torch.ones(shape).double().flatten(1), torch.full(shape, torch.inf).flatten(1)
    with torch.no_grad():
        least = dt[0] * steps(s, ball).low[:, None]
        decay = torch.exp(-rates(s, ball) * least) * (1 + _ROUNDING)
        size = state_size(s, ball, dt[1])

    def spread(v: Tensor) -> Tensor:  # (o, 1 or n) to (g, r m)
        return v.expand(len(v), shape[2])[:, None].expand(shape).flatten(1)

    return spread(decay), spread(size)


def _shared(grid: AnyGrid, v: Tensor) -> Tensor:
    """The largest of v (g, n) among all that share a step, everywhere."""
    if isinstance(grid, Grid):
        return v
    rows = v.reshape(len(v), grid.shape[1], -1)
    return rows.amax(SHARED[grid.scale], keepdim=True).expand_as(rows).flatten(1)


def _of_diagonal(
    layer: Any, system: DiagonalSystem, radius: float | None, dt: Times
) -> tuple[Tensor, Tensor]:
    """Decay of a step (g, n) of every eigenvalue, and size of the exact state.

    The modulus, as a function of the time, is largest at one end of its range.
    """
    wide, found = widened(layer), [system]
    if dt != (1.0, 1.0):
        with torch.no_grad():
            found = [wide.system(rate=v) for v in dt if v > 0]
    sizes = torch.stack([s.A.abs() for s in found]).amax(0)
    sizes = torch.ones_like(sizes) if dt[0] == 0 else sizes
    B = real_matrices(system)[1]
    rate = sizes.reshape(-1, sizes.shape[-1]) * (1 + _ROUNDING)
    written = B.reshape(len(rate), -1, rate.shape[1], B.shape[-1]).norm(dim=(1, 3))
    return rate, _quotient((radius or 0.0) * written, 1 - rate)


def _of_dense(system: Any, grid: AnyGrid, radius: float | None, dt: Times) -> tuple[Tensor, float]:
    """The bound (g, 1) of the length of a group's state, and the slowest decay."""
    if dt != (1.0, 1.0):
        raise InputError("dt must be (1, 1) for a layer with a dense system; its powers are known")
    A, B, _ = real_matrices(system)
    change = _change(grid)
    fixed = change.fixed
    powers = Powers(A.reshape(len(fixed), *A.shape[-2:]))
    total = powers.total(powers.growth()[0])
    slowest = float(torch.linalg.eigvals(powers.squares[0].value).abs().max())
    if change.share == 0:
        return (fixed.norm(dim=-1) * total)[:, None], slowest
    reach = torch.linalg.matrix_norm(B.reshape(len(fixed), *B.shape[-2:]), 2)
    size = total * reach * (radius or 0.0)
    share = change.share * math.sqrt(fixed.shape[1])  # every number may be off
    size, total = size.max(), total.max().expand(len(fixed))
    if share >= 1:
        return torch.full_like(fixed[:, :1], torch.inf), slowest
    # what is rounded has a length of at most |h| + |e| + |r|
    growth = share / (1 - share)
    bound = _quotient(
        total * (growth * size + fixed.norm(dim=-1) / (1 - share)), 1 - total * growth
    )
    return bound[:, None], slowest


def _read(system: Any, state: Tensor) -> Tensor:
    """What an error of the state may change of every output (o)."""
    C = real_matrices(system)[2]
    if not isinstance(system, DiagonalSystem):
        return (C.reshape(len(state), -1, C.shape[-1]).norm(dim=-1) * state).flatten()
    read = C.reshape(len(state), C.shape[-2], -1, state.shape[1]).norm(dim=2)
    return (read * state[:, None]).sum(-1).flatten()
