"""Encode states as a few bytes, and decode them.

    "LSPK", version, coder, identity of the codec, number of rows, encoded numbers, checksum

Everything except the encoded numbers takes 23 bytes. Fixed lengths need no other library. The range
coder is that of `constriction` (`pip install "longstate[park]"`); every number has a Gaussian
distribution with its own standard deviation.
"""

import hashlib
import math
from types import ModuleType
from typing import Literal

import numpy as np
from torch import Tensor

from longstate._environment import installed_memory
from longstate.compress._codec import StateCodec
from longstate.compress._digits import (
    Ints,
    Packing,
    read_numbers,
    read_outliers,
    write_numbers,
    write_outliers,
)
from longstate.compress._parts import Rotated
from longstate.errors import InputError
from longstate.layers._base import State

_MAGIC, VERSION = b"LSPK", 1
_CHECK = 8  # bytes
_WIDEST = 4095  # largest absolute value that the range coder encodes
_QUIET = 0.15  # a deviation, in steps, below which at most one number in a thousand is not 0

Coder = Literal["fixed", "range"]
_CODERS: tuple[Coder, ...] = ("fixed", "range")


def park(state: State, codec: StateCodec, *, coder: Coder = "fixed") -> bytes:
    """Encode a state as bytes.

    Args:
        state: of the module that the codec was made for; any batch.
        codec: from `fit_codec` or `plain_codec`.
        coder: "fixed": fixed lengths, and a list of outliers. "range": entropy coding, which takes
            fewer bytes if most numbers are small.

    Raises:
        InputError: the state does not fit the codec, or is not finite; or `constriction` is not
            installed.
    """
    if coder not in _CODERS:
        raise InputError(f"coder must be 'fixed' or 'range'; got {coder!r}")
    tensors = codec.tensors_of(state)
    rows = len(next(iter(tensors.values())))
    head = _MAGIC + bytes([VERSION, _CODERS.index(coder)]) + bytes.fromhex(codec.identity)
    body = head + write_numbers([rows]) + _encode(codec, tensors, rows, coder)
    return body + _digest(body)


def unpark(data: bytes, codec: StateCodec) -> State:
    """Decode a state that `park` encoded. It has the error that the codec allows.

    Raises:
        InputError: the data is damaged, cut short, of another version or of another codec.
    """
    identity = codec_of(data)
    if identity != codec.identity:
        raise InputError(
            f"the state was parked with the codec {identity}, and this is {codec.identity}; pass "
            "the one that it was parked with"
        )
    coder, body = _CODERS[data[5]], data[:-_CHECK]
    (rows,), at = read_numbers(body, 14, 1)
    there = installed_memory()
    if there is not None and rows * codec.state_bits > there:  # numbers are widened eightfold
        raise InputError(f"the parked state has {rows:,} rows, more than this machine can hold")
    return codec.state_of(_decode(codec, body[at:], rows, coder))


def codec_of(data: bytes) -> str:
    """The identity of the codec that a parked state needs.

    Raises:
        InputError: the data is not a parked state, damaged, cut short or of another version.
    """
    if data[:4] != _MAGIC:
        raise InputError("the data is not a parked state: its first bytes differ")
    if len(data) > 4 and data[4] != VERSION:
        raise InputError(
            f"the parked state has format version {data[4]}; this version of longstate reads "
            f"version {VERSION}"
        )
    if len(data) < 15 + _CHECK or data[-_CHECK:] != _digest(data[:-_CHECK]):
        raise InputError("the parked state is damaged or was cut short: its checksum is wrong")
    if data[5] >= len(_CODERS):
        raise InputError(f"the parked state has the unknown coder {data[5]}")
    return data[6:14].hex()


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK).digest()


def _encode(codec: StateCodec, tensors: dict[str, Tensor], rows: int, coder: Coder) -> bytes:
    whole, beside = [np.zeros((rows, 0), np.int64)], b""
    digits: list[Ints] = []
    for part in codec.parts:
        x = tensors[part.place.name]
        if isinstance(part, Rotated):
            whole.append(part.whole(x))
        else:
            raw, numbers = part.encode(x)
            beside += raw
            digits.append(numbers)
    c = np.concatenate(whole, axis=1)
    if coder == "fixed":
        most = codec.low + codec.levels - 1
        kept = c.clip(codec.low, most)
        shifted = (kept - codec.low)[:, codec.levels > 1]
        coded = codec.packing.pack(np.concatenate([shifted, *digits], axis=1))
    else:
        spoken = _spoken(codec)
        kept = np.where(spoken, c.clip(-_WIDEST, _WIDEST), 0)
        coded = _plain_packing(codec).pack(np.concatenate([whole[0], *digits], axis=1))
        coded += _range_encode(kept[:, spoken], codec)
    places = np.flatnonzero(c != kept)
    return beside + coded + write_outliers(places, c.ravel()[places])


def _decode(codec: StateCodec, body: bytes, rows: int, coder: Coder) -> dict[str, Tensor]:
    at, beside = 0, []
    for rounded in codec.rounded:
        size = rows * rounded.row_bytes
        beside.append(body[at : at + size])
        at += size
    if at > len(body):
        raise InputError("the data ends too early")
    packing = codec.packing if coder == "fixed" else _plain_packing(codec)
    size = rows * packing.row_bytes
    digits = packing.unpack(body[at : at + size], rows)
    at += size
    c = np.zeros((rows, len(codec.levels)), np.int64)
    if coder == "fixed":
        own = codec.levels > 1
        c[:] = codec.low
        c[:, own] += digits[:, : own.sum()]
        digits = digits[:, own.sum() :]
    else:
        c[:, _spoken(codec)], at = _range_decode(body, at, rows, codec)
    places, values, end = read_outliers(body, at)
    if end != len(body) or bool(((places < 0) | (places >= c.size)).any()):
        raise InputError("the parked state holds more, or other, numbers than its codec has")
    c.ravel()[places] = values
    out, first, taken, plain = {}, 0, 0, iter(beside)
    for part in codec.parts:
        if isinstance(part, Rotated):
            out[part.place.name] = part.restore(c[:, first : first + part.numbers])
            first += part.numbers
        else:
            count = len(part.levels)
            out[part.place.name] = part.decode(next(plain), digits[:, taken : taken + count])
            taken += count
    return out


def _plain_packing(codec: StateCodec) -> Packing:
    return Packing(np.concatenate([np.zeros(0, np.int64), *(p.levels for p in codec.rounded)]))


def _spoken(codec: StateCodec) -> np.ndarray:
    """Which numbers the range coder encodes (k); the others are 0 or outliers."""
    return _deviation(codec) > _QUIET


def _deviation(codec: StateCodec) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(p.deviation.numpy() for p in codec.rotated)])


def _range_encode(c: Ints, codec: StateCodec) -> bytes:
    words = _words(c, codec)
    return write_numbers([len(words) // 4]) + words


def _words(c: Ints, codec: StateCodec) -> bytes:
    """Numbers (b, k) by the range coder."""
    if not c.size:
        return b""
    encoder = _constriction().queue.RangeEncoder()
    encoder.encode(c.ravel().astype(np.int32), *_gaussians(codec, len(c)))
    words: np.ndarray = encoder.get_compressed()
    return words.astype("<u4").tobytes()


def _range_decode(body: bytes, at: int, rows: int, codec: StateCodec) -> tuple[Ints, int]:
    """Numbers (b, k) and the position after them.

    The decoder goes on without an end, so the words are compared with those of the numbers found,
    and a number of rows that they cannot hold is refused before.
    """
    (count,), at = read_numbers(body, at, 1)
    end = at + 4 * count
    if end > len(body):
        raise InputError("the data ends too early")
    wrong = InputError("the words of the range coder are not those of a state")
    if rows * _least_bits(codec) > 64 * (count + 2):  # twice the bits, for the coder's rounding
        raise wrong
    columns = int(_spoken(codec).sum())
    c = np.zeros((rows, columns), np.int64)
    if c.size:
        decoder = _constriction().queue.RangeDecoder(np.frombuffer(body[at:end], "<u4"))
        try:
            c[:] = decoder.decode(*_gaussians(codec, rows)).reshape(rows, columns)
        except (AssertionError, ValueError):  # constriction's, for words that it has not written
            raise wrong from None
    if _words(c, codec) != body[at:end]:
        raise wrong
    return c, end


def _least_bits(codec: StateCodec) -> float:
    """Bits of a row whose numbers are all 0, which has the fewest."""
    deviation = _deviation(codec)[_spoken(codec)]
    return sum(-math.log2(max(math.erf(0.125**0.5 / d), 2.0**-24)) for d in deviation.tolist())


def _gaussians(codec: StateCodec, rows: int) -> tuple[object, ...]:
    deviation = np.tile(_deviation(codec)[_spoken(codec)], rows)
    family = _constriction().model.QuantizedGaussian(-_WIDEST, _WIDEST)
    return family, np.zeros_like(deviation), deviation


def _constriction() -> ModuleType:
    try:
        import constriction
    except ImportError:
        raise InputError(
            "the range coder needs constriction; pip install 'longstate[park]' brings it, or use "
            "coder='fixed'"
        ) from None
    return constriction.stream
