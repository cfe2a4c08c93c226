"""A linear recurrence with one decay per head and a matrix for a state.

    h_t = exp(log_a_t) h_{t-1} + weight_t x_t B_t^T          h_{-1} = h0, or 0 where reset_t
    y_t = exp(log_a_t) h_{t-1} C_t + own_t x_t (B_t . C_t) + D x_t

`own` is `weight` unless said: then y_t = h_t C_t + D x_t. A trapezoidal rule gives a sample the
second part of its weight when the next one comes: there `weight` is both parts, `own` the first.

By matrix products over chunks of time: the state space duality of Mamba-2 (Dao and Gu,
"Transformers are SSMs", ICML 2024, arXiv:2405.21060). Differs from the paper: sums of log decays
are never subtracted from one another, so exp(-1000) between two samples costs no accuracy
elsewhere; a backward of its own recomputes the matrices of each chunk and keeps at most the states
between chunks.

Values that are not finite spread to the whole chunk of `CHUNK` samples they fall in, as they do in
any product with a triangular matrix.

Axes: b batch, t time, h heads, p channels per head, n state, g groups (heads of a group share B
and C).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._choice import choose, expect, plain, shape_of
from longstate.ops.chunk_scan.decay import BLOCK

CHUNK = 64  # samples; balances the products inside a chunk (CHUNK) with those of its state (2n)


def chunk_scan(
    x: Tensor,
    log_a: Tensor,
    B: Tensor,
    C: Tensor,
    h0: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    own: Tensor | None = None,
    D: Tensor | None = None,
    reset: Tensor | None = None,
    mask: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Outputs, and the state after the last step.

    Args:
        x (b, t, h, p): input.
        log_a (b, t, h): logarithm of the decay, at most 0; -inf forgets.
        B, C (b, t, g, n): input and output vectors; g divides h.
        h0 (b, h, p, n): state before the first step. Zero when None.
        weight (b, t, h): of a sample in the state; Mamba-2's step. 1 when None.
        own (b, t, h): of a sample in its own output. As `weight` when None.
        D (h): of the input in the output. 0 when None.
        reset (b, t): bool. True forgets the state before that step, masked or not.
        mask (b, t): bool. False skips a step: the state stays, y there is 0.
        impl: "auto" (triton on CUDA, chunks elsewhere and for float64), "reference" (a loop),
            "chunks" (PyTorch's matrix products, on any device) or "triton". Under "auto", a single
            step on a CPU goes to a kernel of its own, or to the reference if a gradient is wanted.
            Not with a mask or a reset.

    Returns:
        y (b, t, h, p) in the type of `x`, and the last state (b, h, p, n), float32 at least.
        Differentiable, once, in all but `reset` and `mask`.

    Raises:
        ValueError: shapes do not fit, t is 0, or `impl` does not exist or cannot run here.
    """
    _check(x, log_a, B, C, h0, weight, own, D, reset, mask)
    dtype = torch.float32
    for v in (x, log_a, B, C, h0, weight, own, D):
        dtype = dtype if v is None else torch.promote_types(dtype, v.dtype)
    b, t, h, p = x.shape
    single = impl == "auto" and t == 1 and mask is None and reset is None
    impl = "reference" if single else _choose(impl, x, dtype)  # a chunk would be padding
    h0 = x.new_zeros(b, h, p, B.shape[3], dtype=dtype) if h0 is None else h0.to(dtype)
    weight = x.new_ones(b, t, h, dtype=dtype) if weight is None else weight
    own = weight if own is None else own
    D = x.new_zeros(h, dtype=dtype) if D is None else D
    if single and plain(x, log_a, B, C, h0, weight, own, D):
        from longstate.ops.chunk_scan import cpu_step

        return cpu_step.forward(x, log_a, weight, own, B, C, D, h0)
    if impl == "reference":
        from longstate.ops.chunk_scan import reference

        x_wide, log_a, weight, own, B, C, D = (
            v.to(dtype) for v in (x, log_a, weight, own, B, C, D)
        )
        y, last = reference.forward(x_wide, log_a, weight, own, B, C, D, h0, reset, mask)
        return y.to(x.dtype), last
    return _by_chunks(x, log_a, weight, own, B, C, D, h0, reset, mask, impl)


def _choose(impl: str, x: Tensor, dtype: torch.dtype) -> str:
    names = ("auto", "reference", "chunks", "triton")
    expect(impl in names, f"impl must be one of {', '.join(names)}; got {impl!r}")
    if impl == "auto":
        fast = choose(impl, x) == "triton" and dtype != torch.float64
        return "triton" if fast else "chunks"
    return choose(impl, x) if impl == "triton" else impl


def _by_chunks(x, log_a, weight, own, B, C, D, h0, reset, mask, impl):
    """Masks and resets become decays and weights."""
    if mask is not None:
        skipped = ~mask[..., None]
        log_a, weight, own = (v.masked_fill(skipped, 0) for v in (log_a, weight, own))
        x, B, C = (v.masked_fill(skipped[..., None], 0) for v in (x, B, C))
    if reset is not None:
        log_a = log_a.masked_fill(reset[..., None], -torch.inf)
    t = x.shape[1]
    k = min(CHUNK, -(-t // BLOCK) * BLOCK)
    padding = 0
    if impl == "triton":  # which fills up chunks by itself, and wants a power of 2
        k = max(16, 1 << (k - 1).bit_length())
    else:
        padding = -t % k
    if padding:
        log_a, weight, own = (F.pad(v, (0, 0, 0, padding)) for v in (log_a, weight, own))
        x, B, C = (F.pad(v, (0, 0, 0, 0, 0, padding)) for v in (x, B, C))
    inputs = (x, log_a, weight, own, B, C, D, h0)
    keep = torch.is_grad_enabled() and any(v.requires_grad for v in inputs)
    y, last, _ = _scan(*inputs, k, keep, impl)
    return (y[:, :t] if padding else y), last


def _check(x, log_a, B, C, h0, weight, own, D, reset, mask):
    expect(x.dim() == 4, f"x must be (batch, time, heads, channels); got {shape_of(x)}")
    b, t, h, p = x.shape
    expect(t > 0, "x has no time steps; chunk_scan needs at least one")
    for name, v in (("log_a", log_a), ("weight", weight), ("own", own)):
        expect(
            v is None or v.shape == (b, t, h),
            f"{name} must be {(b, t, h)}; got {None if v is None else shape_of(v)}",
        )
    expect(D is None or D.shape == (h,), f"D must be ({h},)")
    expect(
        B.dim() == 4 and B.shape[:2] == (b, t) and B.shape[2] > 0 and h % B.shape[2] == 0,
        f"B must be ({b}, {t}, groups that divide {h}, state); got {shape_of(B)}",
    )
    expect(C.shape == B.shape, f"C must be of the shape of B {tuple(B.shape)}; got {shape_of(C)}")
    expected = (b, h, p, B.shape[3])
    expect(h0 is None or h0.shape == expected, f"h0 must be {expected}")
    for name, flag in (("mask", mask), ("reset", reset)):
        expect(
            flag is None or (flag.shape == (b, t) and flag.dtype == torch.bool),
            f"{name} must be a bool tensor {(b, t)}",
        )


@torch.library.custom_op("longstate::chunk_scan", mutates_args=())
def _scan(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, k: int, keep: bool, impl: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the last state, and the states between chunks if `keep` and "chunks"."""
    inputs = (x, log_a, weight, own, B, C, D, h0, k)
    if impl == "triton":
        from longstate.ops.chunk_scan import triton

        return *triton.forward(*inputs), h0.new_empty(0)
    from longstate.ops.chunk_scan import chunks

    return chunks.forward(*inputs, keep)


@_scan.register_fake
def _(x, log_a, weight, own, B, C, D, h0, k, keep, impl):
    from longstate.ops.chunk_scan.chunks import Tiling

    y, last = x.new_empty(x.shape), h0.new_empty(h0.shape)
    if not keep or impl == "triton":
        return y, last, h0.new_empty(0)
    cut = Tiling(x, B.shape[2], k)
    return y, last, h0.new_empty(cut.blocks, cut.chunks + 1, cut.rows, *h0.shape[1:])


@torch.library.custom_op("longstate::chunk_scan_backward", mutates_args=())
def _scan_backward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    kept: Tensor, grad_y: Tensor, grad_last: Tensor, k: int, impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`kept`: the states between chunks for "chunks", h0 for "triton"."""
    inputs = (x, log_a, weight, own, B, C, D, kept, grad_y, grad_last, k)
    if impl == "triton":
        from longstate.ops.chunk_scan import triton

        return triton.backward(*inputs)
    from longstate.ops.chunk_scan import chunks

    return chunks.backward(*inputs)


@_scan_backward.register_fake
def _(x, log_a, weight, own, B, C, D, kept, grad_y, grad_last, k, impl):
    inputs = (x, log_a, weight, own, B, C, D, grad_last)
    return tuple(v.new_empty(v.shape) for v in inputs)


def _setup(ctx, inputs, output):
    *tensors, h0, ctx.k, _, ctx.impl = inputs
    _, last, states = output
    ctx.mark_non_differentiable(states)
    ctx.set_materialize_grads(False)  # else zeros of the size of states are made, for nothing
    ctx.last = last.shape, last.dtype
    ctx.save_for_backward(*tensors, h0 if ctx.impl == "triton" else states)


def _backward(ctx, grad_y, grad_last, grad_states):
    saved = ctx.saved_tensors  # read once: checkpointing recomputes them for each reading
    x, *_ = saved
    if grad_y is None:
        grad_y = torch.zeros_like(x)
    if grad_last is None:
        shape, dtype = ctx.last
        grad_last = x.new_zeros(shape, dtype=dtype)
    grads = _scan_backward(*saved, grad_y, grad_last, ctx.k, ctx.impl)
    return *grads, None, None, None


_scan.register_autograd(_backward, setup_context=_setup)
