"""The functions that modeling files of `transformers` call between projections, by longstate's ops.

Argument names, shapes and results are those of the replaced functions. A function that does not
support a call returns NotImplemented, and the caller uses the original.

Differs from the originals: steps, decays and states are float32 also in a bfloat16 model, as in the
CUDA kernels of these models; a scan starts from the state that `beginning_with` sets.

Axes: b batch, t time, d channels, k taps, n state, h heads, p channels per head, g groups.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.ops import chunk_scan, selective_scan, short_conv
from longstate.ops._choice import plain
from longstate.ops.matvec import FEW
from longstate.ops.selective_step import Linear, Weights, selective_step_

_SILU = ("silu", "swish")
_PACKING = ("seq_idx", "cu_seqlens")

_first_states: ContextVar[Iterator[Tensor] | None] = ContextVar("first_states", default=None)


@contextmanager
def beginning_with(state: Tensor) -> Iterator[None]:
    """Context manager: scans start from `state` (b, d, n), or in turn from (b, heads, d, n)."""
    token = _first_states.set(iter(state.unbind(1) if state.dim() == 4 else (state,)))
    try:
        yield
    finally:
        _first_states.reset(token)


def no_fused_layer(*_: Any, **__: Any) -> None:
    """A fused layer, which only GPU packages have. None makes the mixer use the other functions."""


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

    The other `options` do not change the result.
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

    The size of the chunks is chosen by the op: `chunk_size` does not change the result.
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
    """hidden_states (b, d, 1) -> (b, d, 1); conv_state (b, d, k) is updated in place."""
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

    Mamba: `state` (b, d, n), hidden_states, dt, z (b, d), A (d, n), B, C (b, n). Mamba-2: `state`
    (b, h, p, n), hidden_states, dt, z (b, h, p), A (h, p, n), B, C (b, g, n); `dt`, its bias, `A`
    and `D` are one number per head, expanded.
    """
    if _packed(options) or _differentiates(state, hidden_states, dt, A, B, C):
        return NotImplemented
    x, dt, B, C = (v[:, None] for v in (hidden_states, dt, B, C))
    if state.dim() == 3:
        z = None if z is None else z[:, None]
        y, last = selective_scan(
            x, dt, A, B, C, D, z, state, dt_bias=dt_bias, dt_softplus=dt_softplus
        )
        state.copy_(last)
        return y[:, 0]
    if not (_one_per_head(A, 2) and all(_one_per_head(v, 1) for v in (dt, D, dt_bias))):
        return NotImplemented
    D, dt_bias = (None if v is None else v[:, 0] for v in (D, dt_bias))
    y, last = chunk_scan_fn(
        x, dt[..., 0], A[:, 0, 0], B, C, 1, D, dt_bias, state, dt_softplus, return_final_states=True
    )
    state.copy_(last)
    y = y[:, 0] if z is None else y[:, 0] * F.silu(z)
    return y.to(hidden_states.dtype)


def mamba_step(mixer: Any, hidden_states: Tensor, conv_state: Tensor, state: Tensor) -> Any:
    """One token (b, 1, d) through the whole mixer of Mamba; states are updated in place."""
    if torch.is_grad_enabled():
        return NotImplemented
    # without nn.Module's attribute look-up, which takes as long as a product for so many weights
    layers, own = mixer._modules, mixer._parameters
    into, steering, dt, out = (
        _plain(layers[name], nn.Linear) for name in ("in_proj", "x_proj", "dt_proj", "out_proj")
    )
    conv = _plain(layers["conv1d"], nn.Conv1d)
    if not (into and conv and steering and dt and out and type(own.get("A_log")) is nn.Parameter):
        return NotImplemented
    x = hidden_states[:, 0]
    if (
        len(x) > FEW
        or mixer.activation not in _SILU
        or steering["bias"] is not None
        or dt["bias"] is None
        or x.dtype != conv_state.dtype
        or state.dtype not in (torch.float32, torch.float64)
        or x.dtype != into["weight"].dtype
        or not (plain(x) and conv_state.is_contiguous() and state.is_contiguous())
    ):
        return NotImplemented
    weights = Weights(
        in_proj=Linear(into["weight"], into["bias"]),
        conv_weight=conv["weight"][:, 0],
        conv_bias=conv["bias"],
        x_proj=Linear(steering["weight"], None),
        dt_proj=Linear(dt["weight"], dt["bias"]),
        A_log=own["A_log"],
        D=own["D"],
        out_proj=Linear(out["weight"], out["bias"]),
    )
    return selective_step_(x, conv_state, state, weights)[:, None]


def _plain(layer: Any, kind: type[nn.Module]) -> dict[str, Any] | None:
    """Weight and bias of a plain layer on the CPU, without adapters and hooks; otherwise None."""
    if type(layer) is not kind or "forward" in vars(layer):
        return None
    if layer._forward_hooks or layer._forward_pre_hooks:
        return None
    weight = layer._parameters.get("weight")
    if type(weight) is not nn.Parameter or weight.device.type != "cpu":
        return None
    return layer._parameters


def _one_per_head(x: Tensor | None, axes: int) -> bool:
    """Whether `x` is constant along its last `axes`, as a result of `expand`."""
    if x is None:
        return True
    return all(x.stride(axis) == 0 or x.shape[axis] == 1 for axis in range(-axes, 0))


def _packed(options: dict[str, Any]) -> bool:
    """Whether several sequences are packed into a row; then the originals are used."""
    return any(options.get(name) is not None for name in _PACKING)


def _differentiates(*tensors: Tensor) -> bool:
    """Whether a step in place would lose gradients."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
