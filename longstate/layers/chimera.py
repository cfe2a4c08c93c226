"""Chimera: a state space model that depends on the input, over time and over the variates.

    h_t^v = A1 h_{t-1}^v + A2 g_{t-1}^v + B1 x_t^v        along time
    g_t^v = A3 h_t^{v-1} + A4 g_t^{v-1} + B2 x_t^v        along the variates
    y_t^v = W (silu(Z x_t^v) * (sum over heads of Re(C1 h_t^v + C2 g_t^v) + D x_t^v))

    A1 = exp(s a)       A2 = (1 - |A1|) tanh(k)      B1 = (A1 - 1) / a  b1      a complex, Re a < 0
    A4 = exp(-r c)      A3 = (1 - A4) tanh(l)        B2 = (1 - A4) / c  b2      c > 0

The steps s and r, one for each channel of a head, and b1, b2, C1, C2 are functions of x_t^v, the
same ones for all variates. Each variate has p channels and 4 heads: with small and with large
initial s, for trend and season, and these in the given and in the reversed order of the variates.
|A1| + |A2| and |A3| + A4 are at most 1, so that for any parameters and number of variates no state
grows without input.

In the contract of `Layer` u is (b, t, d) with d = variates * p, the variates first:
`layer(x.flatten(2))` reads x (b, t, variates, p). With one variate, the default, g sees nothing but
the current sample.

Behrouz, Santacatterina, Zabih, "Chimera: Effectively Modeling Multivariate Time Series with
2-Dimensional State Space Models", NeurIPS 2024, arXiv:2406.04320. Differs from the paper: there is
no official code and we could not read the full text. This file is a reconstruction from the
abstract and from secondary notes, which have the two recurrences, their steps, the two heads, both
orders of the variates and the gate. There A1 and A2 are companion matrices and all four are
exp(step * matrix), run by a 2-D scan; here A1 is diagonal and complex, A2 and A3 are bounded as
above, and all initial values are ours. The paper's decoder is not here.

Irregular time: `dt` multiplies s, which is exact for x and g that are constant between samples.

Axes: b batch, t time, d numbers in a sample, v variates, k heads, p channels, n state.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._base import (
    Layer,
    State,
    check_call,
    full_precision,
    of_no_rows,
    scaled,
    zero_masked,
)
from longstate.layers._channelwise import log_uniform
from longstate.ops.chimera_scan import chimera_scan

HEADS = 4
STEPS = ((1e-3, 1e-2), (1e-2, 1e-1), (1e-3, 1e-2), (1e-2, 1e-1))
"""Ranges of the initial steps of the heads; the last two read the variates in reversed order."""
ACROSS = (0.1, 1.0)
"""Range of the initial steps along the variates."""


class Chimera(Layer):
    """Two coupled states for each variate, one carried along time, one along the variates.

    State: {"h": (b, v, k, p, n), "g": (b, v, k, p, n)}, complex. The last two heads have the
    variates in reversed order.

    Args:
        d_model: numbers in a sample, variates * p.
        variates: number of variates.
        d_state: n, complex numbers in each state of a channel.

    Raises:
        ValueError: `d_model` is not a multiple of `variates`, or an option is below 1.
    """

    dynamics = ("log_decay", "frequency", "log_across", "coupling")
    own_gate = True

    def __init__(self, d_model: int, *, variates: int = 1, d_state: int = 8):
        super().__init__()
        if variates < 1 or d_model < 1 or d_model % variates:
            raise ValueError(
                "d_model must be variates * channels, a multiple of variates; got "
                f"{d_model} with {variates} variates"
            )
        if d_state < 1:
            raise ValueError(f"d_state must be at least 1; got {d_state}")
        self.d_model, self.variates, self.d_state = d_model, variates, d_state
        p = d_model // variates
        shape = (HEADS, p, d_state)
        self.log_decay = nn.Parameter(torch.full(shape, math.log(0.5)))
        self.frequency = nn.Parameter((torch.pi * torch.arange(d_state)).expand(shape).clone())
        self.log_across = nn.Parameter(torch.arange(1.0, d_state + 1).log().expand(shape).clone())
        self.coupling = nn.Parameter(0.5 * torch.randn(2, *shape))
        self.steps = nn.Linear(p, 2 * HEADS * p)
        self.select = nn.Linear(p, 6 * HEADS * d_state, bias=False)
        self.gate = nn.Linear(p, p, bias=False)
        self.D = nn.Parameter(torch.ones(p))
        self.out_proj = nn.Linear(p, p, bias=False)
        first = torch.stack(
            [log_uniform((p,), *bounds).exp() for bounds in (*STEPS, *[ACROSS] * HEADS)]
        )
        # softplus of the bias is the step of an input of 0
        self.steps.bias = nn.Parameter(torch.expm1(first).log().flatten())
        with torch.no_grad():
            self.steps.weight.mul_(0.1)

    def init_state(self, batch: int) -> State:
        """Zero."""
        shape = (batch, self.variates, *self.log_decay.shape)
        dtype = torch.promote_types(self._dtype(), torch.complex64)
        zero = torch.zeros(shape, dtype=dtype, device=self.D.device)
        return {"h": zero, "g": zero.clone()}

    def forward(
        self,
        u: Float[Tensor, "b t d"],
        state: State = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        state = check_call(self, u, state, dt, mask, reset, rate)
        if len(u) == 0:
            return of_no_rows(self, u)
        x = zero_masked(u.to(self._dtype()), mask).unflatten(2, (self.variates, -1))
        time = scaled(u, dt, rate)
        if mask is not None and time is not None:
            time = torch.where(mask, time, 0)
        with full_precision(u):
            sites, s, r, select = self._sites(x, time)
            a, c, coupling = self._channels()
            y, h, g = chimera_scan(
                sites, s, r, select, a, c, coupling, state["h"], state["g"], mask=mask, reset=reset
            )
            y = _reordered(y).sum(3) + self.D.to(x.dtype) * x
            y = F.linear(F.silu(self._linear(self.gate, x)) * y, self.out_proj.weight.to(x.dtype))
        return zero_masked(y.flatten(2), mask).to(u.dtype), {"h": h, "g": g}

    def _sites(self, x: Tensor, time: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, s, r (b, t, v, k, p) and b1, b2, C1 and C2 (b, t, v, k, 6, n), in the order in which
        heads read the variates."""
        s, r = F.softplus(self._linear(self.steps, x)).unflatten(-1, (2, HEADS, -1)).unbind(-3)
        if time is not None:
            s = s * time[..., None, None, None].to(s.dtype)
        selected = self._linear(self.select, x).unflatten(-1, (HEADS, 6, -1))
        x, selected = x[..., None, :].expand_as(s), selected * self.d_state**-0.5
        return _reordered(x), _reordered(s), _reordered(r), _reordered(selected)

    def _channels(self) -> tuple[Tensor, Tensor, Tensor]:
        """a (k, p, n) complex, c (k, p, n), and the couplings (2, k, p, n), bounded."""
        dtype = self._dtype()
        decay, across = (log.to(dtype).exp() for log in (self.log_decay, self.log_across))
        a = torch.complex(-decay, self.frequency.to(dtype))
        return a, across, self.coupling.to(dtype).tanh()

    def _linear(self, linear: nn.Linear, x: Tensor) -> Tensor:
        bias = None if linear.bias is None else linear.bias.to(x.dtype)
        return F.linear(x, linear.weight.to(x.dtype), bias)

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.D.dtype, torch.float32)


def _reordered(x: Tensor) -> Tensor:
    """x (b, t, v, k, ...) with the variates of the last heads in reversed order."""
    ahead, back = x.split(HEADS // 2, dim=3)
    return torch.cat([ahead, back.flip(2)], 3)
