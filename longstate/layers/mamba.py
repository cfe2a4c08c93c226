"""Mamba: a state space model whose step, input and output matrices depend on the input.

    step_t = softplus(dt_proj(r_t))
    h_t = exp(step_t A) * h_{t-1} + step_t x_t B_t          A = -exp(A_log), one for each (d, n)
    y_t = (C_t h_t + D x_t) * silu(z_t)

where r, B, C are projections of x; `longstate.layers._selective` has the layers around the scan.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", COLM 2024,
arXiv:2312.00752. Parameter names, shapes and initial values are those of the authors' code. Differs
from the paper, as that code does: B is discretised by Euler's rule, not by a hold. Differs from
the code: the projections are built without bias.

Irregular time: `dt` multiplies the learned step. The short convolution counts samples and ignores
the time between them.

Axes: b batch, t time, d channels (expand * d_model), n state, r rank.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._base import full_precision
from longstate.layers._gated import initial_step_bias, step_limits
from longstate.layers._projected import check_columns
from longstate.layers._resized import put, resized
from longstate.layers._selective import SelectiveLayer
from longstate.ops import selective_scan, short_conv
from longstate.systems import Trace


class Mamba(SelectiveLayer):
    """A layer in which the decay of each channel depends on the input.

    Args:
        d_model: channels in and out.
        d_state: n, states of each channel.
        d_conv: taps of the convolution.
        expand: channels inside, as a multiple of `d_model`.
        dt_rank: r, rank of the projection that gives the step; None is d_model / 16, rounded up.
        dt_min, dt_max: range of the initial steps.
        dt_limit: smallest and largest learned step; None in the second place is no limit. A
            smallest step above 0 limits the memory of the layer.

    Raises:
        ValueError: a size is below 1, or the limits are not in order.
    """

    dynamics = ("A_log",)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_limit: Sequence[float | None] = (0.0, None),
    ):
        super().__init__(d_model, d_state=d_state, d_conv=d_conv, expand=expand, dt_rank=dt_rank)
        self.scans = {"taps": short_conv, "ssm": selective_scan}
        self.dt_limit = step_limits(dt_limit)
        self.dt_proj = nn.Linear(self.rank, self.d_inner)
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        self.dt_proj.bias = nn.Parameter(initial_step_bias(self.d_inner, dt_min, dt_max))
        rates = torch.arange(1, d_state + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(rates.log().repeat(self.d_inner, 1))

    def with_states(self, columns: Sequence[int]) -> "Mamba":
        """A copy that has only these columns of the state, and computes only these. They do not
        change.

        Raises:
            ValueError: a column does not exist, or occurs twice.
        """
        kept = check_columns(self, columns, self.d_state)
        new = resized(self, d_state=len(kept))
        r, n = self.rank, self.d_state
        rows = [*range(r), *(r + i for i in kept), *(r + n + i for i in kept)]
        put(new, A_log=self.A_log[:, kept])
        weight = nn.Parameter(self.x_proj.weight.detach()[rows].clone())
        new.x_proj.weight = weight.requires_grad_(self.x_proj.weight.requires_grad)
        new.x_proj.out_features = len(rows)
        new.d_state = new._columns = len(kept)
        return new

    def _scan(self, x, z, steering, h0, dt, mask, reset):
        low, B, C = steering
        step = self.dt_proj(low)
        with full_precision(x):
            limited = self.dt_limit != (0.0, None)
            if dt is not None or limited:
                step = self._within(F.softplus(step.to(h0.dtype)))
            if dt is not None:
                step = step * dt[..., None].to(h0.dtype)
            return self.scans["ssm"](
                x, step, -self.A_log.to(h0.dtype).exp(), B, C, self.D, z, h0,
                dt_softplus=dt is None and not limited, mask=mask, reset=reset,
            )  # fmt: skip

    def _trace(self, x, steering, h0):
        low, B, C = steering
        step = self._within(F.softplus(self.dt_proj(low)))
        decay = (step[..., None] * -self.A_log.exp()).exp()
        B, C = (v[:, :, None].expand_as(decay) for v in (B, C))
        return Trace(x, decay, step, B, C, h0, self.D)

    def _choose(self, common):
        low = self.dt_proj.weight @ self.x_proj.weight[: self.rank]
        return replace(
            common, shift=self.dt_proj.bias, rate=self.A_log.exp(), low=low, limit=self.dt_limit
        )

    def _within(self, step: Tensor) -> Tensor:
        """Steps clamped to `dt_limit`."""
        return step if self.dt_limit == (0.0, None) else step.clamp(*self.dt_limit)
