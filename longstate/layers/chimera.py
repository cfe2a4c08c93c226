"""Chimera: a state space model that depends on the input, over time and over the variates.

    h_t^v = A1 h_{t-1}^v + A2 g_{t-1}^v + B1 x_t^v        along time
    g_t^v = A3 h_t^{v-1} + A4 g_t^{v-1} + B2 x_t^v        along the variates
    y_t^v = W (silu(Z x_t^v) * (sum over heads of Re(C1 h_t^v + C2 g_t^v) + D x_t^v))

    A1 = exp(s a)       A2 = (1 - |A1|) tanh(k)      B1 = (A1 - 1) / a  b1      a complex, Re a < 0
    A4 = exp(-r c)      A3 = (1 - A4) tanh(l)        B2 = (1 - A4) / c  b2      c > 0

The steps s and r, one for each channel, and b1, b2, C1, C2 are functions of x_t^v, the same ones
for all variates. Each variate has p channels and 4 heads: with small and with large initial s, for
trend and season, and these in the given and in the reversed order of the variates. |A1| + |A2| and
|A3| + A4 are at most 1, so that for any parameters and number of variates no state grows without
input.

g of a sample is a sum over variates at that time, and h of a variate is a scan over time, so a loop
over the variates with one scan each is the whole recurrence. Where there are more variates than
samples, as in a step, it is a loop over time with a scan over the variates.

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
from typing import NamedTuple

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
from longstate.ops import diagonal_scan

HEADS = 4
STEPS = ((1e-3, 1e-2), (1e-2, 1e-1), (1e-3, 1e-2), (1e-2, 1e-1))
"""Ranges of the initial steps of the heads; the last two read the variates in reversed order."""
ACROSS = (0.1, 1.0)
"""Range of the initial steps along the variates."""


class Inputs(NamedTuple):
    """What the sites of a sample need: x, s, r (b, t, v, k, p), b1 and b2 (b, t, v, k, n) real, C1
    and C2 (b, t, v, k, n) complex; in the order in which heads read the variates."""

    x: Tensor
    s: Tensor
    r: Tensor
    b1: Tensor
    b2: Tensor
    C1: Tensor
    C2: Tensor


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
        if mask is not None:  # over a step of length 0 h stays
            time = mask.to(x.dtype) if time is None else torch.where(mask, time, 0)
        with full_precision(u):
            run = self._over_variates if u.shape[1] >= self.variates else self._over_time
            y, h, g = run(self._inputs(x, time), state["h"], state["g"], mask, reset)
            y = _reordered(y).sum(3) + self.D.to(x.dtype) * x
            y = F.linear(F.silu(self._linear(self.gate, x)) * y, self.out_proj.weight.to(x.dtype))
        return zero_masked(y.flatten(2), mask).to(u.dtype), {"h": h, "g": g}

    def _inputs(self, x: Tensor, time: Tensor | None) -> Inputs:
        s, r = F.softplus(self._linear(self.steps, x)).unflatten(-1, (2, HEADS, -1)).unbind(-3)
        if time is not None:
            s = s * time[..., None, None, None].to(s.dtype)
        selected = self._linear(self.select, x).unflatten(-1, (HEADS, 6, -1))
        b1, b2, *C = (selected * self.d_state**-0.5).unbind(-2)
        parts = (x[..., None, :].expand_as(s), s, r, b1, b2)
        return Inputs(*map(_reordered, (*parts, torch.complex(*C[:2]), torch.complex(*C[2:]))))

    def _linear(self, linear: nn.Linear, x: Tensor) -> Tensor:
        bias = None if linear.bias is None else linear.bias.to(x.dtype)
        return F.linear(x, linear.weight.to(x.dtype), bias)

    def _along_time(self, i: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """A1, A2 and B1 x (..., k, p, n)."""
        dtype, s = self._dtype(), i.s[..., None]
        rate = self.log_decay.to(dtype).exp()
        a = torch.complex(-rate, self.frequency.to(dtype))
        change = torch.expm1(s * a)
        coupling = -torch.expm1(-s * rate) * self.coupling[0].to(dtype).tanh()
        return change + 1, coupling, change / a * (i.x[..., None] * i.b1[..., None, :])

    def _along_variates(self, i: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """A3, A4 and B2 x (..., k, p, n)."""
        dtype = self._dtype()
        c = self.log_across.to(dtype).exp()
        moved = i.r[..., None] * c
        lost = -torch.expm1(-moved)
        x = i.x[..., None] * i.b2[..., None, :]
        return lost * self.coupling[1].to(dtype).tanh(), (-moved).exp(), lost / c * x

    def _over_variates(
        self, inputs: Inputs, h: Tensor, g: Tensor, mask: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """y (b, t, v, k, p), and the last h and g: a scan over time for each variate."""
        outputs, before = [], None
        for v in range(self.variates):
            i = _at(inputs, 2, v)
            A3, A4, new = self._along_variates(i)
            now = new.to(h.dtype) if before is None else A3 * before[0] + A4 * before[1] + new
            A1, A2, new = self._along_time(i)
            known = _past(now, g[:, v], mask, reset)
            drive = A2 * known[0] + new
            shape = drive.shape[2:]
            states, last = diagonal_scan(
                drive.flatten(2), A1.flatten(2), h[:, v].flatten(1), reset=reset
            )
            before = states.unflatten(2, shape), now
            outputs.append((_read(before[0], i.C1) + _read(now, i.C2), last.view(len(h), *shape),
                            known[1]))  # fmt: skip
        y, last_h, last_g = zip(*outputs, strict=True)
        return torch.stack(y, 2), torch.stack(last_h, 1), torch.stack(last_g, 1)

    def _over_time(
        self, inputs: Inputs, h: Tensor, g: Tensor, mask: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same: a scan over the variates for each sample."""
        outputs = []
        for t in range(inputs.x.shape[1]):
            i = _at(inputs, 1, t)
            if reset is not None:  # NaN times 0 would be NaN
                h, g = (torch.where(_wide(reset[:, t]), 0, x) for x in (h, g))
            A1, A2, new = self._along_time(i)
            h = A1 * h + A2 * g + new
            A3, A4, new = self._along_variates(i)
            drive = A3 * F.pad(h[:, :-1], (0, 0) * 3 + (1, 0)) + new
            now = diagonal_scan(drive.flatten(2), A4.flatten(2))[0].view_as(h)
            outputs.append(_read(h, i.C1) + _read(now, i.C2))
            g = now if mask is None else torch.where(_wide(mask[:, t]), now, g)
        return torch.stack(outputs, 1), h, g

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.D.dtype, torch.float32)


def _at(inputs: Inputs, axis: int, i: int) -> Inputs:
    return Inputs(*(x.select(axis, i) for x in inputs))


def _past(
    g: Tensor, start: Tensor, mask: Tensor | None, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """g (b, t, ...) of the sample before each one, masked ones left out, and after the last."""
    if mask is not None:
        missing = (~mask[..., None]).to(g.dtype).expand(*g.shape[:2], g[0, 0].numel())
        held = g.masked_fill(~mask[..., None, None, None], 0).flatten(2)
        g = diagonal_scan(held, missing, start.flatten(1), reset=reset)[0].view_as(g)
    past = torch.cat([start[:, None], g[:, :-1]], 1)
    if reset is not None:
        past = torch.where(_wide(reset)[..., 0], 0, past)
    return past, g[:, -1]


def _wide(flag: Tensor) -> Tensor:
    """A flag (...) beside (..., v, k, p, n)."""
    return flag[..., None, None, None, None]


def _read(state: Tensor, C: Tensor) -> Tensor:
    """Re(C x) (..., k, p) of a state (..., k, p, n)."""
    return (state.real * C.real[..., None, :] - state.imag * C.imag[..., None, :]).sum(-1)


def _reordered(x: Tensor) -> Tensor:
    """x (b, t, v, k, ...) with the variates of the last heads in reversed order."""
    ahead, back = x.split(HEADS // 2, dim=3)
    return torch.cat([ahead, back.flip(2)], 3)
