"""A linear recurrence with one decay per head, whose state is a matrix.

    h_t = exp(log_a_t) h_{t-1} + weight_t x_t B_t^T          h_{-1} = h0, or 0 where reset_t
    y_t = exp(log_a_t) h_{t-1} C_t + own_t x_t (B_t . C_t) + D x_t

By default `own` is `weight`, and y_t = h_t C_t + D x_t. In a trapezoidal rule a sample gets the
second part of its weight at the next step: there `weight` is both parts, `own` the first.

By matrix products over chunks of time: the state space duality of Mamba-2 (Dao and Gu,
"Transformers are SSMs", ICML 2024, arXiv:2405.21060). Differs from the paper: sums of log decays
are never subtracted from one another, so exp(-1000) between two samples costs no accuracy
elsewhere; the backward recomputes the matrices of each chunk, and keeps at most the states between
chunks.

A sample that is not finite reaches its own output and later ones of its row, up to a reset. Away
from CPUs it spreads to the whole chunk of `CHUNK` samples, as in any product with a triangular
matrix.

Axes: b batch, t time, h heads, p channels per head, n state, g groups (heads of a group share B
and C).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._arguments import check_flags, common_type, implementation
from longstate.ops._choice import choose, expect, plain, shape_of
from longstate.ops._op import register
from longstate.ops.chunk_scan.decay import BLOCK
from longstate.ops.chunk_scan.narrow import of_products

CHUNK = 64  # samples; balances the products inside a chunk (CHUNK) with those of its state (2n)
FEW = 16  # samples; so few take less time one after another than as a chunk


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
        impl: "auto", "reference" (a loop), "cpu" (matrix products, and kernels between them),
            "triton", or "chunks" (the same by PyTorch alone, on any device). Under "auto", float64
            on GPUs and devices without a kernel take "chunks", and up to 16 steps on a CPU go to a
            kernel of their own, or, if a gradient is wanted, a single one to the reference. Not
            with a mask or a reset.

    Returns:
        y (b, t, h, p) in the type of `x`, and the last state (b, h, p, n), float32 at least.
        Differentiable, once, in all but `reset` and `mask`.

    Raises:
        ValueError: shapes do not fit, t is 0, or `impl` does not exist or cannot run here.
    """
    _check(x, log_a, B, C, h0, weight, own, D)
    check_flags(*x.shape[:2], mask=mask, reset=reset)
    dtype = common_type(x, log_a, B, C, h0, weight, own, D)
    b, t, h, p = x.shape
    few = impl == "auto" and t <= FEW and mask is None and reset is None
    h0 = x.new_zeros(b, h, p, B.shape[3], dtype=dtype) if h0 is None else h0.to(dtype)
    weight = x.new_ones(b, t, h, dtype=dtype) if weight is None else weight
    own = weight if own is None else own
    D = x.new_zeros(h, dtype=dtype) if D is None else D
    if few and plain(x, log_a, B, C, h0, weight, own, D):
        from longstate.ops.chunk_scan import cpu_step

        return cpu_step.forward(x, log_a, weight, own, B, C, D, h0)
    impl = "reference" if few and t == 1 else _choose(impl, x, dtype)  # a chunk would be padding
    if impl == "reference":
        return _loop(x, log_a, weight, own, B, C, D, h0, reset, mask)
    return _by_chunks(x, log_a, weight, own, B, C, D, h0, reset, mask, impl)


def _loop(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, reset: Tensor | None, mask: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The reference, in the type of `h0`."""
    from longstate.ops.chunk_scan import reference

    dtype = x.dtype
    x, log_a, weight, own, B, C, D = (v.to(h0.dtype) for v in (x, log_a, weight, own, B, C, D))
    y, last = reference.forward(x, log_a, weight, own, B, C, D, h0, reset, mask)
    return y.to(dtype), last


def _choose(impl: str, x: Tensor, dtype: torch.dtype) -> str:
    """ "reference", "cpu", "triton" or "chunks"."""
    if impl == "chunks":
        return impl
    found = choose(impl, x)
    if impl != "auto" or found == "cpu":
        return found
    return "triton" if found == "triton" and dtype != torch.float64 else "chunks"


def _by_chunks(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, reset: Tensor | None, mask: Tensor | None, impl: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The op, with masks and resets expressed by decays and weights."""
    if mask is not None:
        skipped = ~mask[..., None]
        log_a, weight, own = (v.masked_fill(skipped, 0) for v in (log_a, weight, own))
        x, B, C = (v.masked_fill(skipped[..., None], 0) for v in (x, B, C))
    if reset is not None:
        log_a = log_a.masked_fill(reset[..., None], -torch.inf)
    t = x.shape[1]
    k, padding = min(CHUNK, t), 0
    if impl == "triton":  # which pads chunks itself, as "cpu" does, and needs a power of 2
        k = max(16, 1 << (k - 1).bit_length())
    elif impl == "chunks":
        k = -(-k // BLOCK) * BLOCK
        padding = -t % k
    if padding:
        log_a, weight, own = (F.pad(v, (0, 0, 0, padding)) for v in (log_a, weight, own))
        x, B, C = (F.pad(v, (0, 0, 0, 0, 0, padding)) for v in (x, B, C))
    y, last = _scan(Inputs(x, log_a, weight, own, B, C, D, h0, k, False, impl))
    return (y[:, :t] if padding else y), last


def _check(
    x: Tensor, log_a: Tensor, B: Tensor, C: Tensor, h0: Tensor | None, weight: Tensor | None,
    own: Tensor | None, D: Tensor | None,
) -> None:  # fmt: skip
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


class Inputs(NamedTuple):
    """As for `chunk_scan`, in chunks of `k` samples; whole ones for "chunks".

    `keep`: whether the states between chunks are returned. "triton" computes them again.
    """

    x: Tensor
    log_a: Tensor
    weight: Tensor
    own: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    h0: Tensor
    k: int
    keep: bool
    impl: str


_TENSORS = Inputs._fields[:8]


def _forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    if s.impl == "triton":
        return *implementation("chunk_scan", "triton").forward(*s[:9]), s.h0.clone(
            memory_format=torch.contiguous_format
        )
    return implementation("chunk_scan", s.impl).forward(*s[:10])


def _fake(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    from longstate.ops.chunk_scan.chunks import Tiling

    y, last = s.x.new_empty(s.x.shape), s.h0.new_empty(s.h0.shape)
    if s.impl == "triton":
        return y, last, s.h0.new_empty(s.h0.shape)
    if not s.keep:
        return y, last, s.h0.new_empty(0)
    if s.impl == "cpu":
        b, t, h, p = s.x.shape
        shape, kind = (b, -(-t // s.k), h, p, s.B.shape[3]), of_products(s.x, s.B, s.C, s.h0.dtype)
        return y, last, s.h0.new_empty(shape, dtype=kind)
    cut = Tiling(s.x, s.B.shape[2], s.k)
    return y, last, s.h0.new_empty(cut.blocks, cut.chunks + 1, cut.rows, *s.h0.shape[1:])


def _backward(
    s: Inputs, states: Tensor, grad_y: Tensor | None, grad_last: Tensor | None
) -> dict[str, Tensor]:
    grad_y = torch.zeros_like(s.x) if grad_y is None else grad_y
    grad_last = torch.zeros_like(s.h0) if grad_last is None else grad_last
    run = implementation("chunk_scan", s.impl)
    return dict(zip(_TENSORS, run.backward(*s[:7], states, grad_y, grad_last, s.k), strict=True))


def _reference(s: Inputs) -> tuple[Tensor, Tensor]:
    return _loop(*s[:8], None, None)


def _restore(s: Inputs, states: Tensor) -> dict[str, Tensor]:
    if s.impl == "triton":
        return {"h0": states}
    first = states[:, 0]  # (b, h, p, n), or by blocks of rows
    return {"h0": (first if s.impl == "cpu" else first.flatten(0, 1)).to(s.h0.dtype)}


_scan = register(
    "chunk_scan", Inputs, _forward, _fake, _backward, _reference,
    returns="y last", saves="states", copied="h0", restore=_restore,
)  # fmt: skip
