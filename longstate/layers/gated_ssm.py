"""A linear state space model whose gate decides, from the input, what is written into the state.

    g_t = floor + (1 - floor) sigmoid(W u_t + w)        n gates, one for each entry of the state
    c_t = A h_{t-1} + B u_t                             A diagonal, 0 < A < 1 by construction
    h_t = (1 - g_t) * h_{t-1} + g_t * c_t = (1 - g_t (1 - A)) * h_{t-1} + g_t * B u_t
    y_t = C h_t + D * u_t

A gate near 0 keeps an entry, a gate near 1 lets the new input in. The gate depends on the input
alone, so that the recurrence is linear in h and runs as a scan. With A = 0 and a gate without a
floor it is Mamba's recurrence for A = -1 and a step softplus(W u + w), by zero-order hold.

With `top_k` only the k entries with the largest gates are written at a sample. The other entries
are not written: they keep their values exactly, or, with a floor, decay by 1 - floor (1 - A).
This hard gate is the only form of the layer that saves work: a step without gradients, for few
sequences at once, computes k of the n products B u. The gates and C h are still computed whole. Its
gradient is straight-through: that of the gates before all but k were set to 0.

Bhat, "Mathematical Formalism for Memory Compression in Selective State Space Models", 2024,
arXiv:2410.03158. Differs from the paper: we could not read its full text, and this file is a
reconstruction from its abstract and from secondary notes. Reconstructed are the convex form of the
update, the diagonal A, the gate without h, the choice of the k entries, the gradient, and all
initial values. The floor and irregular time are not in those notes.

Irregular time: `dt` samples of the same input, which is also defined for a dt that is not whole:
the decay is a^dt, and B u / (1 - A) is written with a weight of 1 - a^dt, where a is the decay of
one sample.

Axes: b batch, t time, d channels, n state.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._base import (
    Layer,
    State,
    check_call,
    check_step,
    full_precision,
    of_no_rows,
    scaled,
    zero_masked,
)
from longstate.layers._channelwise import log_uniform
from longstate.layers._gated import beside
from longstate.ops import diagonal_scan
from longstate.systems import GateSelection, Trace

_GATHERED = 4  # a gathered row of B takes about as long as so many rows of a product


class GatedSSM(Layer):
    """One state for all channels, written through a gate that depends on the input.

    State: {"ssm": (b, n, 1)}.

    Args:
        d_model: channels in and out.
        d_state: n, entries of the state.
        top_k: number of entries that are written at a sample; None writes all.
        floor: smallest gate, at least 0 and below 1. Above 0, every entry decays at every sample,
            so that the memory of the layer is limited for all inputs.
        decay_min, decay_max: range of the initial 1 - A.

    Raises:
        ValueError: an option is out of its range.
    """

    dynamics = ("log_rate",)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        top_k: int | None = None,
        floor: float = 0.0,
        decay_min: float = 1e-3,
        decay_max: float = 0.5,
    ):
        super().__init__()
        if d_state < 1:
            raise ValueError(f"d_state must be at least 1; got {d_state}")
        if top_k is not None and not 1 <= top_k <= d_state:
            raise ValueError(f"top_k must be 1 to d_state = {d_state}, or None; got {top_k}")
        if not 0 <= floor < 1:
            raise ValueError(f"floor must be at least 0 and below 1; got {floor}")
        if not 0 < decay_min <= decay_max < 1:
            raise ValueError(
                "decay_min and decay_max must be in order, above 0 and below 1; got "
                f"{decay_min} and {decay_max}"
            )
        self.scans = {"ssm": diagonal_scan}
        self.d_model, self.d_state = d_model, d_state
        self.top_k, self.floor = top_k, float(floor)
        self.gate = nn.Linear(d_model, d_state)
        lost = log_uniform((d_state,), decay_min, decay_max).exp()
        self.log_rate = nn.Parameter((-torch.log1p(-lost)).log())
        self.B = nn.Parameter(torch.randn(d_state, d_model) * d_model**-0.5)
        self.C = nn.Parameter(torch.randn(d_model, d_state) * d_state**-0.5)
        self.D = nn.Parameter(torch.randn(d_model))

    def init_state(self, batch: int) -> State:
        """Zero."""
        return {"ssm": self.D.new_zeros(batch, self.d_state, 1, dtype=self._dtype())}

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
        """See `Layer`. `rate` is exact for an input that is constant between samples."""
        state = check_call(self, u, state, dt, mask, reset, rate)
        if len(u) == 0:
            return of_no_rows(self, u)
        dt = scaled(u, dt, rate)
        wide = zero_masked(u.to(self._dtype()), mask)
        if dt is not None and mask is not None:
            dt = torch.where(mask, dt, 0)
        with full_precision(u):
            kept, written = self._gates(wide)
            decay, weight = self._step_of(kept, written, dt)
            drive = weight * F.linear(wide, self.B.to(wide.dtype))
            h0 = state["ssm"][..., 0]
            h, last = self.scans["ssm"](drive, decay, h0, mask=mask, reset=reset)
            y = F.linear(h, self.C.to(h.dtype)) + self.D * wide
        return zero_masked(y, mask).to(u.dtype), {"ssm": last[..., None]}

    def step(
        self,
        u: Float[Tensor, "b d"],
        state: State,
        *,
        dt: Float[Tensor, " b"] | None = None,
        mask: Bool[Tensor, " b"] | None = None,
        reset: Bool[Tensor, " b"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b d"], State]:
        """With `top_k`, without gradients, and for few sequences, only k entries are computed."""
        k = self.top_k
        few = k is not None and 0 < _GATHERED * len(u) * k <= self.d_state
        if k is None or not few or torch.is_grad_enabled():
            return super().step(u, state, dt=dt, mask=mask, reset=reset, rate=rate)
        state = check_step(self, u, state, dt, mask, reset, rate)
        dt, x = scaled(u, dt, rate), zero_masked(u.to(self._dtype()), mask)
        start = state["ssm"][..., 0]
        h = start = start if reset is None else start.masked_fill(beside(reset, start), 0)
        with full_precision(u):
            raw = F.linear(x, self.gate.weight.to(x.dtype), self.gate.bias.to(x.dtype))
            at = raw.topk(k, dim=-1).indices
            g = self._soft(raw.gather(1, at))
            decay, weight = self._step_of(g, g, dt, at)
            into = torch.einsum("bkd,bd->bk", self.B.to(x.dtype)[at], x)
            new = decay * h.gather(1, at) + weight * into
            if self.floor:
                every = torch.full_like(h, self.floor)
                h = h * self._step_of(every, every, dt)[0]
            new = h.scatter(1, at, new)
            if mask is not None:
                new = torch.where(beside(mask, new), new, start)
            y = F.linear(new, self.C.to(x.dtype)) + self.D * x
        return zero_masked(y, mask).to(u.dtype), {"ssm": new[..., None]}

    def trace(self, u: Float[Tensor, "b t d"], state: State = None) -> Trace:
        """The recurrence on `u` as data: each entry of the state is a channel with one state.

        Entry i is read with the weight |C_i|, the length of a column of C. With those columns
        scaled to length 1, C_1, the output of a call is `trace.outputs() @ C_1.T + D * u`.
        """
        state = check_call(self, u, state, None, None, None)
        wide = u.to(self._dtype())
        decay, weight = self._step_of(*self._gates(wide), None)
        x = F.linear(wide, self.B.to(wide.dtype))
        one = torch.ones_like(x)[..., None]
        read = self.C.to(x.dtype).norm(dim=0)[:, None].expand_as(one)
        return Trace(
            x, decay[..., None], weight, one, read, state["ssm"], torch.zeros_like(x[0, 0])
        )

    def selection(self) -> GateSelection:
        """The layer's constants, for certificates; see `GateSelection`."""
        return GateSelection(
            gate=self.gate.weight,
            shift=self.gate.bias,
            floor=self.floor,
            hard=self.top_k is not None and self.top_k < self.d_state,
            lost=self._lost(),
            into=self.B,
        )

    def _soft(self, raw: Tensor) -> Tensor:
        return self.floor + (1 - self.floor) * raw.sigmoid()

    def _gates(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Gates (b, t, n) of the decay and of what is written."""
        raw = F.linear(u, self.gate.weight.to(u.dtype), self.gate.bias.to(u.dtype))
        g = self._soft(raw)
        if self.top_k is None:
            return g, g
        at = raw.detach().topk(self.top_k, dim=-1).indices
        chosen = torch.zeros_like(raw, dtype=torch.bool).scatter(-1, at, True)
        # straight-through: these values, and the gradient of g
        kept = g + (torch.where(chosen, g, self.floor) - g).detach()
        written = g + (torch.where(chosen, g, 0.0) - g).detach()
        return kept, written

    def _step_of(
        self, kept: Tensor, written: Tensor, dt: Tensor | None, at: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Decay, and weight of B u, from the gates (..., n), or those of the entries `at`."""
        lost = self._lost() if at is None else self._lost()[at]
        if dt is None:
            return 1 - kept * lost, written
        most = 1 - torch.finfo(lost.dtype).eps  # so that the logarithm is finite
        dt = dt[..., None].to(lost.dtype)
        decay = (dt * torch.log1p(-(kept * lost).clamp(max=most))).exp()
        return decay, -torch.expm1(dt * torch.log1p(-(written * lost).clamp(max=most))) / lost

    def _lost(self) -> Tensor:
        """1 - A (n)."""
        rate = self.log_rate.to(self._dtype()).exp()
        return -torch.expm1(-rate.clamp(min=torch.finfo(rate.dtype).tiny))

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.D.dtype, torch.float32)

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, d_state={self.d_state}, top_k={self.top_k}"
