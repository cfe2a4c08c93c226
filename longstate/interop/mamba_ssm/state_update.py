"""The functions of `mamba_ssm.ops.triton.selective_state_update`: one step, in place.

    dt = softplus(dt + dt_bias)                               if requested
    state = exp(dt A) * state + dt x B
    out = (C state + D x) * silu(z)

Source: `mamba-ssm` 2.3. Not differentiable, as there: a graph through a state that is overwritten
would grow with every token.

Axes: b batch, h heads, p channels per head, n state, g groups of heads that share B and C. Without
heads, h = 1 and its axis is left out.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.interop.mamba_ssm.inputs import expect, expect_axes, expect_shape, wide
from longstate.layers._base import full_precision
from longstate.ops import selective_scan


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """The output of one step; `state` is updated in place.

    Args:
        state (b, p, n) or (b, h, p, n): any floating-point type.
        x, dt, z (b, p) or (b, h, p): input, step, gate before its SiLU.
        A (p, n) or (h, p, n): decay rate, negative. If `A`, `dt` and `dt_bias` are expanded from
            one number per head, the decay is computed once per head.
        B, C (b, n) or (b, g, n): input and output vectors.
        D, dt_bias (p) or (h, p): direct path, and bias of `dt`.
        dt_softplus: whether `dt` goes through softplus.
        state_batch_indices (b): row of `state` for each row of `x`. A negative row is padding: it
            gives 0 and changes nothing. `state` may then have any number of rows.

    Returns:
        Of the shape and type of `x`. Computed from the new state before it is rounded to the type
        of `state`.

    Raises:
        InputError: a shape does not fit.
    """
    return _update(state, x, dt, A, B, C, D, z, dt_bias, dt_softplus, state_batch_indices, one_step)


def selective_state_update_ref(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """`selective_state_update` as a scan over one sample, each channel separately."""
    return _update(state, x, dt, A, B, C, D, z, dt_bias, dt_softplus, None, _by_channels)


@torch.no_grad()
def _update(state, x, dt, A, B, C, D, z, dt_bias, softplus, rows, step) -> Tensor:
    given = x
    state = _with_heads(state, 4, 1)
    x, dt, B, C, z = (_with_heads(v, 3, 1) for v in (x, dt, B, C, z))
    A, D, dt_bias = _with_heads(A, 3, 0), _with_heads(D, 2, 0), _with_heads(dt_bias, 2, 0)
    _check(state, x, dt, A, B, C, D, z, dt_bias, rows)
    before = state if rows is None else state[rows.clamp(min=0).long()]
    with full_precision(x):
        y, after = step(before, x, dt, A, B, C, D, dt_bias, bool(softplus))
    if z is not None:
        y = y * F.silu(z.to(y.dtype))
    if rows is None:
        state.copy_(after)
    else:
        there = rows >= 0
        state[rows[there].long()] = after[there].to(state.dtype)
        y = torch.where(there[:, None, None], y, 0)
    return y.to(given.dtype).view(given.shape)


def _with_heads(v: Tensor | None, axes: int, at: int) -> Tensor | None:
    """Insert the axis of heads or groups at place `at`, if it was left out."""
    return v if v is None or v.dim() == axes else v.unsqueeze(at)


def _check(state, x, dt, A, B, C, D, z, dt_bias, rows) -> None:
    expect_axes("state", state, "batch, heads, channels, state")
    expect_axes("x", x, "batch, heads, channels")
    _, h, p, n = state.shape
    b = len(x)
    expect_shape("state", state, (b if rows is None else len(state), h, p, n))
    for name, v in (("x", x), ("dt", dt), ("z", z)):
        expect_shape(name, v, (b, h, p))
    expect_shape("A", A, (h, p, n))
    expect_axes("B", B, "batch, groups, state")
    groups = B.shape[1]
    expect(groups > 0 and h % groups == 0, f"B has {groups} groups, which do not divide {h} heads")
    for name, v in (("B", B), ("C", C)):
        expect_shape(name, v, (b, groups, n))
    for name, v in (("D", D), ("dt_bias", dt_bias)):
        expect_shape(name, v, (h, p))
    expect_shape("state_batch_indices", rows, (b,))


def one_step(state, x, dt, A, B, C, D, dt_bias, softplus) -> tuple[Tensor, Tensor]:
    """C state + D x and the new state, with one exponential per head if decays are tied."""
    dtype = wide(state, x, dt, A, B, C)
    dt, A, dt_bias = _tied_once(dt, 1), _tied_once(A, 2), _tied_once(dt_bias, 1)
    x, dt, A, B, C = (v.to(dtype) for v in (x, dt, A, B, C))
    if dt_bias is not None:
        dt = dt + dt_bias
    if softplus:
        dt = F.softplus(dt)
    B, C = (v.repeat_interleave(x.shape[1] // v.shape[1], dim=1) for v in (B, C))
    after = torch.exp(dt[..., None] * A) * state + (dt * x)[..., None] * B[:, :, None]
    y = (after @ C[..., None])[..., 0]
    return (y if D is None else y + D * x), after


def _tied_once(v: Tensor | None, axes: int) -> Tensor | None:
    """`v` with a single entry along each of its last axes that was expanded."""
    for axis in range(-axes, 0):
        if v is not None and v.stride(axis) == 0:
            v = v.narrow(axis, 0, 1)
    return v


def _by_channels(state, x, dt, A, B, C, D, dt_bias, softplus) -> tuple[Tensor, Tensor]:
    u, dt = (v.flatten(1)[:, None] for v in (x, dt))
    D, dt_bias = (v if v is None else v.flatten() for v in (D, dt_bias))
    y, after = selective_scan(
        u, dt, A.flatten(0, 1), B[:, None], C[:, None], D, h0=state.flatten(1, 2),
        dt_bias=dt_bias, dt_softplus=softplus, impl="reference",
    )  # fmt: skip
    return y.view(x.shape), after.view(state.shape)
