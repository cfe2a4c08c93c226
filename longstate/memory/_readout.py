"""How the entries of a selective state change its layer's outputs: sums over data of any length.

    y_t = read_t . z_t + skip x_t      z_t = h_t + (own_t - gain_t) x_t write_t

If each entry of a state has its own decay, removing some entries changes y by exactly the sum over
them of read_n z_n. For any set of columns the energy of this change is a sum of entries of
S_nm = E (read_n z_n)(read_m z_m), so only S is kept. If all entries of a state have one decay, a
state h W that is read along V' C changes y by z (I - W V') C. With P = E z z' and Q = E C C', taken
as independent, the energy of the change is |P^1/2 (I - W V') Q^1/2|^2. It is smallest for

    P = L_P L_P'   Q = L_Q L_Q'   L_Q' L_P = U S Z'   W = L_Q U_r S_r^-1/2   V = L_P Z_r S_r^-1/2

and then it is the sum of the squares of the discarded S. Sums are weighted by the square of the
gate, which is applied to y, so they describe the output of the layer.

Of long data the sums take some samples only, at equal distances: the states at these come from the
layer itself, which runs much faster than all of its states can be written down.

Axes: b batch, t time, c channels, g groups of channels that share their columns, n state.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.memory._gramians import balance
from longstate.systems import Trace

_FLOOR = 1e-12  # share of the largest S below which a direction is not used
_ROOM = 1 << 21  # numbers of the states that are in memory at once
_MOST = 1 << 25  # numbers of the states, over all samples of one input, that sums are taken of
_FEWEST = 8  # samples of an input that are used however large the state is


class Readout(NamedTuple):
    """Sums over samples and channels of each group, not means.

    Attributes:
        entries (g, n, n): of (read_n z_n)(read_m z_m).
        gated (g, n, n): the same, each sample weighted by its squared gate.
        reach (g, n, n): of z z', weighted in the same way.
        observe (g, n, n): of read read'.
        energy, gated_energy: of y, before and after the gate.
        samples: samples times channels of a group.
    """

    entries: Float[Tensor, "g n n"]
    gated: Float[Tensor, "g n n"]
    reach: Float[Tensor, "g n n"]
    observe: Float[Tensor, "g n n"]
    energy: Tensor
    gated_energy: Tensor
    samples: Tensor

    def plus(self, more: "Readout") -> "Readout":
        """The sums over both parts of the data."""
        return Readout(*(a + b for a, b in zip(self, more, strict=True)))


def readout(trace: Trace, groups: int = 1, *, columns: bool | None = None) -> Readout:
    """The sums over a trace.

    Args:
        trace: in float64.
        groups: consecutive channels that share write and read.
        columns: True: only `entries` and `gated`. False: only `reach` and `observe`. The other two
            are zero. None: all four.
    """
    sums: Readout | None = None
    for part, z in stretches(trace):
        y = (part.read * z).sum(-1) + part.skip * part.x
        weight = torch.ones_like(y) if part.gate is None else part.gate
        gated = weight[..., None]
        zero = z.new_zeros(groups, z.shape[-1], z.shape[-1])
        entries = passed = reach = observe = zero
        if columns is not False:
            entries, passed = (_gram(v, groups) for v in (part.read * z, part.read * z * gated))
        if columns is not True:
            reach, observe = (_gram(v, groups) for v in (z * gated, part.read))
        more = Readout(
            entries, passed, reach, observe, y.square().sum(), (y * weight).square().sum(),
            torch.tensor(y.numel() / groups, dtype=torch.float64),
        )  # fmt: skip
        sums = more if sums is None else sums.plus(more)
    assert sums is not None
    return sums


def samples(layer: Any, u: Float[Tensor, "b t d"], every: int) -> Iterator[Trace]:
    """Traces of every `every`-th sample of an input; of the whole input at once if that is each.

    Args:
        layer: with `trace`, in float64.
        u: in float64.
    """
    if every == 1:
        yield layer.trace(u).double()
        return
    state = None
    for last in range(every - 1, u.shape[1], every):
        with torch.no_grad():  # not around `yield`, which would switch gradients off for the caller
            _, state = layer(u[:, last - every + 1 : last], state)
            trace = layer.trace(u[:, last : last + 1], state).double()
            _, state = layer(u[:, last : last + 1], state)
        yield trace


def spacing(layer: Any, u: Float[Tensor, "b t d"]) -> int:
    """Distance of the samples of an input whose states are used."""
    numbers = u.shape[0] * u.shape[1] * layer.init_state(1)["ssm"].numel()
    return max(1, min(u.shape[1] // _FEWEST, -(-numbers // _MOST)))


def stretches(trace: Trace) -> Iterator[tuple[Trace, Float[Tensor, "b t c n"]]]:
    """A trace in pieces along time, with z of each: memory does not grow with its length."""
    b, t, c, n = trace.decay.shape
    size = max(1, _ROOM // (b * c * n))
    start = trace.start
    for at in range(0, t, size):
        part = trace.part(times=slice(at, at + size), start=start)
        h = part.states()
        start = h[:, -1]
        if part.own is not None:
            h = h + ((part.own - part.gain) * part.x)[..., None] * part.write
        yield part, h


def _gram(v: Tensor, groups: int) -> Tensor:
    """Sums over samples and channels of a group of v v' (g, n, n), for v (b, t, c, n)."""
    v = v.unflatten(2, (groups, -1)).movedim(2, 0).flatten(1, 3)
    return v.mT @ v


def left_out(sums: Float[Tensor, "g n n"], kept: Tensor) -> Tensor:
    """Energy of the columns that are removed.

    Args:
        sums: `entries` or `gated`.
        kept (g, r): columns of each group.
    """
    out = torch.ones(sums.shape[:2], dtype=sums.dtype).scatter(1, kept, 0)
    return (out[:, None] @ sums @ out[..., None]).sum().clamp(min=0)


def greedy(sums: Float[Tensor, "n n"]) -> list[int]:
    """Columns in the order of removal: each is the one that adds the least error to that of the
    columns before it. The contributions of two columns may cancel or reinforce each other."""
    n = len(sums)
    left, cross, order = list(range(n)), torch.zeros(n, dtype=sums.dtype), []
    while left:
        cost = sums.diagonal()[left] + 2 * cross[left]
        worst = left.pop(int(cost.argmin()))
        order.append(worst)
        cross = cross + sums[:, worst]
    return order


def balanced(
    reach: Float[Tensor, "g n n"], observe: Float[Tensor, "g n n"], r: int
) -> tuple[Float[Tensor, "g n r"], Float[Tensor, "g n r"], Float[Tensor, "g n"]]:
    """W, V and all values S, from P and Q."""
    left, right, S = balance(reach, observe, r, _FLOOR)
    return left.mT, right, S


def projected_error(
    trace: Trace, write: Float[Tensor, "g n r"], read: Float[Tensor, "g n r"]
) -> tuple[Tensor, Tensor]:
    """Energy of z (I - W V') C over a trace, and of y. Exact, and needs no other run."""
    lost, whole = trace.x.new_zeros(()), trace.x.new_zeros(())
    for part, z in stretches(trace):
        g = len(write)
        C, states = (v.unflatten(2, (g, -1)) for v in (part.read, z))
        y = (C * states).sum(-1)
        kept = torch.einsum("btgcn,gnr->btgcr", states, write)
        kept = (kept * torch.einsum("btgcn,gnr->btgcr", C, read)).sum(-1)
        lost = lost + (y - kept).square().sum()
        whole = whole + (y.flatten(2) + part.skip * part.x).square().sum()
    return lost, whole
