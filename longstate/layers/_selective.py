"""Base of Mamba and Longhorn: a short convolution, a gate, and an input-dependent scan.

    x, z = in_proj(u)                        twice `expand * d_model` channels
    x = silu(conv1d(x))                      causal, each channel by itself
    step, write, read = x_proj(x)            parameters of the scan; `step` has a low rank
    y = scan(x; step, write, read) * silu(z)
    out = out_proj(y)

Axes: b batch, t time, d channels (inside: expand * d_model), n state, r rank, k taps.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

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
from longstate.layers._gated import short_conv_weights, traced_conv
from longstate.layers._projected import columns_and_state, option
from longstate.layers._resized import resized
from longstate.systems import Selection, Trace

S = TypeVar("S", bound="SelectiveLayer")


class SelectiveLayer(Layer):
    """Base of selective layers with one state of n numbers for each channel.

    State: {"taps": (b, k - 1, d), "ssm": (b, d, n)}. Subclasses define `_scan`, and `_read` if the
    parameters of the scan are not simply x_proj(x). With `d_state=(m, n)` m columns of write and
    read are computed; the state has those in `columns`.
    """

    own_gate = True
    columns: Tensor | None

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int | Sequence[int],
        d_conv: int,
        expand: int,
        dt_rank: int | None = None,
    ):
        super().__init__()
        rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        self._columns, d_state = columns_and_state(d_state)
        sizes = {"d_conv": d_conv, "expand": expand, "dt_rank": rank}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        self.d_model, self.d_state = d_model, d_state
        self.d_inner, self.rank = expand * d_model, rank
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.conv1d = short_conv_weights(self.d_inner, d_conv)
        self.x_proj = nn.Linear(self.d_inner, self.rank + 2 * self._columns, bias=False)
        kept = torch.arange(d_state) if d_state < self._columns else None
        self.register_buffer("columns", kept)
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def init_state(self, batch: int) -> State:
        """Zero taps and zero states."""
        D, d = self.D, self.d_inner
        dtype = torch.promote_types(D.dtype, torch.float32)
        return {
            "taps": D.new_zeros(batch, self.conv1d.kernel_size[0] - 1, d, dtype=dtype),
            "ssm": D.new_zeros(batch, d, self.d_state, dtype=dtype),
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
        u, conv = zero_masked(u, mask), self.conv1d
        weight = conv.weight
        x, z = self.in_proj(u.to(weight.dtype)).chunk(2, dim=-1)
        with full_precision(u):
            x, taps = self.scans["taps"](
                x, weight[:, 0], conv.bias, state["taps"],
                activation="silu", mask=mask, reset=reset,
            )  # fmt: skip
        y, ssm = self._scan(x, z, self._steering(x), state["ssm"], dt, mask, reset)
        y = zero_masked(self.out_proj(y), mask)
        return y.to(u.dtype), {"taps": taps.to(state["taps"].dtype), "ssm": ssm}

    def trace(self, u: Float[Tensor, "b t d"], state: State = None) -> Trace:
        """The recurrence on `u` as data, for `longstate.memory`. Its channels are the inner ones.

        `out_proj(trace.outputs() * trace.gate)` is the output of a call.
        """
        state = check_call(self, u, state, None, None, None)
        v, z = self.in_proj(u.to(self.conv1d.weight.dtype)).chunk(2, dim=-1)
        x, conv = traced_conv(v, self.conv1d, state["taps"], v.shape[-1])
        trace = self._trace(x, self._steering(x), state["ssm"])
        return replace(trace, conv=conv, gate=F.silu(z))

    def _steering(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Parameters of the scan: step before its projection (..., r), write and read (..., n)."""
        low, write, read = self._read(x)
        return low, self._kept(write), self._kept(read)

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`_steering` with every column that is computed."""
        low, write, read = self.x_proj(x).split([self.rank, self._columns, self._columns], dim=-1)
        return low, write, read

    def _kept(self, v: Tensor) -> Tensor:
        """The columns (..., n) that the state has."""
        return v if self.columns is None else v.index_select(-1, self.columns)

    def _of_columns(self: S, kept: list[int]) -> S:
        """A copy whose state has only these of its columns. All columns are still computed, for
        operations on all of them such as norms."""
        new = resized(self, d_state=option(self._columns, len(kept)))
        if len(kept) < self._columns:
            at = torch.tensor(kept, device=self.D.device)
            new.columns = at if self.columns is None else self.columns[at]
        new.d_state = len(kept)
        return new

    def selection(self) -> Selection:
        """The layer's constants, for certificates; see `Selection`."""
        d, conv = self.d_inner, self.conv1d
        zero = conv.weight.new_zeros(d)
        bias = self.in_proj.bias
        return self._choose(
            Selection(
                into=self.in_proj.weight[:d],
                offset=zero if bias is None else bias[:d],
                taps=conv.weight[:, 0],
                bias=zero if conv.bias is None else conv.bias,
                silu=True,
                inner=d,
                shift=zero,
                rate=None,
                write=self._kept(self.x_proj.weight[self.rank :][: self._columns].mT).mT,
            )
        )

    def _choose(self, common: Selection) -> Selection:
        """Add the subclass's own constants."""
        return common

    def _scan(
        self,
        x: Tensor,
        z: Tensor,
        steering: tuple[Tensor, Tensor, Tensor],
        h0: Tensor,
        dt: Tensor | None,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Gated outputs (b, t, d) and the last state (b, d, n)."""
        raise NotImplementedError

    def _trace(self, x: Tensor, steering: tuple[Tensor, Tensor, Tensor], h0: Tensor) -> Trace:
        """The recurrence of `_scan` as data."""
        raise NotImplementedError
