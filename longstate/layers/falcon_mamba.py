"""Falcon-Mamba: Mamba whose step, input and output vectors are normalised before they are used.

    r, B, C = x_proj(x), each divided by its root mean square
    step_t = softplus(dt_proj(r_t)), and so on as in `longstate.layers.mamba`

The norms have no weights. They make the training of large models stable.

Zuo, Velikanov, Rhaiem, Chahed, Belkada, Kunsch, Hacid, "Falcon Mamba: The First Competitive
Attention-free 7B Language Model", 2024, arXiv:2410.05355. Parameter names, shapes and initial
values are those of Mamba.

Axes: b batch, t time, d channels (expand * d_model), n state, r rank.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from longstate.layers._base import full_precision
from longstate.layers._projected import check_columns, columns_and_state
from longstate.layers._resized import put
from longstate.layers.mamba import Mamba


class FalconMamba(Mamba):
    """Mamba with norms on step, input and output vectors.

    Args:
        d_model: channels in and out.
        d_state: n, states of each channel. (m, n): of m columns, which the norms see, the state
            has n.
        d_conv: taps of the convolution.
        expand: channels inside, as a multiple of `d_model`.
        dt_rank: r, rank of the projection that gives the step; None is d_model / 16, rounded up.
        dt_min, dt_max: range of the initial steps.
        eps: added to the mean squares.

    Raises:
        ValueError: a size is below 1.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int | Sequence[int] = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        eps: float = 1e-6,
    ):
        columns, states = columns_and_state(d_state)
        super().__init__(
            d_model,
            d_state=states,
            d_conv=d_conv,
            expand=expand,
            dt_rank=dt_rank,
            dt_min=dt_min,
            dt_max=dt_max,
        )
        self.eps = eps
        if states < columns:
            self._columns = columns
            self.x_proj = nn.Linear(self.d_inner, self.rank + 2 * columns, bias=False)
            self.columns = torch.arange(states)

    def with_states(self, columns: Sequence[int]) -> "FalconMamba":
        """A copy that has only these columns of the state. All are computed, for the norms."""
        kept = check_columns(self, columns, self.d_state)
        new = self._of_columns(kept)
        put(new, A_log=self.A_log[:, kept])
        return new

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, B, C = super()._read(x)
        with full_precision(x):
            return self._norm(low), self._norm(B), self._norm(C)

    def _choose(self, common):
        # a normalised vector has a length of at most the square root of its size
        radius = self.rank**0.5 * self.dt_proj.weight.norm(dim=1)
        cap = common.bias.new_full((self.d_state,), self._columns**0.5)
        steps = {
            "shift": self.dt_proj.bias,
            "rate": self.A_log.exp(),
            "spread": radius,
            "limit": self.dt_limit,
        }
        return replace(common, **steps, write=None, write_cap=cap)

    def _norm(self, v: Tensor) -> Tensor:
        wide = v.to(torch.promote_types(v.dtype, torch.float32))
        return (wide * (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()).to(v.dtype)
