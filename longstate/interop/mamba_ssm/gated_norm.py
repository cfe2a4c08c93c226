"""The norms of `mamba_ssm.ops.triton.layernorm_gated`: norm(x) * silu(z), or norm(x * silu(z)).

    norm(v) = v / sqrt(mean(v^2) + eps) * weight + bias

with means over groups of channels. If it is not an RMS norm, the mean of v is subtracted first.
Computed in float32 at least; results have the type of `x`.

Source: `mamba-ssm` 2.3.

Axes: d channels, g groups of them; ... any leading axes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.interop.mamba_ssm.inputs import expect, expect_shape, wide


def normed(v: Tensor, weight: Tensor, bias: Tensor | None, eps: float, rms: bool) -> Tensor:
    """`v` (..., g, d / g), each group normalised separately, as (..., d)."""
    if not rms:
        v = v - v.mean(-1, keepdim=True)
    v = (v * (v.square().mean(-1, keepdim=True) + eps).rsqrt()).flatten(-2) * weight
    return v if bias is None else v + bias


def layernorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    is_rms_norm: bool = False,
) -> Tensor:
    """Norm and gate.

    Args:
        x (..., d): input.
        weight, bias (d): of the norm.
        z (..., d): gate, before its SiLU. None: no gate.
        eps: added to the mean square.
        group_size: channels that share a mean square. All when None.
        norm_before_gate: whether the gate comes after the norm.
        is_rms_norm: whether the mean is not subtracted.

    Raises:
        InputError: a shape does not fit, or groups do not divide the channels.
    """
    return _gated(x, weight, bias, z, eps, group_size, norm_before_gate, is_rms_norm)


def rmsnorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    """`layernorm_fn` with `is_rms_norm`."""
    return _gated(x, weight, bias, z, eps, group_size, norm_before_gate, True)


def _gated(x, weight, bias, z, eps, group_size, norm_before_gate, rms) -> Tensor:
    d = x.shape[-1]
    group_size = d if group_size is None else group_size
    expect(group_size > 0 and d % group_size == 0, f"group_size must divide {d}; got {group_size}")
    expect_shape("weight", weight, (d,))
    expect_shape("bias", bias, (d,))
    expect_shape("z", z, tuple(x.shape))
    dtype = wide(x, weight)
    v = x.to(dtype)
    gate = None if z is None else F.silu(z.to(dtype))
    if gate is not None and not norm_before_gate:
        v = v * gate
    v = normed(v.unflatten(-1, (-1, group_size)), weight, bias, eps, rms)
    if gate is not None and norm_before_gate:
        v = v * gate
    return v.to(x.dtype)


class _Gated(nn.Module):
    def __init__(self, hidden_size, eps, group_size, norm_before_gate, device, dtype):
        super().__init__()
        self.eps, self.group_size, self.norm_before_gate = eps, group_size, norm_before_gate
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))


class RMSNorm(_Gated):
    """`rmsnorm_fn` with a weight (hidden_size)."""

    def __init__(
        self, hidden_size: int, eps: float = 1e-5, group_size: int | None = None,
        norm_before_gate: bool = True, device=None, dtype=None,
    ):  # fmt: skip
        super().__init__(hidden_size, eps, group_size, norm_before_gate, device, dtype)
        self.bias = None

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        return rmsnorm_fn(
            x, self.weight, self.bias, z, self.eps, self.group_size, self.norm_before_gate
        )


class LayerNorm(_Gated):
    """`layernorm_fn` with a weight and a bias (hidden_size)."""

    def __init__(
        self, hidden_size: int, eps: float = 1e-5, group_size: int | None = None,
        norm_before_gate: bool = True, device=None, dtype=None,
    ):  # fmt: skip
        super().__init__(hidden_size, eps, group_size, norm_before_gate, device, dtype)
        self.bias = nn.Parameter(torch.zeros(hidden_size, device=device, dtype=dtype))

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        return layernorm_fn(
            x, self.weight, self.bias, z, self.eps, self.group_size, self.norm_before_gate
        )
