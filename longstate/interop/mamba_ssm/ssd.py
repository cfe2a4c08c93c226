"""The functions of `mamba_ssm.ops.triton.ssd_combined`: Mamba-2's scan, and its fused block.

    step_t = clamp(softplus(dt_t + dt_bias))                  softplus if requested
    h_t = exp(A step_t) h_{t-1} + step_t x_t B_t^T
    out_t = (h_t C_t + D x_t) * silu(z_t)

Dao and Gu, "Transformers are SSMs" (2024), and the authors' package, version 2.3. Computed by
`longstate.ops.chunk_scan`, which chooses the size of the chunks: `chunk_size` has no effect.
Differs from the package: padding (negative `seq_idx`) gives 0 and is not read; states at the ends
of packed sequences are differentiable, and need `seq_idx`.

Axes: b batch, t time, h heads, p channels per head, n state, g groups of heads that share B and C,
s sequences in one row.
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.interop.mamba_ssm.inputs import boundaries, expect, expect_axes, expect_shape, wide
from longstate.interop.mamba_ssm.scan import selective_scan_fn
from longstate.interop.mamba_ssm.state_update import one_step
from longstate.layers._base import full_precision
from longstate.ops import chunk_scan

Limits = tuple[float, float]
NO_LIMITS = (0.0, float("inf"))


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: Limits = NO_LIMITS,
    return_final_states: bool = False,
    return_varlen_states: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """Outputs of the recurrence, in the type of `x`, and the requested states.

    Args:
        x (b, t, h, p): input.
        dt (b, t, h): step, before bias, softplus and limits.
        A (h): decay rate, negative.
        B, C (b, t, g, n): input and output vectors.
        chunk_size: positive; it has no effect here.
        D (h) or (h, p): direct path.
        z (b, t, h, p): gate, before its SiLU.
        dt_bias (h): added to `dt`.
        initial_states (b, h, p, n): state before the first sample; of sequence 0, if there is
            `seq_idx`. In a batch of 1 with `seq_idx` also (s, h, p, n), one for each sequence.
        seq_idx (b, t): which sequence a sample belongs to. Negative is padding.
        cu_seqlens (s + 1): where sequences begin, and where the last one ends, in a batch of 1. As
            published, it is used for `return_varlen_states` only.
        dt_softplus: whether `dt` goes through softplus.
        dt_limit: smallest and largest step.
        return_final_states: whether to return the state after the last sample, float32 or wider.
        return_varlen_states: whether to return the state after each sequence, in the type of `C`.

    Returns:
        out (b, t, h, p), then the final states (b, h, p, n) and the states of the sequences
        (s, h, p, n), if requested.

    Raises:
        InputError: a shape does not fit, or states of sequences are requested without `cu_seqlens`
            and `seq_idx`.
    """
    _check(x, dt, A, B, C, chunk_size, D, z, dt_bias, initial_states, seq_idx)
    steps = step_sizes(dt, dt_bias, dt_softplus, dt_limit)
    if initial_states is not None and len(initial_states) != len(x):
        y, final = _each_from_its_own(x, steps, A, B, C, D, z, initial_states, seq_idx)
    else:
        y, final = scan_heads(x, steps, A, B, C, D, z, initial_states, seq_idx)
    results = [y]
    if return_final_states:
        results.append(final)
    if return_varlen_states:
        states = states_of_sequences(x, steps, A, B, C, initial_states, seq_idx, cu_seqlens)
        results.append(states.to(C.dtype))
    return y if len(results) == 1 else tuple(results)


def _each_from_its_own(x, steps, A, B, C, D, z, before, seq_idx) -> tuple[Tensor, Tensor]:
    """`scan_heads` with a separate initial state for each packed sequence, (s, h, p, n)."""
    outputs, final, k = [], before[-1:], 0
    for begin, end in _pieces(seq_idx):
        v, dt, b, c = (w[:, begin:end] for w in (x, steps, B, C))
        gate = None if z is None else z[:, begin:end]
        if int(seq_idx[0, begin]) < 0:
            outputs.append(torch.zeros_like(v))
            continue
        y, final = scan_heads(v, dt, A, b, c, D, gate, before[k : k + 1])
        outputs.append(y)
        k += 1
    return torch.cat(outputs, dim=1), final


def _pieces(seq_idx: Tensor) -> list[tuple[int, int]]:
    """Begin and end of each run of one number in seq_idx (1, t)."""
    changes = (seq_idx[0, 1:] != seq_idx[0, :-1]).nonzero()[:, 0] + 1
    return list(pairwise([0, *changes.tolist(), seq_idx.shape[1]]))


def step_sizes(dt: Tensor, bias: Tensor | None, softplus: bool, limit: Limits) -> Tensor:
    """Steps (b, t, h), float32 at least."""
    dt = dt.to(wide(dt, bias))
    if bias is not None:
        dt = dt + bias
    if softplus:
        dt = F.softplus(dt)
    return dt.clamp(*limit)


def scan_heads(
    x: Tensor,
    steps: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    before: Tensor | None = None,
    seq_idx: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """`chunk_scan` with the step in the decay, D of two axes, and a gate."""
    if x.shape[1] == 1 and seq_idx is None and impl == "auto":
        with full_precision(x):
            return _one_sample(x, steps, A, B, C, D, z, before)
    reset, mask = (None, None) if seq_idx is None else boundaries(seq_idx, first=0)
    per_channel = D is not None and D.dim() == 2
    # so that the output is rounded to the type of x once, after D and the gate
    v = x.to(wide(x)) if per_channel or z is not None else x
    with full_precision(x):
        y, final = chunk_scan(
            v, A * steps, B, C, before, weight=steps,
            D=None if per_channel else D, reset=reset, mask=mask, impl=impl,
        )  # fmt: skip
    if D is not None and D.dim() == 2:
        y = y + D * (v if mask is None else v.masked_fill(~mask[..., None, None], 0))
    if z is not None:
        y = y * F.silu(z.to(y.dtype))
    return y.to(x.dtype), final


def _one_sample(x, steps, A, B, C, D, z, before) -> tuple[Tensor, Tensor]:
    """`scan_heads` of a single sample, without chunks."""
    if before is None:
        before = steps.new_zeros(len(x), *x.shape[2:], B.shape[3])
    y, final = one_step(
        before, x[:, 0], steps[:, 0, :, None], A[:, None, None], B[:, 0], C[:, 0],
        D[:, None] if D is not None and D.dim() == 1 else D, None, False,
    )  # fmt: skip
    if z is not None:
        y = y * F.silu(z[:, 0].to(y.dtype))
    return y.to(x.dtype)[:, None], final


def states_of_sequences(x, steps, A, B, C, before, seq_idx, cu_seqlens) -> Tensor:
    """The state after each sequence (s, h, p, n), 0 for an empty one."""
    expect(cu_seqlens is not None, "return_varlen_states needs cu_seqlens")
    expect(seq_idx is not None, "return_varlen_states needs seq_idx, to keep sequences apart")
    expect(len(x) == 1, f"return_varlen_states needs a batch of 1; got {len(x)}")
    expect_axes("cu_seqlens", cu_seqlens, "sequences + 1")
    states = []
    for begin, end in pairwise(cu_seqlens.tolist()):
        if begin == end:
            states.append(steps.new_zeros(1, *x.shape[2:], B.shape[3]))
            continue
        part = [v[:, begin:end] for v in (x, steps, B, C)]
        first = before if begin == 0 and int(seq_idx[0, 0]) == 0 else None
        if before is not None and len(before) > 1:
            first = before[len(states) : len(states) + 1]
        states.append(scan_heads(part[0], part[1], A, part[2], part[3], before=first)[1])
    return torch.cat(states)


def mamba_chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """`mamba_chunk_scan_combined` without states and sequences."""
    _check(x, dt, A, B, C, chunk_size, D, z, dt_bias, None, None)
    return scan_heads(x, step_sizes(dt, dt_bias, dt_softplus, NO_LIMITS), A, B, C, D, z)[0]


def ssd_chunk_scan_combined_ref(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """`mamba_chunk_scan` as a loop over time."""
    _check(x, dt, A, B, C, chunk_size, D, z, dt_bias, None, None)
    steps = step_sizes(dt, dt_bias, dt_softplus, NO_LIMITS)
    return scan_heads(x, steps, A, B, C, D, z, impl="reference")[0]


def ssd_selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: Limits = NO_LIMITS,
) -> Tensor:
    """The same by Mamba's scan, each channel by itself.

    Arguments are those of `mamba_chunk_scan_combined`; dt may be (b, t, h, p), A (h p, n) and
    dt_bias (h, p) as well.
    """
    expect_axes("x", x, "batch, time, heads, channels")
    _, _, h, p = x.shape

    def per_channel(v: Tensor, axes: int) -> Tensor:
        """(..., h) or (..., h, p) as (..., h p)."""
        return (v if v.dim() == axes else v[..., None].expand(*v.shape, p)).flatten(-2)

    if A.dim() == 1:
        A = A.repeat_interleave(p)[:, None].expand(h * p, B.shape[3])
    bias = None if dt_bias is None else per_channel(dt_bias, 2)
    steps = step_sizes(per_channel(dt, 4), bias, dt_softplus, dt_limit)
    y = selective_scan_fn(
        x.flatten(2).mT, steps.mT, A.to(steps.dtype), B.permute(0, 2, 3, 1), C.permute(0, 2, 3, 1),
        None if D is None else per_channel(D, 2), None if z is None else z.flatten(2).mT,
    )  # fmt: skip
    assert isinstance(y, Tensor)
    return y.mT.unflatten(2, (h, p))


def _check(x, dt, A, B, C, chunk_size, D, z, dt_bias, before, seq_idx) -> None:
    expect_axes("x", x, "batch, time, heads, channels")
    b, t, h, p = x.shape
    expect(t > 0, "x has no samples")
    expect(chunk_size > 0, f"chunk_size must be positive; got {chunk_size!r}")
    expect_axes("B", B, "batch, time, groups, state")
    groups, n = B.shape[2:]
    expect(groups > 0 and h % groups == 0, f"B has {groups} groups, which do not divide {h} heads")
    states = [(b, h, p, n)]
    if before is not None and seq_idx is not None and b == 1 and tuple(seq_idx.shape) == (1, t):
        states.append((sum(int(seq_idx[0, i]) >= 0 for i, _ in _pieces(seq_idx)), h, p, n))
    for name, v, *allowed in (
        ("dt", dt, (b, t, h)), ("A", A, (h,)), ("B", B, (b, t, groups, n)),
        ("C", C, (b, t, groups, n)), ("D", D, (h,), (h, p)), ("z", z, (b, t, h, p)),
        ("dt_bias", dt_bias, (h,)), ("initial_states", before, *states),
        ("seq_idx", seq_idx, (b, t)),
    ):  # fmt: skip
        expect_shape(name, v, *allowed)
