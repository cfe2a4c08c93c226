"""Kernels of a full state matrix, by doubling. Matrix products only, so they run on any device.

    K_l = C A^l B,  l = s m + j:     K_{s m + j} = (C A^{s m}) (A^j B)        m about sqrt(length)

so a table of m columns and a table of length / m rows are all that is kept: no (length, n, n), and
no (length, n). Powers come from repeated squaring, in double precision where the device has it.
"""

import torch
from torch import Tensor

from longstate.ops._choice import expect, shape_of
from longstate.ops._double import widen


def dense_kernel(A: Tensor, B: Tensor, C: Tensor, length: int) -> Tensor:
    """C A^l B for l = 0 .. length - 1.

    Also the effect of a state left behind: B = A h0 gives C A^{l+1} h0.

    Args:
        A (..., n, n): discrete state matrix, real or complex.
        B (..., n, i): input matrix.
        C (..., o, n): output matrix.
        length: number of lags, at least 1.

    Returns:
        (..., length, o, i), in the promoted dtype of the three.

    Raises:
        ValueError: shapes do not fit, or length is below 1.
    """
    _check(A, B)
    expect(C.dim() >= 2 and C.shape[-1] == A.shape[-1], f"C must be (..., o, n); got {shape_of(C)}")
    expect(length >= 1, f"length must be at least 1; got {length}")
    dtype = torch.promote_types(torch.promote_types(A.dtype, B.dtype), C.dtype)
    A, B, C = (widen(x.to(dtype)) for x in (A, B, C))
    i, o = B.shape[-1], C.shape[-2]
    inner = _inner(length)
    columns, stride = _columns(A, B, inner)
    rows = -(-length // inner)
    left, _ = _columns(stride.mT, C.mT, rows)  # (stride^T)^s C^T
    k = left.mT @ columns  # (..., rows * o, inner * i)
    k = k.unflatten(-1, (inner, i)).unflatten(-3, (rows, o)).transpose(-3, -2)
    return k.flatten(-4, -3)[..., :length, :, :].to(dtype)


def dense_final_state(A: Tensor, B: Tensor, u: Tensor) -> Tensor:
    """The state after an input, from a zero state: sum_l A^{t-1-l} B u_l.

    Args:
        A (..., n, n): discrete state matrix, real or complex.
        B (..., n, i): input matrix.
        u (..., t, i): input.

    Returns:
        (..., n), in the promoted dtype of the three.

    Raises:
        ValueError: shapes do not fit.
    """
    _check(A, B)
    t, i = u.shape[-2:]
    expect(t > 0, "u has no time steps; dense_final_state needs at least one")
    expect(i == B.shape[-1], f"u must be (..., t, {B.shape[-1]}); got {shape_of(u)}")
    dtype = torch.promote_types(torch.promote_types(A.dtype, B.dtype), u.dtype)
    A, B, u = (widen(x.to(dtype)) for x in (A, B, u))
    inner = _inner(t)
    columns, stride = _columns(A, B, inner)
    rows = -(-t // inner)
    # Zeros in front do not move a zero state, and make the length a multiple of `inner`.
    u = torch.nn.functional.pad(u, (0, 0, rows * inner - t, 0)).flip(-2)
    blocks = u.unflatten(-2, (rows, inner)).flatten(-2) @ columns.mT  # (..., rows, n)
    h = blocks[..., rows - 1, :]
    for s in range(rows - 2, -1, -1):
        h = (stride @ h.unsqueeze(-1)).squeeze(-1) + blocks[..., s, :]
    return h.to(dtype)


def _inner(length: int) -> int:
    """A power of two near the square root."""
    return 1 << (length.bit_length() // 2)


def _columns(A: Tensor, B: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[B, A B, ..., A^{count-1} B] (..., n, count * i), and A^count when count is a power of 2."""
    batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    i = B.shape[-1]
    table, power, have = B.expand(*batch, *B.shape[-2:]), A, 1
    while have < count:
        table = torch.cat([table, power @ table], dim=-1)
        power = power @ power
        have *= 2
    return table[..., : count * i], power


def _check(A: Tensor, B: Tensor) -> None:
    square = A.dim() >= 2 and A.shape[-1] == A.shape[-2]
    expect(square, f"A must be (..., n, n); got {shape_of(A)}")
    fits = B.dim() >= 2 and B.shape[-2] == A.shape[-1]
    expect(fits, f"B must be (..., {A.shape[-1]}, i); got {shape_of(B)}")
