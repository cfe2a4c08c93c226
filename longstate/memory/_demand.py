"""The bits that a task needs in a state, and the bits that a measured accuracy proves.

Fano's inequality relates the error rate of guessing one of V symbols to what is known about them:

    H(X | state) <= h(e) + e log2(V - 1)        h: entropy of a coin with probability e

Both functions here are exact inverses of it. (Papers often have "- 1" instead of -h(e). That form
is weaker by up to one bit, and gives values above 1 if the alphabet of a token is used for
sequences.)
"""

import math
from dataclasses import dataclass

from longstate._numbers import number
from longstate.errors import InputError
from longstate.memory._result import Result


@dataclass(frozen=True, eq=False, kw_only=True)
class Bits(Result):
    """A single number of bits."""

    bits: float

    def rows(self) -> tuple[list[str], list[list[str]]]:
        return ["", "bits"], [["", number(self.bits)]]


@dataclass(frozen=True, eq=False, kw_only=True)
class ErrorRate(Result):
    """A single probability of error."""

    error: float

    def rows(self) -> tuple[list[str], list[list[str]]]:
        return ["", "error"], [["", number(self.error)]]


def fano(conditional_bits: float, alphabet: int) -> ErrorRate:
    """The least possible error rate of guessing, given the missing information.

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
        sentence=f"If {conditional_bits:.4g} bits about one of {alphabet} symbols are missing, at "
        f"least {100 * error:.4g} % of guesses are wrong.",
        error=error,
    )


def known_bits(accuracy: float, alphabet: int) -> Bits:
    """The bits about a uniform symbol that a state must hold for an accuracy.

    Args:
        accuracy: share of correct guesses of a symbol that is uniform on the alphabet.
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
        scope="uniform and independent symbols; for the true accuracy",
        sentence=f"To guess {100 * accuracy:.4g} % of {alphabet} equally likely symbols correctly, "
        f"a state must hold at least {bits:.4g} bits about each.",
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
    """Bits to repeat a random sequence. Selective copying, with noise between, needs the same."""
    return _demand(tokens * math.log2(_positive(alphabet)), f"copy {tokens} of {alphabet} symbols")


def demand_of_recall(pairs: int, keys: int, values: int) -> Bits:
    """Bits for associative recall: `pairs` different keys of `keys`, with values of `values`.

    Raises:
        InputError: more pairs than keys.
    """
    if not 0 <= pairs <= keys:
        raise InputError(f"pairs must lie between 0 and the {keys} keys; got {pairs}")
    bits = math.log2(math.comb(keys, pairs)) + pairs * math.log2(_positive(values))
    return _demand(bits, f"recall {pairs} of {keys} keys with one of {values} values each")


def demand_of_counter(modulus: int) -> Bits:
    """Bits to count modulo `modulus`; parity and a flip-flop have the modulus 2."""
    return _demand(math.log2(_positive(modulus)), f"count modulo {modulus}")


def demand_of_brackets(depth: int, kinds: int = 1) -> Bits:
    """Bits to match brackets of `kinds` kinds, at most `depth` deep: each stack is a state."""
    if depth < 0:
        raise InputError(f"depth must be at least 0; got {depth}")
    stacks = sum(_positive(kinds) ** i for i in range(depth + 1))
    return _demand(math.log2(stacks), f"match {kinds} kinds of brackets, {depth} deep")


def demand_of_delay(steps: int, bits: float) -> Bits:
    """Bits to repeat the input of `steps` ago, where each input has `bits` bits."""
    return _demand(steps * bits, f"repeat numbers of {bits:g} bits {steps} steps later")


def _demand(bits: float, task: str) -> Bits:
    if bits < 0:
        raise InputError(f"a task cannot need {bits:g} bits")
    return Bits(
        kind="exact",
        scope="this task, uniform input, without error",
        sentence=f"To {task}, a state must distinguish {2.0**bits:,.6g} cases: {bits:.4f} bits."
        if bits < 64
        else f"To {task}, a state must hold {bits:.4f} bits.",
        bits=bits,
    )


def _positive(n: int) -> int:
    if n < 1:
        raise InputError(f"a number of symbols must be at least 1; got {n}")
    return n
