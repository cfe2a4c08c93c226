"""Pack whole numbers with few possible values into bytes.

Digits with l_1, l_2, ... possible values become one number in mixed radix, d_1 + l_1 (d_2 + l_2
(...)), of at most 64 bits; then the next word begins. A digit with three values takes 1.6 bits, not
2. The last word of a row keeps only the bytes that it needs. All rows have the same length.

Outliers, which are numbers outside their range, are appended as pairs of place and value.

Axes: b rows, k digits of a row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longstate.errors import InputError

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Packing:
    """The layout of digits in words of 64 bits.

    Args:
        levels (k): number of values of each digit, at least 2.
    """

    levels: Ints

    def __post_init__(self):
        radix, starts, product = [], [], 1 << 64
        for place, count in enumerate(self.levels.tolist()):
            if product * count > 1 << 64:
                starts.append(place)
                product = 1
            radix.append(product)
            product *= count
        used = 0 if not len(self.levels) else -(-(product - 1).bit_length() // 8)
        layout = {
            "radix": np.array(radix, np.uint64),
            "starts": np.array(starts, np.int64),
            "row_bytes": 8 * max(len(starts) - 1, 0) + used,
        }
        vars(self).update(layout)

    radix: NDArray[np.uint64] = None  # type: ignore[assignment]
    starts: Ints = None  # type: ignore[assignment]
    row_bytes: int = 0

    def pack(self, digits: Ints) -> bytes:
        """Bytes of digits (b, k), each from 0 to its levels - 1."""
        if not len(self.levels):
            return b""
        words = np.add.reduceat(digits.astype(np.uint64) * self.radix, self.starts, axis=1)
        whole = np.ascontiguousarray(words.astype("<u8")).view(np.uint8)
        return whole[:, : self.row_bytes].tobytes()

    def unpack(self, data: bytes, rows: int) -> Ints:
        """The inverse of `pack`: digits (b, k).

        Raises:
            InputError: the data has another length.
        """
        if len(data) != rows * self.row_bytes:
            raise InputError(f"{rows * self.row_bytes} bytes of digits expected; got {len(data)}")
        if not len(self.levels):
            return np.zeros((rows, 0), np.int64)
        whole = np.zeros((rows, 8 * len(self.starts)), np.uint8)
        whole[:, : self.row_bytes] = np.frombuffer(data, np.uint8).reshape(rows, self.row_bytes)
        words = whole.view("<u8").astype(np.uint64)
        word = np.repeat(np.arange(len(self.starts)), np.diff([*self.starts, len(self.levels)]))
        return (words[:, word] // self.radix % self.levels.astype(np.uint64)).astype(np.int64)


def write_numbers(numbers: list[int]) -> bytes:
    """Encode numbers of at least 0: seven bits per byte, the lowest first."""
    out = bytearray()
    for n in numbers:
        while n >= 128:
            out.append(n & 127 | 128)
            n >>= 7
        out.append(n)
    return bytes(out)


def read_numbers(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """Decode `count` numbers from position `at`; also returns the position after them.

    Raises:
        InputError: the data is too short.
    """
    numbers = []
    for _ in range(count):
        n, shift = 0, 0
        while True:
            if at >= len(data):
                raise InputError("the data ends too early")
            byte, at = data[at], at + 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if n >= 1 << 63:
            raise InputError("the data holds a number beyond 64 bits")
        numbers.append(n)
    return numbers, at


def write_outliers(places: Ints, values: Ints) -> bytes:
    """Encode places, in rising order, and the values there."""
    gaps = np.diff(places, prepend=0)
    signed = np.where(values >= 0, 2 * values, -2 * values - 1)
    return write_numbers([len(places), *np.stack([gaps, signed], 1).ravel().tolist()])


def read_outliers(data: bytes, at: int) -> tuple[Ints, Ints, int]:
    """Decode places and values; also returns the position after them."""
    (count,), at = read_numbers(data, at, 1)
    if count > len(data):
        raise InputError("the data ends too early")
    numbers, at = read_numbers(data, at, 2 * count)
    pairs = np.array(numbers, np.int64).reshape(-1, 2)
    values = np.where(pairs[:, 1] % 2 == 0, pairs[:, 1] // 2, -(pairs[:, 1] // 2) - 1)
    return pairs[:, 0].cumsum(), values, at
