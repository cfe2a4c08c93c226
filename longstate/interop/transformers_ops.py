"""What the modeling files of `transformers` call between their projections, on our ops.

Argument names, shapes and results are those of the functions they stand for. A function that does
not cover a call gives NotImplemented, and the caller takes the original.

Differs from the originals: steps, decays and states are float32 also in a bfloat16 model, as in the
CUDA kernels of these models; a scan begins with the state that `beginning_with` sets.

Axes: b batch, t time, d channels, k taps, n state, h heads, p channels per head, g groups.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops import chunk_scan, selective_scan, short_conv

_SILU = ("silu", "swish")
_PACKING = ("seq_idx", "cu_seqlens")

_first_states: ContextVar[Iterator[Tensor] | None] = ContextVar("first_states", default=None)


@contextmanager
def beginning_with(state: Tensor) -> Iterator[None]:
    """Scans inside begin with `state` (b, d, n), or one after the other with (b, heads, d, n)."""
    token = _first_states.set(iter(state.unbind(1) if state.dim() == 4 else (state,)))
    try:
        yield
    finally:
        _first_states.reset(token)


def no_fused_layer(*_: Any, **__: Any) -> None:
    """A whole layer in one call: only GPU packages have that, and for None the layer goes on."""


def causal_conv1d_fn(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    **options: Any,
) -> Any:
    """hidden_states (b, d, t), weight (d, k) -> (b, d, t)."""
    if _packed(options) or activation not in (None, *_SILU):
        return NotImplemented
    silu = "silu" if activation else None
    y, _ = short_conv(hidden_states.transpose(1, 2), weight, bias, activation=silu)
    return y.transpose(1, 2)


def selective_scan_fn(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **options: Any,
) -> Any:
    """hidden_states, dt, z (b, d, t), A (d, n), B, C (b, n, t) -> (b, d, t), last state (b, d, n).

    The other `options` choose between ways to compute the same.
    """
    if _packed(options):
        return NotImplemented
    states = _first_states.get()
    y, last = selective_scan(
        hidden_states.transpose(1, 2),
        dt.transpose(1, 2),
        A,
        B.transpose(1, 2),
        C.transpose(1, 2),
        D,
        None if z is None else z.transpose(1, 2),
        None if states is None else next(states),
        dt_bias=delta_bias,
        dt_softplus=delta_softplus,
    )
    y = y.transpose(1, 2)
    return (y, last) if return_last_state else y


def chunk_scan_fn(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    **options: Any,
) -> Any:
    """hidden_states (b, t, h, p), dt (b, t, h), A (h), B, C (b, t, g, n) -> (b, t, h, p), and the
    last state (b, h, p, n).

    Time is cut into chunks of our own size: `chunk_size` does not change the result.
    """
    if _packed(options) or options.get("z") is not None:
        return NotImplemented
    wide = torch.promote_types(hidden_states.dtype, torch.float32)
    dt = dt.to(wide)
    if dt_bias is not None:
        dt = dt + dt_bias
    if dt_softplus:
        dt = F.softplus(dt)
    if tuple(dt_limit) != (0.0, float("inf")):
        dt = dt.clamp(*dt_limit)
    log_a = A.to(wide) * dt
    y, last = chunk_scan(hidden_states.to(wide), log_a, B, C, initial_states, weight=dt, D=D)
    return (y, last) if return_final_states else y


def causal_conv1d_update(
    hidden_states: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Any:
    """hidden_states (b, d, 1) goes into conv_state (b, d, k), in place -> (b, d, 1)."""
    if activation not in (None, *_SILU) or hidden_states.shape[-1] != 1:
        return NotImplemented
    if _differentiates(hidden_states, conv_state, weight):
        return NotImplemented
    wide = torch.promote_types(weight.dtype, torch.float32)
    window = torch.cat([conv_state[..., 1:], hidden_states], dim=-1)
    conv_state.copy_(window)
    y = (window.to(wide) * weight).sum(-1)
    if bias is not None:
        y += bias
    if activation:
        F.silu(y, inplace=True)
    return y[..., None].to(hidden_states.dtype)


def selective_state_update(
    state: Tensor,
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    z: Tensor | None = None,
    **options: Any,
) -> Any:
    """One step of `state`, in place.

    `state` (b, d, n) with hidden_states, dt, z (b, d), B, C (b, n), or (b, h, p, n) with (b, h, p)
    and (b, g, n). What is one value per head comes expanded, and is computed once.
    """
    if not can_step_in_place(state) or _packed(options):
        return NotImplemented
    if _differentiates(state, hidden_states, dt, A, B, C):
        return NotImplemented
    dt = _once(dt, 1).to(state.dtype)
    if dt_bias is not None:
        dt = dt + _once(dt_bias, 1)
    if dt_softplus:
        dt = F.softplus(dt)
    x = hidden_states.to(state.dtype)
    groups = B.shape[1] if B.dim() == 3 else 1
    by_group = state.view(state.shape[0], groups, -1, state.shape[-1])
    B, C = (v.to(state.dtype).reshape(-1, groups, 1, v.shape[-1]) for v in (B, C))
    state.mul_((dt[..., None] * _once(A, 2)).exp_())
    by_group.addcmul_((dt * x).view(*by_group.shape[:-1], 1), B)
    y = torch.matmul(by_group, C.mT).view(x.shape)
    if D is not None:
        y.addcmul_(x, D.to(y.dtype))
    if z is not None:
        y.mul_(F.silu(z.to(y.dtype)))
    return y.to(hidden_states.dtype)


def mamba_step(mixer: Any, hidden_states: Tensor, conv_state: Tensor, state: Tensor) -> Any:
    """One token (b, 1, d) through the whole mixer of Mamba, FalconMamba or Jamba, states in place.

    What `forward` of these mixers does, without its detours through (b, d, t).
    """
    if mixer.activation not in _SILU or not can_step_in_place(state):
        return NotImplemented
    x, z = mixer.in_proj(hidden_states[:, 0]).chunk(2, dim=-1)
    conv = mixer.conv1d
    x = causal_conv1d_update(x[..., None], conv_state, conv.weight[:, 0], conv.bias, "silu")[..., 0]
    sizes = [mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size]
    dt, B, C = mixer.x_proj(x).split(sizes, dim=-1)
    if hasattr(mixer, "dt_layernorm"):
        dt, B, C = mixer.dt_layernorm(dt), mixer.b_layernorm(B), mixer.c_layernorm(C)
    dt = F.linear(dt, mixer.dt_proj.weight)
    A = mixer.A_log.float().exp().neg_()
    y = selective_state_update(state, x, dt, A, B, C, mixer.D, mixer.dt_proj.bias, True, z)
    return mixer.out_proj(y)[:, None]


def can_step_in_place(state: Tensor) -> bool:
    """Whether `state` is what our scans leave in a cache."""
    return state.dtype in (torch.float32, torch.float64) and state[:1].is_contiguous()


def _once(x: Tensor, axes: int) -> Tensor:
    """`x` without the copies that `expand` makes along its last axes."""
    for axis in range(x.dim() - axes, x.dim()):
        if x.stride(axis) == 0:
            x = x.narrow(axis, 0, 1)
    return x


def _packed(options: dict[str, Any]) -> bool:
    """Whether several sequences share a row: the originals say what that needs."""
    return any(options.get(name) is not None for name in _PACKING)


def _differentiates(*tensors: Tensor) -> bool:
    """Whether a step in place would lose gradients."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
