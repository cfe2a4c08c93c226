"""The functions of `causal_conv1d`: a short causal depthwise convolution.

    y_t = f(bias + sum_k weight_k x_{t - (k_max - k)})        f = SiLU or nothing

Tri Dao, `causal-conv1d` 1.7. Differs from it: final states can be returned for all layouts.

Axes: b batch, d channels, t time, k taps, s samples kept in a state (at least k - 1).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.interop.mamba_ssm.inputs import boundaries, expect, expect_axes, expect_shape, wide
from longstate.interop.mamba_ssm.layout import time_last, time_second
from longstate.ops import short_conv

Result = Tensor | tuple[Tensor, Tensor]


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Result:
    """Convolved samples, in the type and layout of `x`.

    Args:
        x (b, d, t): input.
        weight (d, k): oldest tap first.
        bias (d): added before the activation.
        seq_idx (b, t): which sequence a sample belongs to; sequences are independent. Negative is
            padding, and gives 0.
        initial_states (b, d, k - 1): inputs before the first sample; of the first sequence, if
            there is `seq_idx`.
        return_final_states: whether to return the last k - 1 inputs too. Not with `seq_idx`.
        final_states_out (b, d, k - 1): where to write them, when they are returned.
        activation: "silu", "swish" (the same) or None.

    Returns:
        y (b, d, t), or y and the final states (b, d, k - 1).

    Raises:
        InputError: a shape does not fit, or final states are requested with `seq_idx`.
        NotImplementedError: another activation.
    """
    return _convolve(
        x, weight, bias, seq_idx, initial_states, return_final_states, final_states_out,
        activation, _by_kernel,
    )  # fmt: skip


def causal_conv1d_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
    seq_idx: Tensor | None = None,
) -> Result:
    """`causal_conv1d_fn` as a sum over taps. The order of the arguments is different."""
    return _convolve(
        x, weight, bias, seq_idx, initial_states, return_final_states, final_states_out,
        activation, _by_taps,
    )  # fmt: skip


def _convolve(x, weight, bias, seq_idx, before, return_final, out, activation, convolve) -> Result:
    silu = _silu(activation)
    b, d, t, past = _check(x, weight, bias)
    expect_shape("seq_idx", seq_idx, (b, t))
    expect_shape("initial_states", before, (b, d, past))
    expect(
        seq_idx is None or not return_final,
        "return_final_states with seq_idx is not defined: each sequence has its own last samples",
    )
    y = time_last(convolve(x, weight, bias, before, seq_idx, silu), like=x)
    if not return_final:
        return y
    before = x.new_zeros(b, past, d).mT if before is None else before.to(x.dtype)
    kept = min(t, past)
    final = torch.cat([before, x[..., t - kept :]], dim=-1)[..., kept:]
    if out is None:
        return y, final
    expect_shape("final_states_out", out, (b, d, past))
    return y, out.copy_(final)


def _by_kernel(x, weight, bias, before, seq_idx, silu) -> Tensor:
    """y (b, t, d) in the type of `x`. before (b, d, k - 1): inputs before the first sample."""
    reset, mask = (None, None) if seq_idx is None else boundaries(seq_idx)
    taps = None if before is None else before.mT
    activation = "silu" if silu else None
    return short_conv(
        time_second(x), weight, bias, taps, activation=activation, mask=mask, reset=reset
    )[0]


def _by_taps(x, weight, bias, before, seq_idx, silu) -> Tensor:
    """The same as a sum over taps in plain PyTorch, in the wider type of `x` and `weight`."""
    past, t = weight.shape[1] - 1, x.shape[2]
    v = x.to(wide(x, weight))
    v = F.pad(v, (past, 0)) if before is None else torch.cat([before.to(v.dtype), v], dim=-1)
    y = v.new_zeros(x.shape) if bias is None else bias[:, None].to(v.dtype).expand(x.shape)
    if seq_idx is not None:
        ids = torch.cat([seq_idx[:, :1].expand(-1, past), seq_idx], dim=1)[:, None]
    for k in range(past + 1):
        seen = v[..., k : k + t]
        if seq_idx is not None:
            seen = seen * (ids[..., k : k + t] == ids[..., past:])
        y = y + weight[:, k, None] * seen
    if seq_idx is not None:
        y = y.masked_fill(seq_idx[:, None] < 0, 0)
    return (F.silu(y) if silu else y).to(x.dtype).mT


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """Convolve the next samples, and update the state in place. Not differentiable.

    Args:
        x (b, d) or (b, d, t): input.
        conv_state (b, d, s): inputs so far, the newest last.
        weight (d, k): oldest tap first.
        bias (d): added before the activation.
        activation: "silu", "swish" (the same) or None.
        cache_seqlens (b): number of samples so far, integer. If given, `conv_state` is a ring
            buffer: sample i is at place i modulo s.
        conv_state_indices (b): row of `conv_state` for each row of `x`. A negative row is padding:
            it gives 0 and changes nothing. `conv_state` may then have any number of rows.

    Returns:
        y of the shape and type of `x`.

    Raises:
        InputError: a shape does not fit.
        NotImplementedError: another activation.
    """
    return _update(
        x, conv_state, weight, bias, activation, cache_seqlens, conv_state_indices, _by_kernel
    )


def causal_conv1d_update_ref(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
) -> Tensor:
    """`causal_conv1d_update` as a sum over taps."""
    return _update(x, conv_state, weight, bias, activation, cache_seqlens, None, _by_taps)


@torch.no_grad()
def _update(x, conv_state, weight, bias, activation, seen, rows, convolve) -> Tensor:
    silu = _silu(activation)
    expect_axes("x", x, "batch, channels", "batch, channels, time")
    samples = x[..., None] if x.dim() == 2 else x
    b, d, _, past = _check(samples, weight, bias)
    expect_axes("conv_state", conv_state, "batch, channels, samples")
    places = conv_state.shape[2]
    expect(places >= past, f"conv_state must hold at least {past} samples; got {places}")
    expect_shape("conv_state", conv_state, (b if rows is None else len(conv_state), d, places))
    expect_shape("cache_seqlens", seen, (b,))
    expect_shape("conv_state_indices", rows, (b,))
    state = conv_state if rows is None else conv_state[rows.clamp(min=0).long()]
    new = samples[..., -places:].to(state.dtype)
    if seen is None:
        taps = state[..., places - past :]
        state = torch.cat([state, new], dim=-1)[..., -places:]
    else:
        taps = state.gather(2, _ring(seen - past, past, state))
        first = seen + samples.shape[2] - new.shape[2]
        state = state.scatter(2, _ring(first, new.shape[2], state), new)
    y = convolve(samples, weight, bias, taps, None, silu)
    if rows is None:
        conv_state.copy_(state)
    else:
        there = rows >= 0
        conv_state[rows[there].long()] = state[there]
        y = torch.where(there[:, None, None], y, 0)
    return y[:, 0] if x.dim() == 2 else time_last(y, like=x)


def _ring(first: Tensor, count: int, state: Tensor) -> Tensor:
    """Places (b, d, count) of the samples from number `first` (b) on."""
    number = first[:, None].long() + torch.arange(count, device=state.device)
    return (number % state.shape[2])[:, None].expand(-1, state.shape[1], -1)


def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """The last samples of each of several concatenated sequences.

    Args:
        x (t, d): samples of all sequences.
        cu_seqlens (b + 1): where sequences begin, and where the last one ends.
        state_len: s, number of samples to keep of each.

    Returns:
        (b, d, s), the newest sample last; 0 in front of a shorter sequence.

    Raises:
        InputError: a shape does not fit.
    """
    _check_packed(x, cu_seqlens)
    begin, end = cu_seqlens[:-1, None], cu_seqlens[1:, None]
    at = end - state_len + torch.arange(state_len, device=x.device)  # (b, s)
    there = (at >= begin)[..., None]
    return torch.where(there, x[at.clamp(min=0).long()], 0).mT


def causal_conv1d_varlen_states_ref(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """`causal_conv1d_varlen_states`, one sequence after the other."""
    _check_packed(x, cu_seqlens)
    bounds = cu_seqlens.tolist()
    states = x.new_zeros(len(bounds) - 1, state_len, x.shape[1])
    for state, begin, end in zip(states, bounds, bounds[1:], strict=False):
        kept = min(end - begin, state_len)
        state[state_len - kept :] = x[end - kept : end]
    return states.mT


def _check_packed(x: Tensor, cu_seqlens: Tensor) -> None:
    expect_axes("x", x, "time, channels")
    expect(len(x) > 0, "x has no samples")
    expect_axes("cu_seqlens", cu_seqlens, "sequences + 1")


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[int, int, int, int]:
    expect_axes("x", x, "batch, channels, time")
    b, d, t = x.shape
    expect(t > 0, "x has no samples")
    expect(
        weight.dim() == 2 and weight.shape[0] == d and weight.shape[1] > 0,
        f"weight must be ({d}, taps); got {tuple(weight.shape)}",
    )
    expect_shape("bias", bias, (d,))
    return b, d, t, weight.shape[1] - 1


def _silu(activation: str | None) -> bool:
    if activation not in (None, "silu", "swish"):
        raise NotImplementedError(f"activation must be None, 'silu' or 'swish'; got {activation!r}")
    return activation is not None
