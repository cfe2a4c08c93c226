import itertools
import math

import pytest

from longstate.errors import InputError
from longstate.memory import (
    demand_of_brackets,
    demand_of_copy,
    demand_of_counter,
    demand_of_delay,
    demand_of_recall,
    fano,
    known_bits,
)


@pytest.mark.parametrize("alphabet", [2, 3, 16, 1000])
@pytest.mark.parametrize("error", [0.0, 1e-6, 0.01, 0.3, 0.49])
def test_fano_is_the_exact_inverse(alphabet, error):
    entropy = sum(-p * math.log2(p) for p in (error, 1 - error) if p)
    bits = entropy + error * math.log2(alphabet - 1)
    # One rounding of the bits moves the error by so much; and it is itself rounded.
    moved = bits / math.log2((1 - error) / error * (alphabet - 1)) if error else 0.0
    assert abs(fano(bits, alphabet).error - error) <= 2.0**-52 * (2 * moved + error)
    assert known_bits(1 - error, alphabet).bits == pytest.approx(math.log2(alphabet) - bits)


def test_fano_is_stronger_than_the_form_with_minus_one():
    assert fano(2.0, 16).error > (2.0 - 1) / math.log2(16)


def test_a_bound_never_exceeds_guessing():
    assert fano(4.0, 16).error == pytest.approx(15 / 16)
    assert known_bits(1 / 16, 16).bits == 0
    assert known_bits(0.0, 2).bits == pytest.approx(1.0)


def test_a_hundred_fair_bits_in_a_state_of_twenty_four():
    """The repaired statement: per token, not for the whole sequence at once."""
    assert round(fano((100 - 24) / 100, 2).error, 3) == 0.220


def test_demands_by_counting():
    assert demand_of_copy(3, 4).bits == pytest.approx(math.log2(4**3))
    orders = len(list(itertools.combinations(range(5), 2))) * 3**2
    assert demand_of_recall(2, 5, 3).bits == pytest.approx(math.log2(orders))
    assert round(demand_of_recall(6, 16, 16).bits, 2) == 36.97
    assert demand_of_counter(2).bits == 1
    assert demand_of_delay(5, 8).bits == 40
    stacks = sum(1 for d in range(4) for _ in itertools.product("([", repeat=d))
    assert demand_of_brackets(3, 2).bits == pytest.approx(math.log2(stacks))
    assert demand_of_brackets(7).bits == 3


def test_refuses():
    for call in (
        lambda: fano(5.0, 16),
        lambda: fano(-0.1, 16),
        lambda: fano(0.0, 1),
        lambda: known_bits(1.2, 16),
        lambda: demand_of_recall(5, 4, 2),
        lambda: demand_of_copy(2, 0),
        lambda: demand_of_brackets(-1),
        lambda: demand_of_delay(-1, 8),
    ):
        with pytest.raises(InputError):
            call()
