"""The functions of `mamba_ssm.ops.selective_scan_interface`: Mamba's scan, and its fused block.

    delta_t = softplus(delta_t + delta_bias)                  if requested
    h_t = exp(delta_t A) * h_{t-1} + delta_t u_t B_t
    out_t = (C_t h_t + D u_t) * silu(z_t)                     2 Re(C_t h_t) for complex A

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023), and the
authors' package, version 2.3. Differs from the package: gradients flow through the last state; the
kernels are `longstate.ops.selective_scan`, which runs complex A as a loop.

Axes: b batch, d channels, t time, n state, g groups of channels with a B and a C of their own,
r rank of the step.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.interop.mamba_ssm.gated_norm import layernorm_fn
from longstate.interop.mamba_ssm.inputs import expect, expect_axes, expect_shape, wide
from longstate.interop.mamba_ssm.layout import swapped, time_second
from longstate.layers._base import full_precision
from longstate.ops import selective_scan, short_conv

Result = Tensor | tuple[Tensor, Tensor]


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Result:
    """Outputs of the recurrence, in the type of `u`, and the last state if requested.

    Args:
        u (b, d, t): input.
        delta (b, d, t): step, before bias and softplus if these are used.
        A (d, n): decay rate, real and negative, or complex.
        B (d, n), (b, n, t) or (b, g, n, t): input vectors. With complex A and a time axis, the
            last axis has the length 2 t: alternating real and imaginary parts.
        C: output vectors; any of the shapes of `B`.
        D (d): direct path.
        z (b, d, t): gate, before its SiLU.
        delta_bias (d): added to `delta`.
        delta_softplus: whether `delta` goes through softplus.
        return_last_state: whether to return the last state too.

    Returns:
        out (b, d, t), or out and the last state (b, d, n) in float32 or wider.

    Raises:
        InputError: a shape does not fit.
    """
    return _scan(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state, "auto"
    )  # fmt: skip


def selective_scan_ref(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Result:
    """`selective_scan_fn` as a loop over time."""
    return _scan(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state, "reference"
    )  # fmt: skip


def _scan(u, delta, A, B, C, D, z, delta_bias, softplus, return_last_state, impl) -> Result:
    expect_axes("u", u, "batch, channels, time")
    b, d, t = u.shape
    expect(t > 0, "u has no samples")
    _check(A, D, delta_bias, d)
    for name, x in (("delta", delta), ("z", z)):
        expect_shape(name, x, (b, d, t))
    with full_precision(u):
        y, last = selective_scan(
            time_second(u), time_second(delta), A, _matrix("B", B, A, b, t),
            _matrix("C", C, A, b, t), D, None if z is None else time_second(z),
            dt_bias=delta_bias, dt_softplus=bool(softplus), impl=impl,
        )  # fmt: skip
    y = swapped(y)
    return (y, last) if return_last_state else y


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """A Mamba block between its first projection and its output.

    Args:
        xz (b, 2 d, t): the first projection: input of the scan, then the gate.
        conv1d_weight (d, 1, k), conv1d_bias (d): the short convolution.
        x_proj_weight (r + n + n, d): projection of x to the low-rank step, B and C; with 2 n for
            complex A, and without the rows of a given `B` or `C`.
        delta_proj_weight (d, r): the step from its low-rank form.
        out_proj_weight (m, d), out_proj_bias (m): the last projection.
        A, B, C, D, delta_bias, delta_softplus: as for `selective_scan_fn`. None for B and C: they
            depend on the input.
        B_proj_bias, C_proj_bias (n): added to B and C.
        checkpoint_lvl: 0 or 1. What the package recomputes; it does not change results.
        b_rms_weight, c_rms_weight (n), dt_rms_weight (d): if given, B, C and the step are divided
            by their root mean square; the step after its projection, as published. The mixer of
            FalconMamba in transformers does this before the projection, but uses this function in
            training if it is available: then the trained and the evaluated model differ, with the
            published package and with this one.
        b_c_dt_rms_eps: added to those mean squares.

    Returns:
        (b, t, m).

    Raises:
        InputError: a shape does not fit, or `checkpoint_lvl` is not 0 or 1.
    """
    y = _inner(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias,
        B_proj_bias, C_proj_bias, delta_softplus, checkpoint_lvl, b_rms_weight, c_rms_weight,
        dt_rms_weight, b_c_dt_rms_eps,
    )  # fmt: skip
    return F.linear(y, out_proj_weight, out_proj_bias)


def mamba_inner_fn_no_out_proj(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
) -> Tensor:
    """`mamba_inner_fn` without its last projection (b, d, t), as in Vim's fork of the package."""
    y = _inner(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias,
        B_proj_bias, C_proj_bias, delta_softplus, checkpoint_lvl,
    )  # fmt: skip
    return swapped(y)


def _inner(
    xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias,
    B_proj_bias, C_proj_bias, delta_softplus, checkpoint_lvl, b_rms_weight=None, c_rms_weight=None,
    dt_rms_weight=None, b_c_dt_rms_eps=0.0,
) -> Tensor:  # fmt: skip
    """Input (b, t, d) of the last projection."""
    expect(checkpoint_lvl in (0, 1), f"checkpoint_lvl must be 0 or 1; got {checkpoint_lvl!r}")
    b, t, read = _check_block(xz, conv1d_weight, x_proj_weight, delta_proj_weight, A, B, C)
    x, z = (time_second(v) for v in xz.chunk(2, dim=1))
    x, _ = short_conv(x, conv1d_weight[:, 0], conv1d_bias, activation="silu")
    low, *rest = F.linear(x, x_proj_weight).split(read, dim=-1)
    delta = _normed(F.linear(low, delta_proj_weight), dt_rms_weight, b_c_dt_rms_eps)
    if B is None:
        B = _normed(_biased(rest.pop(0), B_proj_bias), b_rms_weight, b_c_dt_rms_eps)
        B = _complex(B) if A.is_complex() else B
    else:
        B = _matrix("B", B, A, b, t)
    if C is None:
        C = _normed(_biased(rest.pop(0), C_proj_bias), c_rms_weight, b_c_dt_rms_eps)
        C = _complex(C) if A.is_complex() else C
    else:
        C = _matrix("C", C, A, b, t)
    _check(A, D, delta_bias, len(A))
    with full_precision(x):
        y, _ = selective_scan(
            x, delta, A, B, C, D, z, dt_bias=delta_bias, dt_softplus=bool(delta_softplus)
        )
    return y


def _check_block(xz, conv_weight, x_proj, delta_proj, A, B, C) -> tuple[int, int, list[int]]:
    """b, t, and the numbers of rows of `x_proj` for the step, and for B and C if not given."""
    expect_axes("xz", xz, "batch, 2 channels, time")
    expect_axes("A", A, "channels, state")
    b, d, t = xz.shape[0], len(A), xz.shape[2]
    expect_shape("xz", xz, (b, 2 * d, t))
    expect(
        conv_weight.dim() == 3 and conv_weight.shape[:2] == (d, 1),
        f"conv1d_weight must be ({d}, 1, taps); got {tuple(conv_weight.shape)}",
    )
    expect_axes("delta_proj_weight", delta_proj, "channels, rank")
    columns = A.shape[1] * (2 if A.is_complex() else 1)
    read = [delta_proj.shape[1], *(columns for given in (B, C) if given is None)]
    expect_shape("x_proj_weight", x_proj, (sum(read), d))
    return b, t, read


def _biased(columns: Tensor, bias: Tensor | None) -> Tensor:
    return columns if bias is None else columns + bias.to(columns.dtype)


def _normed(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return x if weight is None else layernorm_fn(x, weight, None, eps=eps, is_rms_norm=True)


def _matrix(name: str, x: Tensor, A: Tensor, b: int, t: int) -> Tensor:
    """B or C in the layout of `longstate.ops`: (d, n), (b, t, n) or (b, t, g, n)."""
    d, n = A.shape
    expect_axes(name, x, "channels, state", "batch, state, time", "batch, groups, state, time")
    if x.dim() == 2:
        expect_shape(name, x, (d, n))
        expect(A.is_complex() or not x.is_complex(), f"{name} is complex, but A is real")
        return x
    length = 2 * t if A.is_complex() else t
    if x.dim() == 3:
        expect_shape(name, x, (b, n, length))
    else:
        expect_shape(name, x, (b, x.shape[1], n, length))
        divides = x.shape[1] > 0 and d % x.shape[1] == 0
        expect(divides, f"{name} has {x.shape[1]} groups, which do not divide {d} channels")
    if A.is_complex():
        x = _complex(x)
    return (x.mT if x.dim() == 3 else x.permute(0, 3, 1, 2)).contiguous()


def _complex(x: Tensor) -> Tensor:
    """Alternating real and imaginary parts along the last axis, as complex numbers."""
    return torch.view_as_complex(x.to(wide(x)).unflatten(-1, (-1, 2)).contiguous())


def _check(A: Tensor, D: Tensor | None, delta_bias: Tensor | None, d: int) -> None:
    expect(A.dim() == 2 and len(A) == d, f"A must be ({d}, state); got {tuple(A.shape)}")
    for name, x in (("D", D), ("delta_bias", delta_bias)):
        expect_shape(name, x, (d,))
