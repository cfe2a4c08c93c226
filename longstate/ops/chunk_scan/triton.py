"""Triton: two kernels forward, four backward.

`carry` takes the state from chunk to chunk, `outputs` does a chunk. On the way back `carry` runs
twice, once for the states anew and once from the end for their gradients; `gradients` does what
belongs to a head, `shared_gradients` what heads share. Nothing is kept from one pass to the other.
A sum over heads runs in a fixed order in one program, or in parts that are added up afterwards: no
atomic additions, so the result is the same every time.

Products have operands of the type of the inputs, and sums in float32. An operand that is a float32
number and decides another (a state, the gradient of a decay) is not rounded to bfloat16 but split
into three. float16 is widened, and its products take three passes in TF32. float32 is multiplied
as such, unless PyTorch may use TF32 for its own products.

Tested under Triton's interpreter, and compiled for GPUs, but not yet run on one: sizes of tiles and
numbers of warps are not tuned.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense
from longstate.ops.chunk_scan import triton_kernels as kernels

_TILE = 64  # channels, or columns of the state, at a time
_HEADS = 8  # of a group in one program, where B and C get their gradients


def _rows(v: Tensor) -> tuple[Tensor, int]:
    """`v` (b, t, heads, size) and the step from sample to sample; a copy only if heads lie apart,
    so that part of a projection is read in place."""
    _, t, heads, size = v.shape
    step = v.stride(1)
    if v.stride() == (t * step, step, size, 1) and not v.is_neg():
        return v, step
    return dense(v), heads * size


def _tf32() -> bool:
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # since PyTorch 2.9; the older name may raise there
        return matmul.fp32_precision == "tf32"
    return matmul.allow_tf32


def _products(state: Tensor, *inputs: Tensor) -> dict[str, object]:
    """Type of the operands of products, and their precision."""
    types = {v.dtype for v in inputs}
    if state.dtype == torch.float64:
        return {"TYPE": tl.float64, "PRECISION": "ieee"}
    if types == {torch.bfloat16}:
        return {"TYPE": tl.bfloat16, "PRECISION": "ieee"}
    if torch.version.hip or (torch.float32 in types and not _tf32()):
        return {"TYPE": tl.float32, "PRECISION": "ieee"}
    return {"TYPE": tl.float32, "PRECISION": "tf32" if torch.float32 in types else "tf32x3"}


class _Launch:
    """What the kernels have in common."""

    def __init__(self, x: Tensor, B: Tensor, C: Tensor, state: Tensor, k: int):
        (b, t, h, p), (g, n) = x.shape, B.shape[2:]
        P, N = (min(_TILE, max(16, triton.next_power_of_2(size))) for size in (p, n))
        self.sizes = (t, h, g, p, n)
        self.tiles = triton.cdiv(p, P), triton.cdiv(n, N)
        self.states = (b, triton.cdiv(t, k), h, p, n)
        self.options = {"CHUNK": k, "P": P, "N": N, **_products(state, x, B, C)}
        self.options |= {"num_warps": 4, "num_stages": 2}

    def carry(self, v, w, log_a, weight, first, dtype, back):
        """States between chunks (b, c, h, p, n) in `dtype`, and the last."""
        (v, step_v), (w, step_w) = v, w
        kept, last = first.new_empty(self.states, dtype=dtype), torch.empty_like(first)
        b, _, h, *_ = self.states
        kernels.carry[(b * h, *self.tiles)](
            v, w, log_a, weight, first, kept, last, step_v, step_w, *self.sizes,
            BACK=back, **self.options,
        )  # fmt: skip
        return kept, last


def forward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, k: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (b, t, h, p) and the last state."""
    run = _Launch(x, B, C, h0, k)
    log_a, weight, own, D, h0 = (dense(v.to(h0.dtype)) for v in (log_a, weight, own, D, h0))
    narrow = run.options["TYPE"] == tl.bfloat16
    (x, step_x), (B, step_B), (C, step_C) = _rows(x), _rows(B), _rows(C)
    kept, last = run.carry(
        (x, step_x), (B, step_B), log_a, weight, h0, torch.bfloat16 if narrow else h0.dtype, False
    )
    y = x.new_empty(x.shape)
    b, chunks, h, *_ = run.states
    kernels.outputs[(b * chunks * h, run.tiles[0])](
        x, log_a, weight, own, B, C, D, kept, y, step_x, step_B, step_C, *run.sizes, **run.options
    )
    return y, last


def backward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, grad_y: Tensor, grad_last: Tensor, k: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, log_a, weight, own, B, C, D and h0."""
    run, wide, small = _Launch(x, B, C, h0, k), h0.dtype, (log_a, weight, own, D)
    (x, step_x), (B, step_B), (C, step_C) = _rows(x), _rows(B), _rows(C)
    dy, step_dy = _rows(grad_y)
    log_a, weight, own, D, h0 = (dense(v.to(wide)) for v in (log_a, weight, own, D, h0))
    states, _ = run.carry((x, step_x), (B, step_B), log_a, weight, h0, wide, False)
    grad_states, grad_h0 = run.carry(
        (dy, step_dy), (C, step_C), log_a, weight, dense(grad_last.to(wide)), wide, True
    )
    b, chunks, h, *_ = run.states
    g, n = B.shape[2:]
    dx = x.new_empty(x.shape)
    d_small = [torch.empty_like(v) for v in (log_a, weight, own)]
    dD = D.new_empty(b, chunks, h)
    between = (states, grad_states)
    kernels.gradients[(b * chunks * h,)](
        x, dy, log_a, weight, own, B, C, D, *between, dx, *d_small, dD,
        step_x, step_dy, step_B, step_C, *run.sizes, **run.options,
    )  # fmt: skip
    parts = triton.cdiv(h // g, _HEADS)
    dB, dC = (
        v.new_empty(parts, *v.shape, dtype=v.dtype if parts == 1 else wide) for v in (B, C)
    )
    kernels.shared_gradients[(b * chunks * g, run.tiles[1], parts)](
        x, dy, log_a, weight, own, B, C, *between, dB, dC,
        step_x, step_dy, step_B, step_C, *run.sizes, HEADS=_HEADS, **run.options,
    )  # fmt: skip
    dB, dC = (
        d[0] if parts == 1 else d.sum(0).to(v.dtype) for d, v in ((dB, B), (dC, C))
    )
    d_small = [d.to(v.dtype) for d, v in zip((*d_small, dD.sum((0, 1))), small, strict=True)]
    d_log_a, d_weight, d_own, dD = d_small
    return dx, d_log_a, d_weight, d_own, dB, dC, dD, grad_h0
