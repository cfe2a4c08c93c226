"""Triton: two kernels forward, five backward.

`carry` computes the state between chunks, `outputs` the outputs of a chunk. In the backward `carry`
runs twice, once to recompute the states and once from the end for their gradients;
`input_gradients` computes what depends on them in a chunk of a head, `pair_gradients` the pairs of
samples in it, and `shared_gradients` the sums over heads of a group. The forward keeps nothing for
the backward. Sums over heads run in a fixed order in one program, or in parts that are added up
afterwards: no atomic additions, so the result is the same every time.

Products have operands of the type of the inputs, and sums in float32. An operand that is a float32
number and an intermediate result (a state, the gradient of a decay) is not rounded to bfloat16 but
split into three. float16 is widened, and its products take three passes in TF32. float32 is
multiplied as such, unless PyTorch may use TF32 for its own products.

Tested under Triton's interpreter, and compiled for GPUs, with next to no spilled registers, but not
yet run on one: sizes of tiles and numbers of warps are not tuned.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense
from longstate.ops.chunk_scan import triton_kernels as kernels
from longstate.ops.chunk_scan.triton_tiles import Frame, Rows

_COLUMNS = 32  # of the state at a time
_HEADS = 8  # of a group in one program


def _tf32() -> bool:
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # since PyTorch 2.9, where the older name may raise
        return matmul.fp32_precision == "tf32"
    return matmul.allow_tf32


def _products(x: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[tl.dtype, str]:
    """Type of the operands of products, and their precision."""
    types = {x.dtype, B.dtype, C.dtype}
    if state.dtype == torch.float64:
        return tl.float64, "ieee"
    if types == {torch.bfloat16}:
        return tl.bfloat16, "ieee"
    if torch.version.hip or (torch.float32 in types and not _tf32()):
        return tl.float32, "ieee"
    return tl.float32, "tf32" if torch.float32 in types else "tf32x3"


def _largest(kind: tl.dtype, precision: str, x: Tensor) -> tuple[int, int]:
    """Samples in a chunk and channels in a tile for which registers suffice.

    Below 64 Triton does not use the tensor cores of compute capability 10, on which loops of
    products gave wrong results or had data races up to its version 3.7 (its issues 9871, 10590 and
    10821).
    """
    if x.is_cuda and torch.cuda.get_device_capability(x.device)[0] == 10:
        return 32, 32
    if kind == tl.bfloat16:
        return 64, 64
    return (64, 32) if precision == "tf32" else (32, 32)


class _Plan(NamedTuple):
    frame: Frame
    chunks: int
    in_p: int  # tiles of p and n
    in_n: int
    options: dict  # of every kernel


def _plan(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, k: int,
) -> _Plan:  # fmt: skip
    (_, t, h, p), (g, n) = x.shape, B.shape[2:]
    kind, precision = _products(x, B, C, h0)
    chunk, tile = _largest(kind, precision, x)
    chunk = min(k, chunk)
    P, N = (
        min(most, max(16, triton.next_power_of_2(size)))
        for most, size in ((tile, p), (_COLUMNS, n))
    )
    log_a, weight, own, D = (dense(v.to(h0.dtype)) for v in (log_a, weight, own, D))
    known = [tl.constexpr(v) for v in (chunk, P, N, kind, precision)]
    frame = Frame(_rows(x), _rows(B), _rows(C), log_a, weight, own, D, t, h, g, p, n, *known)
    count = triton.cdiv
    options = {"num_warps": 4, "num_stages": 2}
    return _Plan(frame, count(t, chunk), count(p, P), count(n, N), options)


def _rows(v: Tensor) -> Rows:
    _, t, heads, size = v.shape
    step = v.stride(1)
    if v.stride() == (t * step, step, size, 1) and not v.is_neg():
        return Rows(v, step)
    return Rows(dense(v), heads * size)


def _carry(
    plan: _Plan, v: Rows, w: Rows, first: Tensor, dtype: torch.dtype, back: bool
) -> tuple[Tensor, Tensor]:
    """States, or their gradients, between chunks (b, c, h, p, n), and the one at the far end."""
    first = dense(first)
    b, h, p, n = first.shape
    kept, last = first.new_empty(b, plan.chunks, h, p, n, dtype=dtype), torch.empty_like(first)
    kernels.carry[(b * h, plan.in_p, plan.in_n)](
        plan.frame, v, w, first, kept, last, BACK=back, **plan.options
    )
    return kept, last


def _total(parts: Tensor) -> Tensor:
    return parts[0] if len(parts) == 1 else parts.sum(0)


def forward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, k: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (b, t, h, p) and the last state, in chunks of at most `k` samples, a power of 2 from 16."""
    plan = _plan(x, log_a, weight, own, B, C, D, h0, k)
    operand = torch.bfloat16 if plan.frame.TYPE.value == tl.bfloat16 else h0.dtype
    states, last = _carry(plan, plan.frame.x, plan.frame.B, h0, operand, back=False)
    y = x.new_empty(x.shape)
    kernels.outputs[(len(x) * plan.chunks * x.shape[2], plan.in_p)](
        plan.frame, states, y, **plan.options
    )
    return y, last


def backward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, grad_y: Tensor, grad_last: Tensor, k: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, log_a, weight, own, B, C, D and h0."""
    plan, wide = _plan(x, log_a, weight, own, B, C, D, h0, k), h0.dtype
    frame, chunks, in_p, in_n, options = plan
    dys, (b, t, h, _), g, chunk = _rows(grad_y), x.shape, B.shape[2], frame.CHUNK.value
    states, _ = _carry(plan, frame.x, frame.B, h0, wide, back=False)
    grad_states, grad_h0 = _carry(plan, dys, frame.C, grad_last.to(wide), wide, back=True)

    def empty(*shape: int) -> Tensor:
        return h0.new_empty(shape)

    dx = x.new_empty(x.shape)
    ends = kernels.Ends(empty(in_p, b, t, h), empty(in_p, b, t, h), empty(in_p, b, chunks, h))
    kernels.input_gradients[(b * chunks * h, in_p)](
        frame, dys, states, grad_states, dx, ends, **options
    )
    parts = triton.cdiv(h // g, _HEADS)
    small = kernels.Weights(empty(b, t, h), empty(b, t, h), empty(b, t, h), empty(b, chunks, h))
    dCB = empty(parts, b, chunks, g, chunk, chunk)
    kernels.pair_gradients[(b * chunks * g, parts)](
        frame, dys, kernels.Ends(*map(_total, ends)), small, dCB, HEADS=_HEADS,
        **options | {"num_warps": 8},
    )  # fmt: skip
    shared = [v.new_empty(parts, *v.shape, dtype=v.dtype if parts == 1 else wide) for v in (B, C)]
    kernels.shared_gradients[(b * chunks * g, parts, in_n)](
        frame, dys, states, grad_states, dCB, *shared, HEADS=_HEADS, **options
    )
    dB, dC = (_total(v).to(like.dtype) for v, like in zip(shared, (B, C), strict=True))
    small = small._replace(D=small.D.sum((0, 1)))
    given = (log_a, weight, own, D)
    d_log_a, d_weight, d_own, dD = (v.to(w.dtype) for v, w in zip(small, given, strict=True))
    return dx, d_log_a, d_weight, d_own, dB, dC, dD, grad_h0
