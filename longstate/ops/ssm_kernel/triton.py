"""Triton. Complex numbers are pairs of reals; powers and differences are made in double precision.

`vandermonde`: one program per column, rows s and lags j of k[s m + j] = Re sum_n W[n, s] a_n^j with
W[n, s] = w_n a_n^{s m}. `moments` runs the same tables the other way. The tables are short (m and
length / m powers for each state) and made by PyTorch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense

_LAGS, _ROWS, _STATES, _POINTS = 128, 8, 16, 128


@triton.jit
def _vandermonde(
    w, inner, k, columns, n, rows, lags, length, ROWS: tl.constexpr, LAGS: tl.constexpr
):
    column = tl.program_id(0).to(tl.int64)  # of r * c
    s = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(2) * LAGS + tl.arange(0, LAGS)
    w_at = w + 2 * (column * n * rows + s)
    inner_at = inner + 2 * ((column // columns) * n * lags + j)
    total = tl.zeros((ROWS, LAGS), dtype=k.dtype.element_ty)
    for i in range(n):
        w_re = tl.load(w_at + 2 * i * rows, mask=s < rows, other=0.0)
        w_im = tl.load(w_at + 2 * i * rows + 1, mask=s < rows, other=0.0)
        re = tl.load(inner_at + 2 * i * lags, mask=j < lags, other=0.0)
        im = tl.load(inner_at + 2 * i * lags + 1, mask=j < lags, other=0.0)
        total += w_re[:, None] * re[None, :] - w_im[:, None] * im[None, :]
    lag = s[:, None] * lags + j[None, :]
    tl.store(k + column * length + lag, total, mask=(lag < length) & (j[None, :] < lags))


@triton.jit
def _moments(
    u, inner, outer, out, columns, n, rows, lags, length, STATES: tl.constexpr, LAGS: tl.constexpr
):
    column = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * STATES + tl.arange(0, STATES)
    r = column // columns
    inner_at = inner + 2 * (r * n + i[:, None]) * lags
    outer_at = outer + 2 * (r * n + i) * rows
    sum_re = tl.zeros((STATES,), dtype=outer.dtype.element_ty)
    sum_im = tl.zeros((STATES,), dtype=outer.dtype.element_ty)
    for s in range(rows):
        for first in range(0, lags, LAGS):
            j = first + tl.arange(0, LAGS)
            lag = s * lags + j
            x = tl.load(u + column * length + lag, mask=(j < lags) & (lag < length), other=0.0)
            inside = (i[:, None] < n) & (j[None, :] < lags)
            re = tl.load(inner_at + 2 * j[None, :], mask=inside, other=0.0)
            im = tl.load(inner_at + 2 * j[None, :] + 1, mask=inside, other=0.0)
            x_re = tl.sum(x[None, :] * re, axis=1)
            x_im = tl.sum(x[None, :] * im, axis=1)
            p_re = tl.load(outer_at + 2 * s, mask=i < n, other=0.0)
            p_im = tl.load(outer_at + 2 * s + 1, mask=i < n, other=0.0)
            sum_re += p_re * x_re - p_im * x_im
            sum_im += p_re * x_im + p_im * x_re
    at = out + 2 * (column * n + i)
    tl.store(at, sum_re, mask=i < n)
    tl.store(at + 1, sum_im, mask=i < n)


@triton.jit
def _inverse(z, poles, pole, f, inside):
    """1 / (z_f - pole), in double precision."""
    x = tl.load(z + 2 * f, mask=inside, other=0.0) - tl.load(poles + 2 * pole)
    y = tl.load(z + 2 * f + 1, mask=inside, other=0.0) - tl.load(poles + 2 * pole + 1)
    size = x * x + y * y
    return x / size, -y / size


@triton.jit
def _cauchy(v, z, poles, out, columns, n, points, COLUMNS: tl.constexpr, POINTS: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * POINTS + tl.arange(0, POINTS)
    c = tl.arange(0, COLUMNS)
    real = out.dtype.element_ty
    sum_re = tl.zeros((COLUMNS, POINTS), dtype=real)
    sum_im = tl.zeros((COLUMNS, POINTS), dtype=real)
    for i in range(n):
        re, im = _inverse(z, poles, r * n + i, f, f < points)
        re, im = re.to(real)[None, :], im.to(real)[None, :]
        at = v + 2 * ((r * columns + c) * n + i)
        v_re = tl.load(at, mask=c < columns, other=0.0)[:, None]
        v_im = tl.load(at + 1, mask=c < columns, other=0.0)[:, None]
        sum_re += v_re * re - v_im * im
        sum_im += v_re * im + v_im * re
    at = out + 2 * ((r * columns + c[:, None]) * points + f[None, :])
    inside = (c[:, None] < columns) & (f[None, :] < points)
    tl.store(at, sum_re, mask=inside)
    tl.store(at + 1, sum_im, mask=inside)


@triton.jit
def _cauchy_backward(
    v, z, poles, grad, grad_v, grad_poles, columns, n, points,
    COLUMNS: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1)
    c = tl.arange(0, COLUMNS)
    wide = poles.dtype.element_ty
    real = grad.dtype.element_ty
    at = 2 * ((r * columns + c) * n + i)
    v_re = tl.load(v + at, mask=c < columns, other=0.0)[:, None]
    v_im = tl.load(v + at + 1, mask=c < columns, other=0.0)[:, None]
    to_v_re = tl.zeros((COLUMNS,), dtype=wide)
    to_v_im = tl.zeros((COLUMNS,), dtype=wide)
    to_pole_re = tl.zeros((1,), dtype=wide)
    to_pole_im = tl.zeros((1,), dtype=wide)
    for first in range(0, points, POINTS):
        f = first + tl.arange(0, POINTS)
        re, im = _inverse(z, poles, r * n + i, f, f < points)
        re, im = re.to(real), im.to(real)
        inside = (c[:, None] < columns) & (f[None, :] < points)
        grad_at = grad + 2 * ((r * columns + c[:, None]) * points + f[None, :])
        g_re = tl.load(grad_at, mask=inside, other=0.0)
        g_im = tl.load(grad_at + 1, mask=inside, other=0.0)
        to_v_re += tl.sum(tl.where(inside, g_re * re[None, :] + g_im * im[None, :], 0.0), axis=1)
        to_v_im += tl.sum(tl.where(inside, g_im * re[None, :] - g_re * im[None, :], 0.0), axis=1)
        h_re = tl.sum(v_re * g_re + v_im * g_im, axis=0)  # conj(v) g
        h_im = tl.sum(v_re * g_im - v_im * g_re, axis=0)
        square_re, square_im = re * re - im * im, -2 * re * im  # of the conjugate inverse
        p_re, p_im = h_re * square_re - h_im * square_im, h_re * square_im + h_im * square_re
        to_pole_re += tl.sum(tl.where(f < points, p_re, 0.0), axis=0)
        to_pole_im += tl.sum(tl.where(f < points, p_im, 0.0), axis=0)
    tl.store(grad_v + at, to_v_re, mask=c < columns)
    tl.store(grad_v + at + 1, to_v_im, mask=c < columns)
    pole_at = grad_poles + 2 * (r * n + i) + tl.arange(0, 1)
    tl.store(pole_at, to_pole_re)
    tl.store(pole_at + 1, to_pole_im)


def _powers(a: Tensor, count: int) -> Tensor:
    """a^0 .. a^{count-1} (..., count), by doubling."""
    table, power = torch.ones_like(a).unsqueeze(-1), a.unsqueeze(-1)
    while table.shape[-1] < count:
        table = torch.cat([table, table * power], dim=-1)
        power = power * power
    return table[..., :count]


def _tables(a: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """a^j for j < m (r, n, m), and a^{s m} for s < length / m (r, n, s); m is near the root."""
    lags = 1 << (length.bit_length() // 2)
    inner = _powers(a, 2 * lags)
    return inner[..., :lags], _powers(inner[..., lags], triton.cdiv(length, lags))


def _pairs(x: Tensor) -> Tensor:
    return torch.view_as_real(dense(x))


def vandermonde(w: Tensor, a: Tensor, length: int) -> Tensor:
    r, c, n = w.shape
    k = torch.empty(r, c, length, dtype=w.real.dtype, device=w.device)
    inner, outer = _tables(a, length)
    lags, rows = inner.shape[-1], outer.shape[-1]
    weights = (w.unsqueeze(-1) * outer.unsqueeze(1)).to(w.dtype)  # r c n s
    block = min(_LAGS, lags)
    _vandermonde[(r * c, triton.cdiv(rows, _ROWS), triton.cdiv(lags, block))](
        _pairs(weights), _pairs(inner.to(w.dtype)), k, c, n, rows, lags, length,
        ROWS=_ROWS, LAGS=block,
    )  # fmt: skip
    return k


def moments(u: Tensor, a: Tensor) -> Tensor:
    r, c, length = u.shape
    n = a.shape[1]
    dtype = torch.complex128 if u.dtype == torch.float64 else torch.complex64
    out = torch.empty(r, c, n, dtype=dtype, device=u.device)
    inner, outer = _tables(a, length)
    lags, rows = inner.shape[-1], outer.shape[-1]
    _moments[(r * c, triton.cdiv(n, _STATES))](
        dense(u), _pairs(inner.to(dtype)), _pairs(outer), torch.view_as_real(out),
        c, n, rows, lags, length, STATES=_STATES, LAGS=min(_LAGS, lags),
    )  # fmt: skip
    return out


def cauchy(v: Tensor, z: Tensor, poles: Tensor) -> Tensor:
    r, c, n = v.shape
    points = z.shape[0]
    out = torch.empty(r, c, points, dtype=v.dtype, device=v.device)
    _cauchy[(r, triton.cdiv(points, _POINTS))](
        _pairs(v), _pairs(z), _pairs(poles), torch.view_as_real(out), c, n, points,
        COLUMNS=triton.next_power_of_2(c), POINTS=_POINTS,
    )  # fmt: skip
    return out


def cauchy_backward(v: Tensor, z: Tensor, poles: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `v` and `poles`."""
    r, c, n = v.shape
    v, poles = dense(v), dense(poles)
    grad_v, grad_poles = torch.empty_like(v), torch.empty_like(poles)
    _cauchy_backward[(r, n)](
        _pairs(v), _pairs(z), _pairs(poles), _pairs(grad), torch.view_as_real(grad_v),
        torch.view_as_real(grad_poles), c, n, z.shape[0],
        COLUMNS=triton.next_power_of_2(c), POINTS=_POINTS,
    )  # fmt: skip
    return grad_v, grad_poles
