"""Mamba-2 between its two projections, as one function of `mamba_ssm.ops.triton.ssd_combined`.

    z0, x0, z, (x, B, C), dt = zxbcdt         z0, x0 if there are extra channels
    x, B, C = silu(conv(x, B, C))
    out = outproj([silu(z0) * x0, norm(scan(x, B, C, dt), z)])

Source: `mamba-ssm` 2.3. The scan is in `ssd.py`.

Axes: b batch, t time, h heads, p channels per head, n state, g groups, k taps, e extra channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.interop.mamba_ssm.convolution import causal_conv1d_fn, causal_conv1d_ref
from longstate.interop.mamba_ssm.gated_norm import rmsnorm_fn
from longstate.interop.mamba_ssm.inputs import expect, expect_axes, expect_shape
from longstate.interop.mamba_ssm.ssd import NO_LIMITS, Limits, scan_heads, step_sizes


class Sizes(NamedTuple):
    """h, p, g, n and e of one block."""

    heads: int
    headdim: int
    groups: int
    state: int
    beside: int

    @property
    def inner(self) -> int:
        return self.heads * self.headdim

    @property
    def convolved(self) -> int:
        return self.inner + 2 * self.groups * self.state

    @property
    def projected(self) -> list[int]:
        """Columns of the first projection: z0, x0, z, (x, B, C), dt."""
        return [self.beside, self.beside, self.inner, self.convolved, self.heads]

    def split_convolved(self, xBC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (b, t, h, p), B and C (b, t, g, n)."""
        n = self.groups * self.state
        x, B, C = xBC.split([self.inner, n, n], dim=-1)
        groups = (self.groups, self.state)
        return (
            x.unflatten(-1, (self.heads, self.headdim)),
            B.unflatten(-1, groups),
            C.unflatten(-1, groups),
        )


def mamba_split_conv1d_scan_combined(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_limit: Limits = NO_LIMITS,
    return_final_states: bool = False,
    activation: str | None = "silu",
    rmsnorm_weight: Tensor | None = None,
    rmsnorm_eps: float = 1e-6,
    outproj_weight: Tensor | None = None,
    outproj_bias: Tensor | None = None,
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    """A Mamba-2 block after its first projection.

    Args:
        zxbcdt (b, t, 2 e + 2 h p + 2 g n + h): the first projection.
        conv1d_weight (h p + 2 g n, k), conv1d_bias (h p + 2 g n): the short convolution.
        dt_bias, A (h), D (h) or (h, p), chunk_size, initial_states, seq_idx, dt_limit,
            return_final_states: as for `mamba_chunk_scan_combined`.
        activation: of the convolution: "silu", "swish" or None.
        rmsnorm_weight (h p): of the norm over the channels of a group. None: a gate, and no norm.
        rmsnorm_eps: added to the mean square.
        outproj_weight (m, e + h p), outproj_bias (m): the last projection. None: none.
        headdim: p, if D has one axis.
        ngroups: g.
        norm_before_gate: whether the gate comes after the norm.

    Returns:
        (b, t, m), or (b, t, e + h p) without a projection; and the final states (b, h, p, n) if
        requested.

    Raises:
        InputError: a shape does not fit.
        NotImplementedError: another activation.
    """
    return _block(
        zxbcdt, conv1d_weight, conv1d_bias, dt_bias, A, D, chunk_size, initial_states, seq_idx,
        dt_limit, return_final_states, activation, rmsnorm_weight, rmsnorm_eps, outproj_weight,
        outproj_bias, headdim, ngroups, norm_before_gate, "auto",
    )  # fmt: skip


def mamba_split_conv1d_scan_ref(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    dt_limit: Limits = NO_LIMITS,
    activation: str | None = "silu",
    rmsnorm_weight: Tensor | None = None,
    rmsnorm_eps: float = 1e-6,
    outproj_weight: Tensor | None = None,
    outproj_bias: Tensor | None = None,
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    """`mamba_split_conv1d_scan_combined` as loops over time."""
    return _block(
        zxbcdt, conv1d_weight, conv1d_bias, dt_bias, A, D, chunk_size, None, None, dt_limit, False,
        activation, rmsnorm_weight, rmsnorm_eps, outproj_weight, outproj_bias, headdim, ngroups,
        norm_before_gate, "reference",
    )  # fmt: skip


def _block(
    zxbcdt, conv_weight, conv_bias, dt_bias, A, D, chunk_size, before, seq_idx, dt_limit,
    return_final, activation, norm_weight, eps, out_proj, out_bias, headdim, ngroups, norm_first,
    impl,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    sizes = _sizes(zxbcdt, conv_weight, dt_bias, A, D, chunk_size, headdim, ngroups)
    expect(out_bias is None or out_proj is not None, "outproj_bias needs outproj_weight")
    z0, x0, z, xBC, dt = zxbcdt.split(sizes.projected, dim=-1)
    convolve = causal_conv1d_fn if impl == "auto" else causal_conv1d_ref
    xBC = convolve(xBC.mT, conv_weight, conv_bias, seq_idx=seq_idx, activation=activation)
    assert isinstance(xBC, Tensor)  # not asked for final states
    x, B, C = sizes.split_convolved(xBC.mT)
    steps = step_sizes(dt, dt_bias, True, dt_limit)
    gate = z.unflatten(-1, x.shape[2:]) if norm_weight is None else None
    y, final = scan_heads(x, steps, A, B, C, D, gate, before, seq_idx, impl)
    y = y.flatten(2)
    if norm_weight is not None:
        group = sizes.inner // sizes.groups
        y = rmsnorm_fn(y, norm_weight, None, z, eps, group, norm_first)
    if sizes.beside:
        y = torch.cat([F.silu(z0) * x0, y], dim=-1)
    if out_proj is not None:
        y = F.linear(y, out_proj, out_bias)
    return (y, final) if return_final else y


def _sizes(zxbcdt, conv_weight, dt_bias, A, D, chunk_size, headdim, ngroups) -> Sizes:
    expect_axes("zxbcdt", zxbcdt, "batch, time, columns")
    expect_axes("D", D, "heads", "heads, channels")
    expect(D.dim() == 2 or headdim is not None, "headdim is needed where D has one axis")
    expect(chunk_size > 0, f"chunk_size must be positive; got {chunk_size!r}")
    h, p = D.shape if D.dim() == 2 else (len(D), headdim)
    expect(ngroups > 0 and h % ngroups == 0, f"ngroups must divide {h} heads; got {ngroups}")
    expect_axes("conv1d_weight", conv_weight, "channels, taps")
    n, rest = divmod(len(conv_weight) - h * p, 2 * ngroups)
    expect(
        n > 0 and rest == 0,
        f"conv1d_weight must have {h * p} + 2 * {ngroups} * d_state rows; got {len(conv_weight)}",
    )
    columns = zxbcdt.shape[2] - 2 * h * p - 2 * ngroups * n - h
    expect(
        columns >= 0 and columns % 2 == 0,
        f"zxbcdt must have {zxbcdt.shape[2] - columns} columns, or an even number more; "
        f"got {zxbcdt.shape[2]}",
    )
    for name, v in (("dt_bias", dt_bias), ("A", A)):
        expect_shape(name, v, (h,))
    return Sizes(h, p, ngroups, n, columns // 2)
