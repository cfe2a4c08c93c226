import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longstate.compress._digits import Packing, read_outliers, write_outliers
from longstate.errors import InputError


@given(st.lists(st.integers(2, 70_000), max_size=80), st.integers(0, 5), st.integers(0, 2**31))
def test_packing_is_undone_by_unpacking(levels, rows, seed):
    levels = np.array(levels, np.int64)
    digits = np.random.default_rng(seed).integers(0, levels, (rows, len(levels)))
    packing = Packing(levels)
    data = packing.pack(digits)
    assert len(data) == rows * packing.row_bytes
    np.testing.assert_array_equal(packing.unpack(data, rows), digits)


@pytest.mark.parametrize("levels", [2, 3, 16, 255, 256, 2**32, 2**63, 2**64 - 1])
def test_the_largest_digits_are_packed_and_unpacked(levels):
    packing = Packing(np.array([levels] * 41 if levels < 2**63 else [2**62] * 3))
    digits = np.repeat(packing.levels[None] - 1, 2, axis=0)
    np.testing.assert_array_equal(packing.unpack(packing.pack(digits), 2), digits)


def test_three_values_take_less_than_two_bits():
    assert Packing(np.full(400, 3)).row_bytes == 80  # ten words of 40 digits
    assert Packing(np.full(400, 16)).row_bytes == 200
    assert Packing(np.full(3, 256)).row_bytes == 3


def test_data_of_another_length_is_refused():
    with pytest.raises(InputError, match="6 bytes of digits expected; got 5"):
        Packing(np.full(3, 256)).unpack(b"12345", 2)


@given(st.dictionaries(st.integers(0, 2**40), st.integers(-(2**52), 2**52), max_size=20))
def test_outliers_are_written_and_read(outliers):
    places = np.array(sorted(outliers), np.int64)
    values = np.array([outliers[p] for p in places.tolist()], np.int64)
    data = b"x" + write_outliers(places, values)
    found = read_outliers(data, 1)
    np.testing.assert_array_equal(found[0], places)
    np.testing.assert_array_equal(found[1], values)
    assert found[2] == len(data)
    with pytest.raises(InputError, match="ends too early"):
        read_outliers(data[:-1], 1)
