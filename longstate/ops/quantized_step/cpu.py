"""Numba: a row is unpacked, moved on, read and rounded again while it is in the cache."""

from typing import NamedTuple

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

from longstate.ops._layout import array, on_large_pages
from longstate.ops._numba import exact, inlined, kernel, parallel_for
from longstate.ops._numba.math import exp
from longstate.ops._numba.rows import load, read_out
from longstate.ops.quantized_step import BAD, LEAST, Digits, Rounded

_CHANNELS = 64  # of a block
_MIX, _MIX_2, _SPREAD = np.uint32(0x7FEB352D), np.uint32(0x846CA68B), np.uint32(0x9E3779B9)
_S8, _S15, _S16 = np.uint32(8), np.uint32(15), np.uint32(16)
_U = np.float32(2.0**-24)
_ABS, _ABS_WIDE = np.int32(0x7FFFFFFF), np.int64(0x7FFFFFFFFFFFFFFF)
_LOW, _HALF, _EIGHT = np.uint8(15), np.uint8(4), np.int32(8)
_SIXTEEN, _BOTH = np.float32(16), np.float32(8 + 128)


class Way(NamedTuple):
    """How rows are rounded."""

    most: float
    places: int  # of `most`, in binary
    random: bool
    packed: bool
    seed: int


class States(NamedTuple):
    """Rows before the sample and after it; (b, r, w) and (b, r)."""

    numbers: np.ndarray
    exponents: np.ndarray
    next_numbers: np.ndarray
    next_exponents: np.ndarray


def _bits(x):
    """A positive float as an integer in the same order."""


@overload(_bits)
def _(x):
    if x == types.float32:
        return lambda x: np.int32(np.float32(x).view(np.int32) & _ABS)
    return lambda x: np.float64(x).view(np.int64) & _ABS_WIDE


def _back(bits):
    """The number of `_bits`, its exponent as `frexp` gives it, and whether it is finite."""


@overload(_back)
def _(bits):
    if bits == types.int32:
        return lambda bits: (
            np.float64(np.int32(bits).view(np.float32)), (bits >> 23) - 126, bits >> 23 < 255
        )  # fmt: skip
    return lambda bits: (np.int64(bits).view(np.float64), (bits >> 52) - 1022, bits >> 52 < 2047)


@exact
def _power(e):
    return np.int32((e + 127) << 23).view(np.float32)


@exact
def _mixed(x):
    x = np.uint32(np.uint32(x ^ (x >> _S16)) * _MIX)
    x = np.uint32(np.uint32(x ^ (x >> _S15)) * _MIX_2)
    return np.uint32(x ^ (x >> _S16))


@exact
def _exponent(largest, most, places):
    """The smallest exponent at which numbers of this size fit."""
    size, x, finite = _back(largest)
    e = min(max(np.int64(x) - places, -126), 127)
    if e < 127 and size > most * np.float64(_power(e)):
        e += 1
    return max(e, LEAST) if finite and e < BAD else BAD


@inlined
def _unpack(numbers: np.ndarray, e: int, packed: bool, h: np.ndarray) -> None:
    scale = h.dtype.type(np.nan) if e == BAD else h.dtype.type(_power(e))
    if packed:
        low, high = h[: len(numbers)], h[len(numbers) :]
        for i in range(len(low)):
            low[i] = h.dtype.type(np.int32(np.int32(numbers[i] & _LOW) - _EIGHT)) * scale
        for i in range(len(high)):
            high[i] = h.dtype.type(np.int32(np.int32(numbers[i] >> _HALF) - _EIGHT)) * scale
    else:
        for i in range(len(h)):
            h[i] = h.dtype.type(numbers[i]) * scale


@inlined
def _round(h: np.ndarray, way: Way, first: int, numbers: np.ndarray) -> int:
    """Writes the whole numbers of a row, which begins at place `first`; overwrites h."""
    largest = _bits(h.dtype.type(0))
    for i in range(len(h)):
        largest = max(largest, _bits(h[i]))
    e = _exponent(largest, way.most, way.places)
    if e == BAD:
        for i in range(len(h)):
            h[i] = 0
    scale = h.dtype.type(_power(-min(e, 126)))
    if way.random:
        start = _mixed(np.uint32(way.seed))
        for i in range(len(h)):
            scaled = h[i] * scale
            low = np.floor(scaled)
            place = np.uint32(np.uint32(first + i) * _SPREAD)
            drawn = np.float32(_mixed(np.uint32(place + start)) >> _S8) * _U
            h[i] = low + h.dtype.type(1) if scaled - low > h.dtype.type(drawn) else low
    else:
        for i in range(len(h)):
            h[i] = np.rint(h[i] * scale)
    if way.packed:
        low, high = h[: len(numbers)], h[len(numbers) :]
        for i in range(len(high)):  # two whole numbers, each plus 8
            numbers[i] = np.int32(low[i] + _SIXTEEN * high[i] + _BOTH)
        if len(high) < len(low):
            numbers[-1] = np.int32(low[-1] + _BOTH)
    else:
        for i in range(len(h)):
            numbers[i] = np.int32(h[i])
    return e


@inlined
def _selective_row(
    dt: float, drive: float, A: np.ndarray, B: np.ndarray, C: np.ndarray, h: np.ndarray
) -> float:
    y = h.dtype.type(0)
    for i in range(len(h)):
        h[i] = exp(dt * A[i]) * h[i] + drive * B[i]
        y += h[i] * C[i]
    return y


@inlined
def _head_row(a: float, drive: float, B: np.ndarray, C: np.ndarray, h: np.ndarray) -> float:
    y = h.dtype.type(0)
    for i in range(len(h)):
        h[i] = a * h[i] + drive * B[i]
        y += h[i] * C[i]
    return y


@kernel
def _selective(
    start: int, stop: int, u: np.ndarray, dt: np.ndarray, A: np.ndarray, B: np.ndarray,
    C: np.ndarray, D: np.ndarray, z: np.ndarray, states: tuple, way: tuple, out: np.ndarray,
) -> None:  # fmt: skip
    s, how = States(*states), Way(*way)
    d, n = A.shape
    blocks = (d + _CHANNELS - 1) // _CHANNELS
    h, y = np.empty(n, A.dtype), np.empty(_CHANNELS, A.dtype)
    for block in range(start, stop):
        b, lo = block // blocks, block % blocks * _CHANNELS
        hi = min(lo + _CHANNELS, d)
        for c in range(lo, hi):
            _unpack(s.numbers[b, c], s.exponents[b, c], how.packed, h)
            y[c - lo] = _selective_row(dt[b, c], dt[b, c] * load(u[b], c), A[c], B[b], C[b], h)
            first = (b * d + c) * n
            s.next_exponents[b, c] = _round(h, how, first, s.next_numbers[b, c])
        read_out(y[: hi - lo], u[b, lo:hi], D[lo:hi], z[b, lo:hi], out[b, lo:hi])


@kernel
def _of_heads(
    start: int, stop: int, x: np.ndarray, log_a: np.ndarray, weight: np.ndarray, B: np.ndarray,
    C: np.ndarray, D: np.ndarray, states: tuple, way: tuple, out: np.ndarray,
) -> None:  # fmt: skip
    s, how = States(*states), Way(*way)
    heads, p = x.shape[1:]
    groups, n = B.shape[1:]
    h = np.empty(n, log_a.dtype)
    for block in range(start, stop):
        b, head = block // heads, block % heads
        write, read = B[b, head * groups // heads], C[b, head * groups // heads]
        a = exp(log_a[b, head])
        for j in range(p):
            row, now = head * p + j, load(x[b, head], j)
            _unpack(s.numbers[b, row], s.exponents[b, row], how.packed, h)
            y = _head_row(a, weight[b, head] * now, write, read, h)
            out[b, head, j] = y + D[head] * now
            first = (b * heads * p + row) * n
            s.next_exponents[b, row] = _round(h, how, first, s.next_numbers[b, row])


def selective(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, state: Rounded,
    digits: Digits, seed: int,
) -> tuple[Tensor, Rounded]:  # fmt: skip
    wide, (b, d) = A.dtype, u.shape
    y, last = u.new_empty(b, d, dtype=wide), _empty(state)
    parallel_for(
        _selective, b * -(-d // _CHANNELS), b * A.numel(), array(u),
        *(array(v, wide) for v in (dt, A, B, C, D)), array(z), _states(state, last),
        _way(digits, seed), array(y),
    )  # fmt: skip
    return y, last


def of_heads(
    x: Tensor, log_a: Tensor, weight: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Rounded,
    digits: Digits, seed: int,
) -> tuple[Tensor, Rounded]:  # fmt: skip
    wide, (b, h, p) = log_a.dtype, x.shape
    y, last = x.new_empty(b, h, p, dtype=wide), _empty(state)
    parallel_for(
        _of_heads, b * h, x.numel() * B.shape[-1] // 4, array(x),
        *(array(v, wide) for v in (log_a, weight, B, C, D)), _states(state, last),
        _way(digits, seed), array(y),
    )  # fmt: skip
    return y, last


def _empty(state: Rounded) -> Rounded:
    numbers, exponents = (torch.empty_like(v, memory_format=torch.contiguous_format) for v in state)
    return Rounded(on_large_pages(numbers), exponents)


def _way(digits: Digits, seed: int) -> tuple:
    most = digits.most
    return float(most), most.bit_length(), digits.rounding == "stochastic", digits.packed, seed


def _states(state: Rounded, last: Rounded) -> tuple:
    """Heads and their channels are rows alike."""
    found = []
    for numbers, exponents in (state, last):
        rows = numbers.contiguous().numpy().reshape(len(numbers), -1, numbers.shape[-1])
        found += [rows, exponents.contiguous().numpy().reshape(len(rows), -1)]
    return tuple(found)
