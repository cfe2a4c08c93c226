"""Mamba-3: a selective state space model with a trapezoidal rule and a rotating state.

    z, x, B, C, dt, a, trap, angle = in_proj(u)
    step = softplus(dt + dt_bias)     lambda = sigmoid(trap)     alpha = exp(-max(f(a), 1e-4) step)
    k, q = B and C, normalised, shifted by a bias of each head, rotated by the angles theta
    theta_t = sum over s <= t of pi tanh(angle_s) step_s
    h_t = alpha_t (h_{t-1} + (1 - lambda_t) step_t x_{t-1} k_{t-1}^T) + lambda_t step_t x_t k_t^T
    y_t = h_t q_t + D x_t             out = out_proj(y * silu(z))

lambda = 1 is Mamba-2's rule, 1/2 the trapezoid. Rotating k and q is the same as rotating the state.

"Mamba-3", 2026, arXiv:2603.15569, single input, single output. Parameter names, shapes and initial
values are those of the authors' code. There are two published versions of f, and their checkpoints
are different models: `variant="softplus"`, and since June 2026 `"rational"`, 1 + x for x >= 0 and
1 / (1 - x) below. Differs from the code: angles are summed in double precision and kept in
[0, 2 pi); the optional norm before the output projection is left out.

Irregular time: `dt` multiplies the learned step.

Axes: b batch, t time, d channels, h heads, p channels per head, n state, g groups, s angles.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

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
from longstate.layers._gated import RMSNorm, beside, heads, initial_step_bias, trace_of_heads
from longstate.layers._projected import StateProjection, columns_and_state, with_projection
from longstate.layers._trapezoid import Projection, Tokens, advance, as_scan, scan
from longstate.systems import Selection, Trace

_SLOWEST = 1e-4  # smallest decay rate


class Mamba3(Layer):
    """Heads with one matrix state each; decay and rotation depend on the input.

    State: {"angle": (b, h, s), "ssm": (b, h, p, n), "k": (b, h, n), "v": (b, h, p)}; k and v (the
    code's name for x) are those of the last sample.

    Args:
        d_model: channels in and out.
        d_state: n, columns of each head's state. (n, r): B and C have n columns, and the state has
            r, which `projection` makes of them after they are rotated.
        expand: channels inside, as a multiple of `d_model`.
        d_head: p, channels of a head.
        n_groups: number of groups of heads; the heads of a group share B and C.
        rope_fraction: share of the state's columns that rotate, in pairs of neighbours.
        variant: f, from the projection to a decay rate: "rational" or "softplus". A checkpoint
            does not record which one it was trained with.
        dt_min, dt_max: range of the initial steps.

    Raises:
        ValueError: an option does not exist, `d_head` does not divide the inner channels,
            `n_groups` does not divide the heads, or no pair of columns rotates.
    """

    dynamics = ("dt_bias",)
    own_gate = True
    projection: StateProjection | None

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int | Sequence[int] = 128,
        expand: int = 2,
        d_head: int = 64,
        n_groups: int = 1,
        rope_fraction: float = 0.5,
        variant: Literal["rational", "softplus"] = "rational",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ):
        super().__init__()
        if variant not in ("rational", "softplus"):
            raise ValueError(f"variant must be 'rational' or 'softplus'; got {variant!r}")
        columns, self.d_state = columns_and_state(d_state)
        self.n_angles = int(columns * rope_fraction) // 2
        if not 0 < self.n_angles <= columns // 2:
            raise ValueError(
                f"rope_fraction must rotate at least one pair of {columns} columns and at most "
                f"all; got {rope_fraction}"
            )
        self.d_model, self._columns, self.n_groups = d_model, columns, n_groups
        self.d_head, self.n_heads = d_head, heads(expand * d_model, d_head, n_groups)
        self.variant, self.scans = variant, {"all": scan}
        inner, groups, h = expand * d_model, n_groups * columns, self.n_heads
        self._sizes = [inner, inner, groups, groups, h, h, h, self.n_angles]
        self.in_proj = nn.Linear(d_model, sum(self._sizes), bias=False)
        self.dt_bias = nn.Parameter(initial_step_bias(h, dt_min, dt_max))
        self.B_bias = nn.Parameter(torch.ones(h, 1, columns))
        self.C_bias = nn.Parameter(torch.ones(h, 1, columns))
        self.B_norm, self.C_norm = RMSNorm(columns), RMSNorm(columns)
        self.D = nn.Parameter(torch.ones(h))
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        kept = self.d_state < columns
        made = StateProjection(h, columns, self.d_state) if kept else None
        self.register_module("projection", made)

    def init_state(self, batch: int) -> State:
        """Zero."""
        h, dtype = self.n_heads, torch.promote_types(self.D.dtype, torch.float32)
        shapes = {
            "angle": (h, self.n_angles),
            "ssm": (h, self.d_head, self.d_state),
            "k": (h, self.d_state),
            "v": (h, self.d_head),
        }
        return {k: self.D.new_zeros(batch, *shape, dtype=dtype) for k, shape in shapes.items()}

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
        dt = scaled(u, dt, rate)
        u = zero_masked(u, mask)
        z, tokens = self._project(u, dt)
        with full_precision(u):
            y, state = self.scans["all"](tokens, self.D, state, mask, reset, self._by())
        y = self.out_proj((y.flatten(2) * F.silu(z)).to(self.B_norm.weight.dtype))
        y = zero_masked(y, mask)
        return y.to(u.dtype), state

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
        state = check_step(self, u, state, dt, mask, reset, rate)
        dt = scaled(u, dt, rate)
        if reset is not None:
            state = {k: torch.where(beside(reset, v), 0, v) for k, v in state.items()}
        u = zero_masked(u, mask)
        z, tokens = self._project(u, dt)
        with full_precision(u):
            y, after = advance(tokens, self.D, state, self._by())
        y = self.out_proj((y.flatten(1) * F.silu(z)).to(self.B_norm.weight.dtype))
        if mask is not None:
            y = y.masked_fill(~mask[:, None], 0)
            after = {k: torch.where(beside(mask, v), v, state[k]) for k, v in after.items()}
        return y.to(u.dtype), after

    def trace(self, u: Float[Tensor, "b t d"], state: State = None) -> Trace:
        """The recurrence on `u` as data, for `longstate.memory`; channels of all heads.

        `out_proj(trace.outputs() * trace.gate)` is the output of a call.
        """
        state = check_call(self, u, state, None, None, None)
        z, tokens = self._project(u, None)
        k, q, first, weight, h0 = as_scan(tokens, state, None, None, self._by())[:5]
        trace = trace_of_heads(tokens.v, tokens.log_a, weight, k, q, h0, self.D, first)
        return replace(trace, gate=F.silu(z))

    def selection(self) -> Selection:
        """The layer's constants, for certificates; see `Selection`."""
        W, inner = self.in_proj.weight, self._sizes[0]
        bias = W.new_zeros(len(W)) if self.in_proj.bias is None else self.in_proj.bias
        at = 2 * inner + 2 * self.n_groups * self._columns
        steps, rates = slice(at, at + self.n_heads), slice(at + self.n_heads, at + 2 * self.n_heads)
        # bound for each head: normalised, scaled, shifted; rotation keeps the length of pairs
        cap = self._columns**0.5 * self.B_norm.weight.abs() + self.B_bias[:, 0].abs()
        pairs = cap[:, : 2 * self.n_angles].unflatten(1, (-1, 2)).norm(dim=2)
        cap = torch.cat([pairs.repeat_interleave(2, dim=1), cap[:, 2 * self.n_angles :]], dim=1)
        if self.projection is not None:
            cap = torch.einsum("hn,hnr->hr", cap, self.projection.write.abs().to(cap))
        return Selection(
            into=W[inner : 2 * inner],
            offset=bias[inner : 2 * inner],
            taps=W.new_ones(inner, 1),
            bias=W.new_zeros(inner),
            silu=False,
            inner=inner,
            shift=self.dt_bias + bias[steps],
            rate=W.new_full((self.n_heads, 1), _SLOWEST),
            direct=W[steps],
            write_cap=cap.flatten(),
            rate_direct=W[rates],
            rate_shift=bias[rates],
            rate_of=self._rate,
            split=True,
            groups=self.n_heads,
        )

    def with_projection(
        self, write: Float[Tensor, "h n r"], read: Float[Tensor, "h n r"]
    ) -> "Mamba3":
        """A copy whose state is h W in place of h, and read along V' q, for rotated k and q: a
        head's output changes by h (I - W V') q, whatever the input.

        Args:
            write, read (h, n, r): W and V of each head.
        """
        return with_projection(self, write, read)

    def _by(self) -> Projection:
        p = self.projection
        return None if p is None else (p.write, p.read)

    def _project(self, u: Tensor, dt: Tensor | None) -> tuple[Tensor, Tokens]:
        projected = self.in_proj(u.to(self.B_norm.weight.dtype))
        with full_precision(u):
            wide = torch.promote_types(self.D.dtype, torch.float32)
            z, x, B, C, step, a, trap, angle = projected.to(wide).split(self._sizes, -1)
            B, C = (v.unflatten(-1, (self.n_groups, self._columns)) for v in (B, C))
            step = F.softplus(step + self.dt_bias)
            if dt is not None:
                step = step * dt[..., None].to(wide)
            tokens = Tokens(
                v=x.unflatten(-1, (self.n_heads, self.d_head)),
                k=self._of_heads(self.B_norm(B), self.B_bias),
                q=self._of_heads(self.C_norm(C), self.C_bias),
                step=step,
                log_a=-self._rate(a) * step,
                share=trap.sigmoid(),
                turn=torch.pi * angle.tanh()[..., None, :] * step[..., None],
            )
        return z, tokens

    def _rate(self, a: Tensor) -> Tensor:
        """Decay rates, at least `_SLOWEST`."""
        if self.variant == "softplus":
            rate = F.softplus(a)
        else:
            rate = 1 / (1 - a.clamp(max=0)) + a.clamp(min=0)
        return rate.clamp(min=_SLOWEST)

    def _of_heads(self, v: Tensor, bias: Tensor) -> Tensor:
        """Repeat (..., g, n) for each head and add the bias: (..., h, n)."""
        return v.repeat_interleave(self.n_heads // self.n_groups, dim=-2) + bias[:, 0]
