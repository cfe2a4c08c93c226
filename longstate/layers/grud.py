"""GRU-D: a gated cell for channels with missing values, whose memory fades between observations.

Channel i of a sample is missing where u_t is NaN. m_t is 1 where it is observed, delta_t the time
since its last observation, and x' the value of it.

    gamma = exp(-max(0, v * delta_t + c))     for each channel
    eta   = exp(-max(0, V delta_t + e))       for each unit
    x_t   = u_t where observed, else mean + gamma * (x' - mean)
    h     = eta * h_{t-1}
    r, z  = sigmoid(W [x_t; m_t] + U h + b)
    q     = tanh(W_q [x_t; m_t] + U_q (r * h) + b_q)
    h_t   = (1 - z) * h + z * q                         y_t = W_out h_t

So a missing value is the last one at first, and becomes the mean of its channel with time.

Che, Purushotham, Cho, Sontag, Liu, "Recurrent Neural Networks for Multivariate Time Series with
Missing Values", Scientific Reports 2018, arXiv:1606.01865. Differs from the paper: delta of the
first sample is its `dt`, and not 0; an output projection makes the number of states independent of
`d_model`; dropout and batch normalisation are left out, and the initial values are ours, with v and
V above 0, since max(0, .) has no gradient below 0.

A split step or a redundant sample changes the state, because the gates count samples.

Axes: b batch, t time, d channels, n state.
"""

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._cell import Cell, Parts, each_sample


class Weights(NamedTuple):
    """The names of the equations above; U has U_q below."""

    W: Tensor
    b: Tensor
    U: Tensor
    v: Tensor
    c: Tensor
    V: Tensor
    e: Tensor
    mean: Tensor


class GRUD(Cell):
    """A gated recurrent unit for irregular times and missing values.

    State: {"h": (b, n), "last": (b, d), "gap": (b, d)}: `last` is the last observed value less the
    mean, and `gap` the time since then.

    A NaN in `u` is a missing value of that channel, and not an error as in other layers. A whole
    sample that is missing may also be left out: `mask` skips it, and the `dt` of the next sample is
    the time since the last one that is there (`longstate.layers.intervals`).

    Args:
        d_model: channels in and out.
        d_state: n, units of the cell.

    Raises:
        ValueError: `d_state` is below 1.
    """

    dynamics = ("input_rate", "input_shift", "hidden_rate", "hidden_shift")
    mean: Tensor

    def __init__(self, d_model: int, *, d_state: int = 64):
        super().__init__()
        if d_state < 1:
            raise ValueError(f"d_state must be at least 1; got {d_state}")
        self.d_model, self.d_state = d_model, d_state
        self.in_proj = nn.Linear(2 * d_model, 3 * d_state)
        self.recurrent = nn.Linear(d_state, 3 * d_state, bias=False)
        self.out_proj = nn.Linear(d_state, d_model)
        for p in (*self.in_proj.parameters(), *self.recurrent.parameters()):
            nn.init.uniform_(p, -(d_state**-0.5), d_state**-0.5)  # as torch.nn.GRU does
        self.input_rate = nn.Parameter(torch.rand(d_model))
        self.input_shift = nn.Parameter(torch.zeros(d_model))
        self.hidden_rate = nn.Parameter(torch.rand(d_state, d_model) / d_model)
        self.hidden_shift = nn.Parameter(torch.zeros(d_state))
        self.register_buffer("mean", torch.zeros(d_model))

    def fit_mean(self, u: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"] | None = None) -> None:
        """Set the mean of each channel to that of the values of `u` that are not NaN and not
        masked; a channel without any keeps its mean. It is 0 before, as for standardised data."""
        if mask is not None:
            u = u.masked_fill(~mask[..., None], torch.nan)
        found = u.flatten(0, 1).nanmean(dim=0).to(self.mean.dtype)
        self.mean.copy_(torch.where(found.isnan(), self.mean, found))

    def _sizes(self) -> dict[str, int]:
        return {"h": self.d_state, "last": self.d_model, "gap": self.d_model}

    def _run(
        self,
        x: Tensor,
        dt: Tensor | None,
        state: Parts,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, Parts]:
        W, b, U = self.in_proj.weight, self.in_proj.bias, self.recurrent.weight
        fading = self.input_rate, self.input_shift, self.hidden_rate, self.hidden_shift
        weights = Weights(*(p.to(x.dtype) for p in (W, b, U, *fading, self.mean)))
        seen = ~x.isnan()
        centred = torch.where(seen, x - weights.mean, 0)
        dt = x.new_ones(x.shape[:2]) if dt is None else dt.to(x.dtype)
        inputs = centred, seen, dt[..., None]
        return each_sample(partial(self._advance, weights), inputs, state, mask, reset)

    def _advance(self, w: Weights, now: Parts, state: Parts) -> Parts:
        (new, seen, dt), (h, last, gap), n = now, state, 2 * self.d_state
        gap = gap + dt
        faded = torch.exp(-F.relu(w.v * gap + w.c)) * last
        filled = w.mean + torch.where(seen, new, faded)
        h = torch.exp(-F.relu(F.linear(gap, w.V, w.e))) * h
        driven = F.linear(torch.cat([filled, seen.to(h.dtype)], dim=-1), w.W, w.b)
        r, z = torch.sigmoid(driven[:, :n] + F.linear(h, w.U[:n])).chunk(2, dim=-1)
        q = torch.tanh(driven[:, n:] + F.linear(r * h, w.U[n:]))
        return h + z * (q - h), torch.where(seen, new, last), torch.where(seen, 0, gap)
