"""The norms of `mamba_ssm.ops.triton.layer_norm`: norm(x + residual), and the sum.

Computed as in `gated_norm.py`. The next block adds to the sum.

Source: `mamba-ssm` 2.3. Differs from it: dropout, row scales and a second input or norm are
refused.

Axes: d channels; ... any leading axes.
"""

import torch
from torch import Tensor, nn

from longstate.interop.mamba_ssm.gated_norm import normed
from longstate.interop.mamba_ssm.inputs import expect, expect_shape, wide


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Norm of a sum.

    Args:
        x, residual (..., d): the summands.
        weight, bias (d): of the norm.
        eps: added to the mean square.
        prenorm: whether to return the sum too. It has the type of `residual`; without a residual
            the type of `x`, or float32 with `residual_in_fp32`.
        is_rms_norm: whether the mean is not subtracted.
        x1, weight1, bias1, dropout_p, rowscale, return_dropout_mask: not supported.

    Returns:
        The norm (..., d) in the type of `x`, or the norm and the sum.

    Raises:
        InputError: a shape does not fit, or an argument is used that is not supported.
    """
    refused = {
        "x1": x1, "weight1": weight1, "bias1": bias1, "dropout_p": dropout_p or None,
        "rowscale": rowscale, "return_dropout_mask": return_dropout_mask or None,
    }  # fmt: skip
    for name, value in refused.items():
        expect(value is None, f"{name} is not supported by longstate's layer_norm_fn")
    d = x.shape[-1]
    expect_shape("weight", weight, (d,))
    expect_shape("bias", bias, (d,))
    expect_shape("residual", residual, tuple(x.shape))
    v = x.to(wide(x, residual, weight))
    if residual is not None:
        v = v + residual
    y = normed(v[..., None, :], weight, bias, eps, is_rms_norm).to(x.dtype)
    kept = torch.promote_types(x.dtype, torch.float32) if residual_in_fp32 else x.dtype
    return (y, v.to(kept if residual is None else residual.dtype)) if prenorm else y


def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    return_dropout_mask: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`layer_norm_fn` with `is_rms_norm`."""
    return layer_norm_fn(
        x, weight, bias, residual, x1, weight1, bias1, eps, dropout_p, rowscale, prenorm,
        residual_in_fp32, True, return_dropout_mask,
    )  # fmt: skip


class RMSNorm(nn.Module):
    """`rms_norm_fn` with a weight (hidden_size)."""

    def __init__(
        self, hidden_size: int, eps: float = 1e-5, dropout_p: float = 0.0, device=None, dtype=None
    ):
        super().__init__()
        expect(dropout_p == 0, "dropout_p is not supported by longstate's RMSNorm")
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.bias = None

    def forward(
        self, x: Tensor, residual: Tensor | None = None, prenorm: bool = False,
        residual_in_fp32: bool = False,
    ):  # fmt: skip
        return rms_norm_fn(
            x, self.weight, self.bias, residual, eps=self.eps, prenorm=prenorm,
            residual_in_fp32=residual_in_fp32,
        )  # fmt: skip
