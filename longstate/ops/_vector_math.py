"""exp, softplus and sigmoid that LLVM turns into full-width vectors.

Calls to the C library do not vectorise, so float32 is written out: 2^k times a polynomial, with the
exponent put together by an integer shift. Within 2 units in the last place; results below the
smallest normal number become 0. float64 is for tests and goes to the C library.

`load` and `store` read and write the numbers of a tensor's row in a kernel: float32 and float64 as
they are, bfloat16 as its bits in uint16, float16 as its bits in int16.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.extending import intrinsic, overload

from longstate.ops._threads import KERNEL


class _Restrict(CompilerBase):
    """Tell LLVM that array arguments do not overlap, as C's `restrict` does.

    Without it LLVM compares every pair of arrays before a loop, and a loop over ten arrays falls
    back to scalars when one comparison cannot be decided.
    """

    def define_pipelines(self):
        self.state.flags.noalias = True
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


ROWS: dict[str, Any] = {**KERNEL, "pipeline_class": _Restrict, "forceinline": True}
"""Options of inner functions: no array that they write may overlap another argument."""

# No reassociation here: rounding to an integer by adding and subtracting must stay.
_EXACT: Any = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}

_f = np.float32
_ROUND = _f(1.5 * 2**23)  # adding it leaves the nearest integer in the low bits
_LOWEST, _HIGHEST = _ROUND + _f(-126), _ROUND + _f(127)
_LN2_HI, _LN2_LO, _LOG2_E = _f(0.693359375), _f(-2.12194440e-4), _f(1.4426950408889634)
_ZERO, _HALF, _ONE, _TWO, _INF = _f(0), _f(0.5), _f(1), _f(2), _f(np.inf)
_HALF_BITS = np.uint32(0x3F000000)
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


def _fma(typing, a, b, c):
    """a * b + c, rounded once where the processor can."""

    def generate(context, builder, signature, args):
        kind = args[0].type
        function = builder.module.declare_intrinsic(
            "llvm.fmuladd", [kind], ir.FunctionType(kind, [kind] * 3)
        )
        return builder.call(function, args)

    return a(a, a, a), generate


fma: Any = intrinsic(_fma)


@njit(**_EXACT)
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


_BF16_BIAS, _BF16_SHIFT, _BF16_NAN = np.uint32(0x7FFF), np.uint32(16), np.uint32(0x7FC0)
_BIT = np.uint32(1)
_F16_SHIFT, _F16_SIGN, _F16_REST = np.uint32(13), np.uint32(0x8000), np.uint32(0x7FFF)
_F16_UP = _f(2.0**112)  # moves the exponent of float16, put into float32, to its place
_F16_TOP, _F32_INF = _f(65536), np.uint32(0x7F800000)
_F16_ROUND, _F16_REBIAS = np.uint32(0x0FFF), np.uint32(0x38000000)
_F16_INF, _F16_NAN, _F16_TINY = np.uint32(0x7C00), np.uint32(0x7E00), _f(2.0**-14)
_ABS = np.uint32(0x7FFFFFFF)


def load(row, j):
    """Number `j` of a row, in float32 at least."""


@overload(load, jit_options=_EXACT)
def _load(row, j):
    if row.dtype == types.uint16:
        return lambda row, j: np.uint32(np.uint32(row[j]) << _BF16_SHIFT).view(np.float32)
    if row.dtype != types.int16:
        return lambda row, j: row[j]

    def from_half(row, j):
        bits = np.uint32(np.uint16(row[j]))
        sign = np.uint32((bits & _F16_SIGN) << _BF16_SHIFT)
        value = np.uint32((bits & _F16_REST) << _F16_SHIFT).view(np.float32) * _F16_UP
        wide = np.float32(value).view(np.uint32)
        wide = np.uint32(wide | _F32_INF) if value >= _F16_TOP else wide
        return np.uint32(wide | sign).view(np.float32)

    return from_half


def store(row, j, value):
    """Write number `j` of a row, rounded to nearest even."""


@overload(store, jit_options=_EXACT)
def _store(row, j, value):
    if row.dtype == types.uint16:

        def to_bfloat16(row, j, value):
            bits = np.float32(value).view(np.uint32)
            odd = np.uint32((bits >> _BF16_SHIFT) & _BIT)
            rounded = np.uint32(np.uint32(bits + _BF16_BIAS + odd) >> _BF16_SHIFT)
            row[j] = np.uint16(rounded if value == value else _BF16_NAN)

        return to_bfloat16
    if row.dtype == types.int16:

        def to_half(row, j, value):
            bits = np.float32(value).view(np.uint32)
            size = np.uint32(bits & _ABS)
            odd = np.uint32((size >> _F16_SHIFT) & _BIT)
            normal = np.uint32(np.uint32(size - _F16_REBIAS + _F16_ROUND + odd) >> _F16_SHIFT)
            # Below 2^-14 the step is 2^-24: adding 1/2 leaves the multiple in the low bits.
            small = np.uint32(np.float32(abs(value) + _HALF).view(np.uint32) - _HALF_BITS)
            half = small if abs(value) < _F16_TINY else normal
            half = _F16_INF if abs(value) >= _F16_TOP else half
            half = half if value == value else _F16_NAN
            row[j] = np.int16(np.uint16(half | np.uint32((bits >> _BF16_SHIFT) & _F16_SIGN)))

        return to_half

    def plain(row, j, value):
        row[j] = value

    return plain


@njit(**ROWS)
def read_out(y, u, D, z, out):
    """out = (y + D u) * silu(z): the end of a selective step. Empty: none. Overwrites `y`."""
    for j in range(len(D)):
        y[j] += D[j] * load(u, j)
    for j in range(len(z)):
        gate = load(z, j)
        y[j] *= gate * sigmoid(gate)
    for j in range(len(y)):
        store(out, j, y[j])
