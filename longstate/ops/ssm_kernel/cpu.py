"""Numba. Lanes run along time (or along the points), which is contiguous.

Bound by arithmetic: two multiply-adds for each state and lag. The tables of a block are (n, m) with
m = 256 lags, and are made once for all columns that share a row of `a`.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from longstate.ops._layout import dense
from longstate.ops._threads import KERNEL, parallel_for

_LANES = 256  # lags per block
_COLUMNS = 8  # columns per unit of work that share tables
_SINGLE_TINY, _DOUBLE_TINY = 1e-37, 1e-300  # below: flushed to 0, as subnormal numbers are slow


@njit(**KERNEL)
def _powers(a, re, im, x, y, tiny):
    """a^0 .. a^{m-1} into (re, im), by doubling in (x, y). Returns a^m; m is a power of 2."""
    m = re.shape[0]
    x[0], y[0] = 1.0, 0.0
    p, q, size = a.real, a.imag, 1
    while size < m:
        for j in range(size):
            x[size + j] = x[j] * p - y[j] * q
            y[size + j] = x[j] * q + y[j] * p
        p, q = p * p - q * q, 2 * p * q
        size *= 2
    for j in range(m):
        re[j] = 0.0 if abs(x[j]) < tiny else x[j]
        im[j] = 0.0 if abs(y[j]) < tiny else y[j]
    return complex(p, q)


@njit(**KERNEL)
def _tables(a, re, im, step, tiny):
    x, y = np.empty(re.shape[1]), np.empty(re.shape[1])
    for n in range(a.shape[0]):
        step[n] = _powers(a[n], re[n], im[n], x, y, tiny)


@njit(**KERNEL)
def _add_four(k, re, im, n, wr, wi):
    a, b, c, d = wr[n], wr[n + 1], wr[n + 2], wr[n + 3]
    e, f, g, h = wi[n], wi[n + 1], wi[n + 2], wi[n + 3]
    re0, re1, re2, re3 = re[n], re[n + 1], re[n + 2], re[n + 3]
    im0, im1, im2, im3 = im[n], im[n + 1], im[n + 2], im[n + 3]
    for j in range(k.shape[0]):
        k[j] += (
            (a * re0[j] - e * im0[j])
            + (b * re1[j] - f * im1[j])
            + (c * re2[j] - g * im2[j])
            + (d * re3[j] - h * im3[j])
        )


@njit(**KERNEL)
def _add_one(k, re, im, wr, wi):
    for j in range(k.shape[0]):
        k[j] += wr * re[j] - wi * im[j]


@njit(**KERNEL)
def _round_and_advance(v, step, wr, wi, tiny):
    """`v` in working precision into (wr, wi); then v becomes v * step."""
    for n in range(v.shape[0]):
        wr[n] = 0.0 if abs(v[n].real) < tiny else v[n].real
        wi[n] = 0.0 if abs(v[n].imag) < tiny else v[n].imag
        v[n] = v[n] * step[n]


@njit(**KERNEL)
def _vandermonde(start, stop, w, a, k, m, columns, tiny):
    n_columns, n = w.shape[1], w.shape[2]
    length = k.shape[2]
    per_row = (n_columns + columns - 1) // columns
    re, im = np.empty((n, m), k.dtype), np.empty((n, m), k.dtype)
    wr, wi = np.empty(n, k.dtype), np.empty(n, k.dtype)
    step, v = np.empty(n, np.complex128), np.empty(n, np.complex128)
    for block in range(start, stop):
        r, first = block // per_row, (block % per_row) * columns
        _tables(a[r], re, im, step, tiny)
        for c in range(first, min(first + columns, n_columns)):
            for i in range(n):
                v[i] = w[r, c, i]
            for lo in range(0, length, m):
                lags = k[r, c, lo : min(lo + m, length)]
                lags[:] = 0.0
                _round_and_advance(v, step, wr, wi, tiny)
                i = 0
                while i + 4 <= n:
                    _add_four(lags, re, im, i, wr, wi)
                    i += 4
                while i < n:
                    _add_one(lags, re[i], im[i], wr[i], wi[i])
                    i += 1


@njit(**KERNEL)
def _dot(u, re, im):
    x, y = u[0] * re[0], u[0] * im[0]
    for j in range(1, u.shape[0]):
        x += u[j] * re[j]
        y += u[j] * im[j]
    return complex(x, y)


@njit(**KERNEL)
def _moments(start, stop, u, a, out, m, columns, tiny):
    n_columns, length = u.shape[1], u.shape[2]
    n = a.shape[1]
    per_row = (n_columns + columns - 1) // columns
    re, im = np.empty((n, m), u.dtype), np.empty((n, m), u.dtype)
    step, power = np.empty(n, np.complex128), np.empty(n, np.complex128)
    total = np.empty(n, np.complex128)
    for block in range(start, stop):
        r, first = block // per_row, (block % per_row) * columns
        _tables(a[r], re, im, step, tiny)
        for c in range(first, min(first + columns, n_columns)):
            power[:] = 1.0
            total[:] = 0.0
            for lo in range(0, length, m):
                inputs = u[r, c, lo : min(lo + m, length)]
                for i in range(n):
                    if abs(power[i].real) < tiny and abs(power[i].imag) < tiny:
                        continue  # also keeps 0 * inf out of the sum
                    total[i] += power[i] * _dot(inputs, re[i], im[i])
                    power[i] = power[i] * step[i]
            for i in range(n):
                out[r, c, i] = total[i]


@njit(**KERNEL)
def _inverses(zr, zi, pole, re, im):
    """1 / (z - pole), in double precision, rounded to that of (re, im)."""
    p, q = pole.real, pole.imag
    for j in range(zr.shape[0]):
        x, y = zr[j] - p, zi[j] - q
        size = 1.0 / (x * x + y * y)
        re[j] = x * size
        im[j] = -y * size


@njit(**KERNEL)
def _add_quotients(v, re, im, out_re, out_im):
    a, b = v.real, v.imag
    for j in range(re.shape[0]):
        out_re[j] += a * re[j] - b * im[j]
        out_im[j] += a * im[j] + b * re[j]


@njit(**KERNEL)
def _cauchy(start, stop, v, zr, zi, poles, out, lanes):
    n_columns, n = v.shape[1], v.shape[2]
    f = zr.shape[0]
    per_row = (f + lanes - 1) // lanes
    re, im = np.empty(lanes, out.dtype), np.empty(lanes, out.dtype)
    sums = np.empty((2, n_columns, lanes), out.dtype)
    for block in range(start, stop):
        r, lo = block // per_row, (block % per_row) * lanes
        count = min(lanes, f - lo)
        sums[:] = 0.0
        for i in range(n):
            _inverses(zr[lo : lo + count], zi[lo : lo + count], poles[r, i], re[:count], im[:count])
            for c in range(n_columns):
                _add_quotients(
                    v[r, c, i], re[:count], im[:count], sums[0, c, :count], sums[1, c, :count]
                )
        for c in range(n_columns):
            for j in range(count):
                out[r, c, lo + j, 0] = sums[0, c, j]
                out[r, c, lo + j, 1] = sums[1, c, j]


@njit(**KERNEL)
def _against(v, gr, gi, re, im, hr, hi):
    """sum_f g conj(1/d), and conj(v) g added to h."""
    a, b = v.real, v.imag
    x, y = gr[0] * 0, gi[0] * 0
    for j in range(re.shape[0]):
        x += gr[j] * re[j] + gi[j] * im[j]
        y += gi[j] * re[j] - gr[j] * im[j]
        hr[j] += a * gr[j] + b * gi[j]
        hi[j] += a * gi[j] - b * gr[j]
    return complex(x, y)


@njit(**KERNEL)
def _against_squares(hr, hi, re, im):
    """sum_f h conj(1/d)^2."""
    x, y = hr[0] * 0, hi[0] * 0
    for j in range(re.shape[0]):
        p, q = re[j] * re[j] - im[j] * im[j], -2 * re[j] * im[j]
        x += hr[j] * p - hi[j] * q
        y += hr[j] * q + hi[j] * p
    return complex(x, y)


@njit(**KERNEL)
def _cauchy_backward(start, stop, v, zr, zi, poles, grad, grad_v, grad_poles, lanes):
    n_columns, n = v.shape[1], v.shape[2]
    f = zr.shape[0]
    real = grad.dtype
    gr, gi = np.empty((n_columns, lanes), real), np.empty((n_columns, lanes), real)
    re, im, hr, hi = (
        np.empty(lanes, real), np.empty(lanes, real), np.empty(lanes, real), np.empty(lanes, real)
    )  # fmt: skip
    sums = np.empty((n_columns + 1, n), np.complex128)
    for r in range(start, stop):
        sums[:] = 0.0
        for lo in range(0, f, lanes):
            count = min(lanes, f - lo)
            for c in range(n_columns):
                for j in range(count):
                    gr[c, j], gi[c, j] = grad[r, c, lo + j, 0], grad[r, c, lo + j, 1]
            for i in range(n):
                _inverses(
                    zr[lo : lo + count], zi[lo : lo + count], poles[r, i], re[:count], im[:count]
                )
                hr[:count] = 0.0
                hi[:count] = 0.0
                for c in range(n_columns):
                    sums[c, i] += _against(v[r, c, i], gr[c], gi[c], re[:count], im[:count], hr, hi)
                sums[n_columns, i] += _against_squares(hr, hi, re[:count], im[:count])
        for i in range(n):
            for c in range(n_columns):
                grad_v[r, c, i] = sums[c, i]
            grad_poles[r, i] = sums[n_columns, i]


def _lanes(length: int) -> int:
    return min(_LANES, 1 << max(length - 1, 0).bit_length())


def _tiny(dtype: torch.dtype) -> float:
    return _DOUBLE_TINY if dtype == torch.float64 else _SINGLE_TINY


def _units(x: Tensor) -> int:
    return x.shape[0] * -(-x.shape[1] // _COLUMNS)


def vandermonde(w: Tensor, a: Tensor, length: int) -> Tensor:
    w, a = dense(w), dense(a)
    k = torch.empty(*w.shape[:2], length, dtype=w.real.dtype)
    parallel_for(
        _vandermonde, _units(w), k.numel() * w.shape[2],
        w.numpy(), a.numpy(), k.numpy(), _lanes(length), _COLUMNS, _tiny(k.dtype),
    )  # fmt: skip
    return k


def moments(u: Tensor, a: Tensor) -> Tensor:
    u, a = dense(u), dense(a)
    dtype = torch.complex128 if u.dtype == torch.float64 else torch.complex64
    out = torch.empty(*u.shape[:2], a.shape[1], dtype=dtype)
    parallel_for(
        _moments, _units(u), u.numel() * a.shape[1],
        u.numpy(), a.numpy(), out.numpy(), _lanes(u.shape[2]), _COLUMNS, _tiny(u.dtype),
    )  # fmt: skip
    return out


def _parts(z: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return dense(z.real).numpy(), dense(z.imag).numpy()


def cauchy(v: Tensor, z: Tensor, poles: Tensor) -> Tensor:
    v, poles = dense(v), dense(poles)
    out = torch.empty(*v.shape[:2], z.shape[0], dtype=v.dtype)
    lanes = _lanes(z.shape[0])
    parallel_for(
        _cauchy, v.shape[0] * -(-z.shape[0] // lanes), out.numel() * v.shape[2],
        v.numpy(), *_parts(z), poles.numpy(), torch.view_as_real(out).numpy(), lanes,
    )  # fmt: skip
    return out


def cauchy_backward(v: Tensor, z: Tensor, poles: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `v` and `poles`."""
    v, poles, grad = dense(v), dense(poles), dense(grad)
    grad_v, grad_poles = torch.empty_like(v), torch.empty_like(poles)
    parallel_for(
        _cauchy_backward, v.shape[0], grad.numel() * v.shape[2],
        v.numpy(), *_parts(z), poles.numpy(), torch.view_as_real(grad).numpy(),
        grad_v.numpy(), grad_poles.numpy(), _lanes(z.shape[0]),
    )  # fmt: skip
    return grad_v, grad_poles
