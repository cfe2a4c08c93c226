"""How many numbers of a state are in use: in its values, and between past and future.

For the values on data, from the eigenvalues v of their covariance: the participation ratio
(sum v)^2 / sum v^2 and the entropy rank exp(H(v / sum v)). Both depend on the units of the state.

Between past and future: the effective state size at position i is the entropy rank of the block of
the operator that maps inputs up to i to outputs from i on (Parnichkun et al., ICML 2025). Its
singular values sigma do not depend on coordinates. They come from two n x n sums for each channel,

    P_i = sum over s <= i of v v'      v: effect of input s on state i
    Q_i = sum over t >= i of w w'      w: effect of state i on output t
    sigma^2 = eigenvalues of P_i Q_i

and not from a matrix of the size of the sequence. For a linear system this is the Hankel spectrum.

Axes: b batch, t time, i positions, c channels, n state of a channel.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from longstate._numbers import number
from longstate.memory._gramians import factor
from longstate.memory._plot import draw
from longstate.memory._result import THIS_DATA, Result
from longstate.systems import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, kw_only=True)
class EffectiveState(Result):
    """Effective sizes of the state of a selective layer on recorded data.

    Args:
        positions (i): the samples after which the size was computed.
        along (b, i): effective state size there, summed over the channels.
        channels (c): its mean over data and positions, for each channel.
        participation, entropy_rank: of the covariance of the whole state over the data.
        d_state: numbers that the state holds.
    """

    positions: Tensor
    along: Float[Tensor, "b i"]
    channels: Float[Tensor, " c"]
    participation: float
    entropy_rank: float
    d_state: int

    def rows(self) -> tuple[list[str], list[list[str]]]:
        along = self.along.mean(0)
        shown = range(0, len(along), max(1, len(along) // 12))
        body = [[str(int(self.positions[i])), number(float(along[i]))] for i in shown]
        return ["position", "effective numbers"], body

    def plot(self) -> "Figure":
        def paint(ax):
            for row in self.along:
                ax.plot(self.positions, row, linewidth=0.8)
            ax.set_ylim(bottom=0)

        label = f"effective numbers, of {self.d_state}"
        return draw(self, "Effective state along the sequence", "position", label, paint, wide=True)


def effective_state(trace: Trace, *, positions: int = 64) -> EffectiveState:
    """Effective sizes along a recorded sequence.

    Args:
        trace: of a selective layer.
        positions: number of positions, evenly spaced. All positions if there are fewer.
    """
    trace = trace.double()
    t = trace.length
    at = torch.linspace(0, t - 1, min(positions, t)).round().long().unique()
    sigma = _through(trace, at)  # (i, b, c, n)
    share = sigma / sigma.sum(-1, keepdim=True).clamp(min=1e-300)
    size = torch.special.entr(share).sum(-1).exp() * (sigma.sum(-1) > 0)
    states = trace.states().flatten(0, 1).flatten(1)
    variance = torch.linalg.svdvals(states - states.mean(0)).square()
    weights = variance / variance.sum().clamp(min=1e-300)
    along = size.sum(-1).T
    return EffectiveState(
        kind="exact",
        scope=THIS_DATA,
        sentence=f"Of the {trace.d_state} numbers of the state about {number(float(along.mean()))} "
        "carry information from the past of this data to its future.",
        positions=at,
        along=along,
        channels=size.mean((0, 1)),
        participation=float(1 / weights.square().sum().clamp(min=1e-300)),
        entropy_rank=float(torch.special.entr(weights).sum().exp()),
        d_state=trace.d_state,
    )


def _through(trace: Trace, at: Tensor) -> Tensor:
    """Singular values (i, b, c, n) of the past-to-future block at each position."""
    b, t, c, n = trace.decay.shape
    wanted, reach = set(at.tolist()), {}
    drive = trace.gain[..., None] * trace.write
    P = trace.x.new_zeros(b, c, n, n)
    for i in range(t):
        P = trace.carry(i, trace.carry(i, P).mT) + drive[:, i, :, :, None] * drive[:, i, :, None]
        if i in wanted:
            reach[i] = P
    Q, sigma = trace.x.new_zeros(b, c, n, n), []
    for i in range(t - 1, -1, -1):
        if i < t - 1:
            Q = _transposed(trace, i + 1, _transposed(trace, i + 1, Q).mT)
        read = trace.read[:, i]
        Q = Q + read[..., :, None] * read[..., None, :]
        if i in wanted:
            sigma.append(torch.linalg.svdvals(factor(Q).mT @ factor(reach.pop(i))))
    return torch.stack(sigma[::-1])


def _transposed(trace: Trace, t: int, h: Tensor) -> Tensor:
    """The transpose of `Trace.carry`, on columns h (b, c, n, k)."""
    kept = trace.decay[:, t, :, :, None] * h
    if trace.erase is None:
        return kept
    write = trace.write[
        :, t, :, :, None
    ]  # the matrix diag(decay) - erase write write' is symmetric
    return kept - trace.erase[:, t, :, None, None] * write * (write * h).sum(2, keepdim=True)
