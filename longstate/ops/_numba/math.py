"""exp, sine, cosine, softplus and sigmoid that LLVM turns into full-width vectors.

Calls to the C library do not vectorise, so float32 is computed here: a reduction of the range and a
minimax polynomial. float64 uses the C library. NaN gives NaN everywhere.

Two exponentials differ in their reduction, and so in their last bit. `exp` and `exp2_product` stay
in float32: within 2 units in the last place; results below the smallest normal number become 0.
`exp_pair` and `turn` reduce the product a dt in float64, where it is exact: the phase of a fast
oscillation is not lost to rounding. Their relative error is below 2e-8 on the reduced range.

These functions depend on the order of their operations: they are compiled without reassociation.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from longstate.ops._numba.compiled import SAFE, exact

_EXACT: Any = {"fastmath": SAFE, "error_model": "numpy"}

_f = np.float32
_ROUND = _f(1.5 * 2**23)  # adding it leaves the nearest integer in the low bits
_LOWEST, _HIGHEST = _ROUND + _f(-126), _ROUND + _f(127)
_LN2_HI, _LN2_LO, _LOG2_E = _f(0.693359375), _f(-2.12194440e-4), _f(1.4426950408889634)
_ZERO, _HALF, _ONE, _TWO, _INF = _f(0), _f(0.5), _f(1), _f(2), _f(np.inf)
_SHIFT = np.int32(23)
LN2 = math.log(2.0)

# Minimax: 2^f = 1 + f p(f) on |f| <= 1/2; exp likewise on |r| <= ln(2) / 2; and
# log(1 + e) = 2 s (1 + s^2 q(s^2)) with s = e / (2 + e) on 0 <= e <= 1.
_P1, _P2, _P3, _P4, _P5 = (
    _f(c) for c in (0.69314698, 0.24022242, 0.055507337, 0.0096715127, 0.0013264727)
)
_E1, _E2, _E3, _E4, _E5, _E6 = (
    _f(c / LN2**i)
    for i, c in enumerate(
        (0.69314720286, 0.24022647914, 0.05550332471, 0.00961843736, 0.00133988745, 0.00015353362),
        start=1,
    )
)
_Q0, _Q1, _Q2, _Q3 = (_f(c) for c in (0.33333207, 0.2001085, 0.13999571, 0.14012229))


def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once where the processor can."""

    def generate(context, builder, signature, args):
        kind = args[0].type
        function = builder.module.declare_intrinsic(
            "llvm.fmuladd", [kind], ir.FunctionType(kind, [kind] * 3)
        )
        return builder.call(function, args)

    return a(a, a, a), generate


fma: Any = intrinsic(_fma)


@exact
def _scale(p, t):
    """p * 2^k, the integer k being in the low bits of t."""
    bits = np.float32(p).view(np.int32) + (np.float32(t).view(np.int32) << _SHIFT)
    r = np.int32(bits).view(np.float32)
    r = _INF if t > _HIGHEST else r
    return _ZERO if t < _LOWEST else r


def exp2_product(x, y):
    """2^(x y). Exactly 1 where x y = 0."""


@overload(exp2_product, jit_options=_EXACT)
def _exp2_product(x, y):
    if x != types.float32:
        return lambda x, y: math.exp(x * y * LN2)

    def polynomial(x, y):
        t = fma(x, y, _ROUND)
        k = t - _ROUND
        f = fma(x, y, -k)
        p = fma(fma(fma(fma(fma(_P5, f, _P4), f, _P3), f, _P2), f, _P1), f, _ONE)
        return _scale(p, t)

    return polynomial


def exp(x):
    """e^x."""


@overload(exp, jit_options=_EXACT)
def _exp(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def polynomial(x):
        t = fma(x, _LOG2_E, _ROUND)
        k = t - _ROUND
        r = fma(k, -_LN2_LO, fma(k, -_LN2_HI, x))
        p = fma(fma(fma(fma(fma(_E6, r, _E5), r, _E4), r, _E3), r, _E2), r, _E1)
        return _scale(fma(p, r, _ONE), t)

    return polynomial


def _log1p(e):
    """log(1 + e) for 0 <= e <= 1."""


@overload(_log1p, jit_options=_EXACT)
def _log1p_of(e):
    if e != types.float32:
        return lambda e: math.log1p(e)

    def polynomial(e):
        s = e / (_TWO + e)
        q = s * s
        p = fma(fma(fma(_Q3, q, _Q2), q, _Q1), q, _Q0)
        return _TWO * fma(s * q, p, s)

    return polynomial


def _constants(x, *values):
    """The values in the type of x: a literal would widen float32 to float64."""
    kind = np.float32 if x == types.float32 else np.float64
    return tuple(kind(value) for value in values)


def softplus(x):
    """log(1 + e^x). Its derivative is the sigmoid."""


@overload(softplus, jit_options=_EXACT)
def _softplus(x):
    (zero,) = _constants(x, 0)

    def smooth(x):
        return (zero if x < zero else x) + _log1p(exp(-abs(x)))

    return smooth


def sigmoid(x):
    """1 / (1 + e^-x)."""


@overload(sigmoid, jit_options=_EXACT)
def _sigmoid(x):
    zero, one = _constants(x, 0, 1)

    def logistic(x):
        e = exp(-abs(x))
        return (e if x < zero else one) / (one + e)

    return logistic


_LOG2_E_WIDE = math.log2(math.e)
_TWO_OVER_PI = 2.0 / math.pi
_HALF_PI = math.pi / 2.0
_R0, _R1, _R2 = _f(0.5), _f(0.16666542), _f(0.041666277)
_R3, _R4 = _f(0.00836677), _f(0.001394677)
_S0, _S1, _S2 = _f(-0.16666655), _f(0.008332172), _f(-0.00019516479)
_C0, _C1, _C2 = _f(0.041666653), _f(-0.0013887726), _f(2.447637e-05)
_BIAS = np.int32(127)  # of a float32's exponent
_I1, _I2, _I3 = np.int32(1), np.int32(2), np.int32(3)


@exact
def _exp_pair_32(a, dt):
    x = np.float64(a) * np.float64(dt)
    x = -110.0 if x < -110.0 else x  # exp underflows to 0, overflows to infinity
    x = 90.0 if x > 90.0 else x
    k = np.floor(x * _LOG2_E_WIDE + 0.5)
    r = np.float32(x - k * LN2)
    q = (((_R4 * r + _R3) * r + _R2) * r + _R1) * r + _R0
    q = q * (r * r) + r  # exp(r) - 1
    i = np.int32(k)
    half = i >> _I1  # 2^k in two factors, each in range
    s = np.int32((half + _BIAS) << _SHIFT).view(np.float32)
    s_rest = np.int32((i - half + _BIAS) << _SHIFT).view(np.float32)
    return (_ONE + q) * s * s_rest, q * s * s_rest + (s * s_rest - _ONE)


@exact
def _exp_pair_64(a, dt):
    return math.exp(a * dt), math.expm1(a * dt)


@exact
def _turn_32(a, dt):
    z = np.float64(a) * np.float64(dt)
    k = np.floor(z * _TWO_OVER_PI + 0.5)
    r = np.float32(z - k * _HALF_PI)
    r = -_ONE if r < -_ONE else r  # beyond 1e9 the phase has no accuracy; keep it bounded
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


@exact
def _turn_64(a, dt):
    s, c = math.sin(a * dt), math.cos(a * dt)
    return s, c, -s * s / (1.0 + c) if c > 0.0 else c - 1.0


@exact
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


@exact
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
