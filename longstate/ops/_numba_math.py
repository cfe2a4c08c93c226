"""Exponential, sine and cosine of a product, for Numba kernels. Imported by `cpu.py` files only.

Calls to libm do not vectorise, so the float32 forms are range reduction and a polynomial. The
product of two float32 numbers is exact in float64, and the reduction is done there: the phase of a
fast oscillation is not lost to the rounding of the product. Polynomials are minimax fits of our
own, relative error below 2e-8 on the reduced range. float64 uses libm.

Numba's cache on disk does not see changes in this file: after one, delete `ops/*/__pycache__`.

NaN comes through everywhere. These functions must not be compiled with full fast-math: they rest
on the order of their operations.
"""

import math
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

EXACT: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "boundscheck": False,
    "error_model": "numpy",
    "fastmath": {"contract"},
}
"""Options of kernels in which the order of operations matters."""

_f = np.float32
_LOG2_E = math.log2(math.e)
_LN_2 = math.log(2.0)
_TWO_OVER_PI = 2.0 / math.pi
_HALF_PI = math.pi / 2.0
_ONE, _HALF = _f(1.0), _f(0.5)
_E0, _E1, _E2 = _f(0.5), _f(0.16666542), _f(0.041666277)
_E3, _E4 = _f(0.00836677), _f(0.001394677)
_S0, _S1, _S2 = _f(-0.16666655), _f(0.008332172), _f(-0.00019516479)
_C0, _C1, _C2 = _f(0.041666653), _f(-0.0013887726), _f(2.447637e-05)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)  # of a float32's bits
_I1, _I2, _I3 = np.int32(1), np.int32(2), np.int32(3)


@njit(**EXACT)
def _exp_pair_32(a, dt):
    x = np.float64(a) * np.float64(dt)
    x = -110.0 if x < -110.0 else x  # exp underflows to 0, overflows to infinity
    x = 90.0 if x > 90.0 else x
    k = np.floor(x * _LOG2_E + 0.5)
    r = np.float32(x - k * _LN_2)
    q = (((_E4 * r + _E3) * r + _E2) * r + _E1) * r + _E0
    q = q * (r * r) + r  # exp(r) - 1
    i = np.int32(k)
    half = i >> _I1  # 2^k in two factors, each in range
    s = np.int32((half + _BIAS) << _MANTISSA).view(np.float32)
    s_rest = np.int32((i - half + _BIAS) << _MANTISSA).view(np.float32)
    return (_ONE + q) * s * s_rest, q * s * s_rest + (s * s_rest - _ONE)


@njit(**EXACT)
def _exp_pair_64(a, dt):
    return math.exp(a * dt), math.expm1(a * dt)


@njit(**EXACT)
def _turn_32(a, dt):
    z = np.float64(a) * np.float64(dt)
    k = np.floor(z * _TWO_OVER_PI + 0.5)
    r = np.float32(z - k * _HALF_PI)
    r = -_ONE if r < -_ONE else r  # beyond 1e9 a phase means nothing, but stays bounded
    r = _ONE if r > _ONE else r
    i = np.int32(k)
    r2 = r * r
    s = ((_S2 * r2 + _S1) * r2 + _S0) * (r2 * r) + r
    lost = ((_C2 * r2 + _C1) * r2 + _C0) * (r2 * r2) - _HALF * r2  # cos(r) - 1
    c = _ONE + lost
    swap = (i & _I1) != 0
    sine = c if swap else s
    cosine = s if swap else c
    sine = -sine if (i & _I2) != 0 else sine
    cosine = -cosine if ((i + _I1) & _I2) != 0 else cosine
    return sine, cosine, lost if (i & _I3) == 0 else cosine - _ONE


@njit(**EXACT)
def _turn_64(a, dt):
    s, c = math.sin(a * dt), math.cos(a * dt)
    return s, c, -s * s / (1.0 + c) if c > 0.0 else c - 1.0


@njit(**EXACT)
def _slope_series_32(x, y):
    # Horner in z = x + iy; the term of z^k is (k + 1) / (k + 2)!
    p, q = _f(8 / 362880), _f(0)
    p, q = p * x - q * y + _f(7 / 40320), p * y + q * x
    p, q = p * x - q * y + _f(6 / 5040), p * y + q * x
    p, q = p * x - q * y + _f(5 / 720), p * y + q * x
    p, q = p * x - q * y + _f(4 / 120), p * y + q * x
    p, q = p * x - q * y + _f(3 / 24), p * y + q * x
    p, q = p * x - q * y + _f(2 / 6), p * y + q * x
    return p * x - q * y + _f(1 / 2), p * y + q * x


_SLOPES = tuple((k + 1) / math.factorial(k + 2) for k in range(15))


@njit(**EXACT)
def _slope_series_64(x, y):
    p, q = 0.0, 0.0
    for k in range(14, -1, -1):
        p, q = p * x - q * y + _SLOPES[k], p * y + q * x
    return p, q


def exp_pair(a, dt):
    """exp(a dt), exp(a dt) - 1."""


def turn(a, dt):
    """sin(a dt), cos(a dt), cos(a dt) - 1."""


def slope_series(x, y):
    """phi1'(z), z = x + iy, |z| < 0.5, where phi1(z) = (exp(z) - 1) / z."""


@overload(exp_pair)
def _(a, dt):
    if a.bitwidth == 32:
        return lambda a, dt: _exp_pair_32(a, dt)
    return lambda a, dt: _exp_pair_64(a, dt)


@overload(turn)
def _(a, dt):
    if a.bitwidth == 32:
        return lambda a, dt: _turn_32(a, dt)
    return lambda a, dt: _turn_64(a, dt)


@overload(slope_series)
def _(x, y):
    if x.bitwidth == 32:
        return lambda x, y: _slope_series_32(x, y)
    return lambda x, y: _slope_series_64(x, y)
