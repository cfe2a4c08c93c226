"""Reading and writing the numbers of a row, in any precision.

float32 and float64 stay as they are, bfloat16 comes as its bits in uint16, float16 in int16.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from longstate.ops._numba.compiled import SAFE, inlined, kernel
from longstate.ops._numba.math import sigmoid

_EXACT: Any = {"fastmath": SAFE, "error_model": "numpy"}
_f = np.float32
_HALF, _HALF_BITS = _f(0.5), np.uint32(0x3F000000)
_BF16_BIAS, _BF16_SHIFT, _BF16_NAN = np.uint32(0x7FFF), np.uint32(16), np.uint32(0x7FC0)
_POINTER = ir.IntType(8).as_pointer()
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


def _fetch(typing: Any, row: Any, start: Any, count: Any) -> Any:
    """Have the processor fetch row[start : start + count], which need not exist, before it is read.
    `count` is a constant."""
    lines = range(0, count.literal_value, 512 // row.dtype.bitwidth)

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [_POINTER, number, number, number])
        call = builder.module.declare_intrinsic("llvm.prefetch", [_POINTER], kind)
        for i in lines:
            place = builder.gep(data, [builder.add(args[1], ir.Constant(args[1].type, i))])
            place = builder.bitcast(place, _POINTER)
            builder.call(call, [place, number(0), number(3), number(1)])  # to read, all caches
        return context.get_dummy_value()

    return types.void(row, start, count), generate


fetch: Any = intrinsic(prefer_literal=True)(_fetch)


@inlined
def copy_row(x: np.ndarray, into: np.ndarray) -> None:
    """into[:] = x, with as many numbers as `into` has. Numba's own form also compiles the message
    of an error that cannot occur here, which takes two seconds."""
    for j in range(into.shape[0]):
        into[j] = x[j]


@inlined
def add_row(x: np.ndarray, into: np.ndarray) -> None:
    """into[:] += x."""
    for j in range(into.shape[0]):
        into[j] += x[j]


@kernel
def load_columns(tile: np.ndarray, x: np.ndarray, begin: int, steps: int, lo: int, hi: int) -> None:
    """tile[:steps] = x[begin : begin + steps, lo:hi]; a tile may be wider."""
    for t in range(steps):
        for j in range(hi - lo):
            tile[t, j] = x[begin + t, lo + j]


@kernel
def store_columns(
    tile: np.ndarray, x: np.ndarray, begin: int, steps: int, lo: int, hi: int
) -> None:
    """x[begin : begin + steps, lo:hi] = tile[:steps]."""
    for t in range(steps):
        for j in range(hi - lo):
            x[begin + t, lo + j] = tile[t, j]


@inlined
def read_out(y, u, D, z, out):
    """out = (y + D u) * silu(z), the end of a step. An empty D or z is left out. Overwrites `y`."""
    for j in range(len(D)):
        y[j] += D[j] * load(u, j)
    for j in range(len(z)):
        gate = load(z, j)
        y[j] *= gate * sigmoid(gate)
    for j in range(len(y)):
        store(out, j, y[j])
