"""How many bits a task asks of a state, and how many a measured accuracy proves.

Fano's inequality ties the error of guessing one of V symbols to what is known about them:

    H(X | state) <= h(e) + e log2(V - 1)        h: entropy of a coin with probability e

Both directions here are exact inverses of it. (The form with "- 1" in place of -h(e), which papers
quote, is weaker by up to a bit, and beyond 1 where the alphabet of a token is put for that of a
sequence.)
"""

import math
from dataclasses import dataclass

from longstate.errors import InputError
from longstate.memory._result import Result, digits


@dataclass(frozen=True, eq=False, kw_only=True)
class Bits(Result):
    """A single number of bits."""

    bits: float

    def rows(self) -> tuple[list[str], list[list[str]]]:
        return ["", "bits"], [["", digits(self.bits)]]


@dataclass(frozen=True, eq=False, kw_only=True)
class ErrorRate(Result):
    """A single probability of error."""

    error: float

    def rows(self) -> tuple[list[str], list[list[str]]]:
        return ["", "error"], [["", digits(self.error)]]


def fano(conditional_bits: float, alphabet: int) -> ErrorRate:
    """The least error with which anybody can guess, given what is not known.

    Args:
        conditional_bits: H(X | state), between 0 and log2(alphabet).
        alphabet: V, number of symbols, at least 2.

    Raises:
        InputError: out of these ranges.
    """
    _check_alphabet(alphabet)
    most = math.log2(alphabet)
    if not 0 <= conditional_bits <= most * (1 + 1e-12):
        raise InputError(
            f"conditional_bits must lie between 0 and log2({alphabet}) = {most:.6g}; "
            f"got {conditional_bits}"
        )
    low, high = 0.0, 1 - 1 / alphabet  # the bound grows with e up to here
    while high - low > 1e-15 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (
            (middle, high) if _uncertain(middle, alphabet) < conditional_bits else (low, middle)
        )
    error = 0.0 if conditional_bits == 0 else high
    return ErrorRate(
        kind="lower_bound",
        scope="every way to guess",
        sentence=f"Whoever lacks {conditional_bits:.4g} bits about one of {alphabet} symbols errs "
        f"in at least {100 * error:.4g} % of guesses.",
        error=error,
    )


def known_bits(accuracy: float, alphabet: int) -> Bits:
    """Bits about a uniform symbol that an accuracy proves a state to hold.

    Args:
        accuracy: share of right guesses of a symbol that is uniform on the alphabet.
        alphabet: V, at least 2.

    Raises:
        InputError: out of these ranges.
    """
    _check_alphabet(alphabet)
    if not 0 <= accuracy <= 1:
        raise InputError(f"accuracy must lie between 0 and 1; got {accuracy}")
    bits = max(0.0, math.log2(alphabet) - _uncertain(1 - accuracy, alphabet))
    return Bits(
        kind="lower_bound",
        scope="symbols that are uniform and independent; the accuracy being the true one",
        sentence=f"To be right in {100 * accuracy:.4g} % of {alphabet} equally likely symbols, a "
        f"state must hold at least {bits:.4g} bits about each.",
        bits=bits,
    )


def _uncertain(error: float, alphabet: int) -> float:
    """h(e) + e log2(V - 1)."""
    entropy = -sum(p * math.log2(p) for p in (error, 1 - error) if p > 0)
    return entropy + error * math.log2(alphabet - 1)


def _check_alphabet(alphabet: int) -> None:
    if alphabet < 2:
        raise InputError(f"alphabet must have at least 2 symbols; got {alphabet}")


def demand_of_copy(tokens: int, alphabet: int) -> Bits:
    """To repeat a random sequence; selective copying, with noise between, asks the same."""
    return _demand(tokens * math.log2(_positive(alphabet)), f"copy {tokens} of {alphabet} symbols")


def demand_of_recall(pairs: int, keys: int, values: int) -> Bits:
    """To answer for `pairs` different keys of `keys` with values of `values`: associative recall.

    Raises:
        InputError: more pairs than keys.
    """
    if not 0 <= pairs <= keys:
        raise InputError(f"pairs must lie between 0 and the {keys} keys; got {pairs}")
    bits = math.log2(math.comb(keys, pairs)) + pairs * math.log2(_positive(values))
    return _demand(bits, f"recall {pairs} of {keys} keys with one of {values} values each")


def demand_of_counter(modulus: int) -> Bits:
    """To count modulo `modulus`; parity and a flip-flop are 2."""
    return _demand(math.log2(_positive(modulus)), f"count modulo {modulus}")


def demand_of_brackets(depth: int, kinds: int = 1) -> Bits:
    """To close brackets of `kinds` kinds, nested at most `depth` deep: every stack is a state."""
    if depth < 0:
        raise InputError(f"depth must be at least 0; got {depth}")
    stacks = sum(_positive(kinds) ** i for i in range(depth + 1))
    return _demand(math.log2(stacks), f"match {kinds} kinds of brackets, {depth} deep")


def demand_of_delay(steps: int, bits: float) -> Bits:
    """To say again what came `steps` ago, in numbers of `bits` bits each."""
    return _demand(steps * bits, f"repeat numbers of {bits:g} bits {steps} steps later")


def _demand(bits: float, task: str) -> Bits:
    if bits < 0:
        raise InputError(f"a task cannot ask for {bits:g} bits")
    return Bits(
        kind="exact",
        scope="this task, uniform input, without error",
        sentence=f"To {task}, a state must tell {2.0**bits:,.6g} cases apart: {bits:.4f} bits."
        if bits < 64
        else f"To {task}, a state must hold {bits:.4f} bits.",
        bits=bits,
    )


def _positive(n: int) -> int:
    if n < 1:
        raise InputError(f"a number of symbols must be at least 1; got {n}")
    return n
