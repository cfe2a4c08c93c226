"""Mamba-2: a selective state space model with one decay per head, run as matrix products.

    z, (x, B, C), dt = in_proj(u)            x, B, C then go through a causal convolution and SiLU
    step = softplus(dt + dt_bias)            within `dt_limit`
    h_t = exp(-exp(A_log) step_t) h_{t-1} + step_t x_t B_t^T        one matrix h for each head
    y_t = h_t C_t + D x_t
    out = out_proj(norm(y * silu(z)))        RMS over the channels of a group of heads

Dao and Gu, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured
State Space Duality", ICML 2024, arXiv:2405.21060. Parameter names, shapes and initial values are
those of the authors' code. Differs from it: no gated MLP beside the heads, the projections are
built without bias, D is one number per head; `dt_limit` applies in `forward` and in `step`.

Irregular time: `dt` multiplies the learned step. The short convolution counts samples and ignores
the time between them.

Axes: b batch, t time, d channels, h heads, p channels per head, n state, g groups, k taps.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
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
from longstate.layers._gated import (
    GatedRMSNorm,
    heads,
    initial_step_bias,
    short_conv_weights,
    step_limits,
    trace_of_heads,
    traced_conv,
)
from longstate.layers._projected import (
    StateProjection,
    check_columns,
    columns_and_state,
    selection_of,
    with_projection,
)
from longstate.layers._resized import resized
from longstate.ops import chunk_scan, short_conv
from longstate.systems import Selection, Trace


class Mamba2(Layer):
    """Heads with one matrix state each; the decay of a head depends on the input.

    State: {"taps": (b, k - 1, h p + 2 g n), "ssm": (b, h, p, n)}.

    Args:
        d_model: channels in and out.
        d_state: n, columns of each head's state. (n, r): B and C have n columns, and the state has
            r, which `projection` makes of them.
        d_conv: taps of the convolution.
        expand: channels inside, as a multiple of `d_model`.
        d_head: p, channels of a head.
        n_groups: number of groups of heads; the heads of a group share B and C.
        dt_min, dt_max: range of the initial steps.
        dt_limit: smallest and largest learned step; None in the second place is no limit.

    Raises:
        ValueError: `d_head` does not divide the inner channels, `n_groups` does not divide the
            heads, or the limits are not in order.
    """

    dynamics = ("A_log", "dt_bias")
    own_gate = True
    projection: StateProjection | None

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int | Sequence[int] = 128,
        d_conv: int = 4,
        expand: int = 2,
        d_head: int = 64,
        n_groups: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_limit: Sequence[float | None] = (0.0, None),
    ):
        super().__init__()
        self.scans = {"taps": short_conv, "ssm": chunk_scan}
        self.dt_limit = step_limits(dt_limit)
        columns, self.d_state = columns_and_state(d_state)
        self.d_model, self._columns, self.n_groups = d_model, columns, n_groups
        self.d_head, self.n_heads = d_head, heads(expand * d_model, d_head, n_groups)
        inner, convolved = expand * d_model, expand * d_model + 2 * n_groups * columns
        self._sizes = [inner, convolved, self.n_heads]
        self.in_proj = nn.Linear(d_model, sum(self._sizes), bias=False)
        self.conv1d = short_conv_weights(convolved, d_conv)
        self.dt_bias = nn.Parameter(initial_step_bias(self.n_heads, dt_min, dt_max))
        self.A_log = nn.Parameter(torch.empty(self.n_heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.n_heads))
        self.norm = GatedRMSNorm(inner, n_groups)
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        kept = self.d_state < columns
        made = StateProjection(n_groups, columns, self.d_state) if kept else None
        self.register_module("projection", made)

    def init_state(self, batch: int) -> State:
        """Zero taps and zero matrices."""
        d_conv = self.conv1d.kernel_size[0]
        zeros = self.D.new_zeros(batch, dtype=self._dtype())
        return {
            "taps": zeros.new_zeros(batch, d_conv - 1, self._sizes[1]),
            "ssm": zeros.new_zeros(batch, self.n_heads, self.d_head, self.d_state),
        }

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
        z, convolved, step = self.in_proj(u.to(self.conv1d.weight.dtype)).split(self._sizes, -1)
        with full_precision(u):
            convolved, taps = self.scans["taps"](
                convolved, self.conv1d.weight[:, 0], self.conv1d.bias, state["taps"],
                activation="silu", mask=mask, reset=reset,
            )  # fmt: skip
            x, B, C = self._split(convolved)
            step, log_a = self._step_sizes(step, dt)
            y, ssm = self.scans["ssm"](
                x, log_a, B, C, state["ssm"], weight=step, D=self.D, mask=mask, reset=reset
            )
            y = self.norm(y.flatten(2), z)
        y = zero_masked(self.out_proj(y), mask)
        return y.to(u.dtype), {"taps": taps.to(self._dtype()), "ssm": ssm}

    def trace(self, u: Float[Tensor, "b t d"], state: State = None) -> Trace:
        """The recurrence on `u` as data, for `longstate.memory`; channels of all heads.

        `out_proj(trace.outputs() * trace.gate)` is the output of a call.
        """
        state = check_call(self, u, state, None, None, None)
        z, v, step = self.in_proj(u.to(self.conv1d.weight.dtype)).split(self._sizes, -1)
        convolved, conv = traced_conv(v, self.conv1d, state["taps"], z.shape[-1])
        x, B, C = self._split(convolved)
        step, log_a = self._step_sizes(step, None)
        B, C = (v.repeat_interleave(self.n_heads // self.n_groups, dim=2) for v in (B, C))
        trace = trace_of_heads(x, log_a, step, B, C, state["ssm"], self.D)
        return replace(trace, conv=conv, gate=self.norm.factor(trace.outputs(), z))

    def selection(self) -> Selection:
        """The layer's constants, for certificates; see `Selection`."""
        inner, convolved, _ = self._sizes
        W, conv = self.in_proj.weight, self.conv1d
        bias = W.new_zeros(len(W)) if self.in_proj.bias is None else self.in_proj.bias
        at, n = self.n_groups * self._columns, self._columns
        write = torch.eye(convolved, dtype=W.dtype, device=W.device)[inner : inner + at]
        if self.projection is not None:
            write = (self.projection.write.mT.to(W) @ write.unflatten(0, (-1, n))).flatten(0, 1)
        return Selection(
            into=W[inner : inner + convolved],
            offset=bias[inner : inner + convolved],
            taps=conv.weight[:, 0],
            bias=W.new_zeros(convolved) if conv.bias is None else conv.bias,
            silu=True,
            inner=inner,
            shift=self.dt_bias + bias[inner + convolved :],
            rate=self.A_log.exp()[:, None],
            direct=W[inner + convolved :],
            write=write,
            limit=self.dt_limit,
            groups=self.n_groups,
        )

    def with_states(self, columns: Int[Tensor, "g r"]) -> "Mamba2":
        """A copy whose groups have these columns of the state.

        Raises:
            ValueError: a column is not there, or twice.
        """
        g, n = self.n_groups, self.d_state
        kept = torch.tensor([check_columns(self, row, n) for row in columns.tolist()])
        if self.projection is not None:
            one = selection_of(kept, n)
            return self.with_projection(one, one)
        r, inner = kept.shape[1], self._sizes[0]
        new = resized(self, d_state=r)
        at = [(first + i * n + kept[i]).tolist() for first in (0, g * n) for i in range(g)]
        rows = [*range(inner), *(inner + j for row in at for j in row)]  # of what is convolved
        new._sizes = [inner, len(rows), self.n_heads]
        every = [*range(inner), *(inner + j for j in rows)]
        every += range(inner + self._sizes[1], sum(self._sizes))
        _take(new.in_proj, every, "out_features")
        _take(new.conv1d, rows, "out_channels")
        new.conv1d.in_channels = new.conv1d.groups = len(rows)
        new.d_state = new._columns = r
        return new

    def with_projection(
        self, write: Float[Tensor, "g n r"], read: Float[Tensor, "g n r"]
    ) -> "Mamba2":
        """A copy whose state is h W in place of h, and read along V' C: a head's output changes by
        h (I - W V') C, whatever the input.

        Args:
            write, read (g, n, r): W and V of each group.
        """
        return with_projection(self, write, read)

    def _split(self, convolved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (..., h, p), B and C (..., g, n), or (..., g, r) where they are projected."""
        groups = self.n_groups * self._columns
        inner = self._sizes[0]
        x, B, C = convolved.split([inner, groups, groups], dim=-1)
        B, C = (v.unflatten(-1, (self.n_groups, self._columns)) for v in (B, C))
        if self.projection is not None:
            B, C = self.projection(B, C)
        return x.unflatten(-1, (self.n_heads, self.d_head)), B, C

    def _step_sizes(self, step: Tensor, dt: Tensor | None) -> tuple[Tensor, Tensor]:
        """Steps and logarithms of decays (..., h)."""
        step = F.softplus(step.to(self._dtype()) + self.dt_bias)
        if self.dt_limit != (0.0, None):
            step = step.clamp(*self.dt_limit)
        if dt is not None:
            step = step * dt[..., None].to(step.dtype)
        return step, -self.A_log.to(step.dtype).exp() * step

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.D.dtype, torch.float32)


def _take(part: nn.Linear | nn.Conv1d, rows: list[int], size: str) -> None:
    """Keep these rows of the weight and of the bias."""
    for name, old in list(part.named_parameters()):
        new = nn.Parameter(old.detach()[rows].clone(), requires_grad=old.requires_grad)
        setattr(part, name, new)
    setattr(part, size, len(rows))
