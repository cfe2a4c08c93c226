"""Sums over powers of a state matrix: impulse responses and state responses.

    diagonal    k_l = sum_n w_n a_n^l
    full        K_l = C A^l B

With l = m s + j, m a power of two near sqrt(length), a^l = (a^m)^s a^j: two short tables of powers
and one matrix product replace an array of (n, length). Everything is computed in double precision
and rounded once. `a` and `A` may be any values, also 0: no logarithm is taken.

Axes: n state, l lag, s rows, j columns; any leading batch axes.
"""

import torch
from torch import Tensor

from longstate.ops._double import widen


def diagonal_powers(w: Tensor, a: Tensor, length: int) -> Tensor:
    """sum_n w_n a_n^l for l = 0 .. length - 1.

    Args:
        w (..., n): weights, real or complex.
        a (..., n): bases, real or complex. Leading axes broadcast against those of `w`.
        length: number of lags, at least 1.

    Returns:
        (..., length), in the promoted type of `w` and `a`.
    """
    dtype = torch.promote_types(w.dtype, a.dtype)
    w, a = widen(w.to(dtype)), widen(a.to(dtype))
    inner = _inner(length)
    columns, stride = _geometric(a, inner)
    rows, _ = _geometric(stride, -(-length // inner))
    k = (w[..., None] * rows).mT @ columns  # (..., s, j)
    return k.flatten(-2)[..., :length].to(dtype)


def dense_powers(A: Tensor, B: Tensor, C: Tensor, length: int) -> Tensor:
    """C A^l B for l = 0 .. length - 1.

    Args:
        A (..., n, n): state matrix, real or complex.
        B (..., n, i): input matrix.
        C (..., o, n): output matrix.
        length: number of lags, at least 1.

    Returns:
        (..., length, o, i), in the promoted type of the three.
    """
    dtype = torch.promote_types(torch.promote_types(A.dtype, B.dtype), C.dtype)
    A, B, C = (widen(x.to(dtype)) for x in (A, B, C))
    i, o = B.shape[-1], C.shape[-2]
    inner = _inner(length)
    columns, stride = _columns(A, B, inner)
    rows = -(-length // inner)
    left, _ = _columns(stride.mT, C.mT, rows)
    k = left.mT @ columns  # (..., rows * o, inner * i)
    k = k.unflatten(-1, (inner, i)).unflatten(-3, (rows, o)).transpose(-3, -2)
    return k.flatten(-4, -3)[..., :length, :, :].to(dtype)


def _inner(length: int) -> int:
    """A power of two near the square root."""
    return 1 << (length.bit_length() // 2)


def _geometric(a: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """1, a, ..., a^(count - 1) (..., n, count), and a^count when count is a power of two."""
    table, power = torch.ones_like(a)[..., None], a
    while table.shape[-1] < count:
        table = torch.cat([table, power[..., None] * table], dim=-1)
        power = power * power
    return table[..., :count], power


def _columns(A: Tensor, B: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[B, A B, ..., A^(count - 1) B] (..., n, count * i), and A^count when count is a power of
    two."""
    batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    i = B.shape[-1]
    table, power, have = B.expand(*batch, *B.shape[-2:]), A, 1
    while have < count:
        table = torch.cat([table, power @ table], dim=-1)
        power, have = power @ power, 2 * have
    return table[..., : count * i], power
