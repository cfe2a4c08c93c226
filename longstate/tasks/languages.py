"""Regular languages: after every symbol, the set of all that may come next, the end included.

The regular ones of the formal languages of Bhattamishra et al. (2020, arXiv:2009.11264) and Sarrof
et al. (2024, arXiv:2405.17394): Tomita's seven, parity, four periodic ones, bracket chains of
limited depth, and three others. Trained on lengths to 50, tested to 150, as there. Rows here are
uniform among the beginnings of words that have their length.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from longstate.memory import Bits
from longstate.tasks._automata import Automaton, automaton
from longstate.tasks._task import Batch, Budget, Task, exactly


@dataclass(frozen=True, kw_only=True)
class Regular(Task):
    """A language with a finite automaton.

    Args:
        build: makes the automaton.
    """

    build: Callable[[], Automaton]

    @cached_property
    def machine(self) -> Automaton:
        return self.build()

    def demand(self, length: int) -> Bits:
        return exactly(math.log2(self.machine.classes()), f"follow {self.name}")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        x = self.machine.sample(batch, length, generator)
        state, y = self._begin(batch), []
        for symbol in x.unbind(1):
            state = self.machine.next[state, symbol]
            y.append(self.machine.legal[state])
        return Batch(x, torch.stack(y, 1), torch.ones(batch, length, dtype=torch.bool))

    def _begin(self, batch: int) -> Tensor:
        return torch.zeros(batch, dtype=torch.long)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One-hot states and a permutation-like matrix for each symbol."""
        machine = self.machine
        hot = torch.nn.functional.one_hot(state, len(machine.next)).float()
        moves = torch.nn.functional.one_hot(machine.next.clamp(min=0), len(machine.next)).float()
        state = torch.einsum("bs,sbr->br", hot, moves[:, x]).argmax(1)
        return machine.legal[state], state


def _phases(*loops: str) -> Callable[[], Automaton]:
    """`_phases("a", "b")` is a* b*: letters of each part, repeated, in this order."""
    letters = sorted({c for loop in loops for c in loop})

    def move(phase, symbol):
        later = [i for i in range(phase, len(loops)) if letters[symbol] in loops[i]]
        return later[0] if later else None

    return lambda: automaton(0, len(letters), move, lambda phase: True)


def _cycle(word: str) -> Callable[[], Automaton]:
    """The words that repeat `word`."""
    letters = sorted(set(word))

    def move(i, symbol):
        return (i + 1) % len(word) if letters[symbol] == word[i] else None

    return lambda: automaton(0, len(letters), move, lambda i: i == 0)


def _tomita3(state, symbol):
    """After an odd run of ones no odd run of zeros. 1: odd ones; 2, 3: odd, even zeros after it."""
    return {0: (0, 1), 1: (2, 0), 2: (3, None), 3: (2, 1)}[state][symbol]


def _chain(state, symbol):
    """aa* bb* cc* dd* ee*: the state is the number of the last letter, from 1."""
    return symbol + 1 if symbol + 1 in (max(state, 1), state + 1) else None


def _depth(most: int) -> Callable[[], Automaton]:
    def move(depth, symbol):
        after = depth + 1 - 2 * symbol
        return after if 0 <= after <= most else None

    return lambda: automaton(0, 2, move, lambda depth: depth == 0)


_STAR_FREE = "Star-free, so layers with non-negative gates can learn it and keep it at all lengths."
_COUNTS = "Not star-free: it needs counting modulo a number, which non-negative gates cannot do."
_KINDS: tuple[tuple[str, str, int, Callable[[], Automaton], str], ...] = (
    ("tomita_1", "1*", 2, lambda: automaton(0, 2, lambda s, x: 0 if x else None, lambda s: True),
     _STAR_FREE),
    ("tomita_2", "(10)*", 2,
     lambda: automaton(0, 2, lambda s, x: 1 - s if x == 1 - s else None, lambda s: s == 0),
     _STAR_FREE),
    ("tomita_3", "no odd run of zeros after an odd run of ones", 2,
     lambda: automaton(0, 2, _tomita3, lambda s: s != 2), _COUNTS),
    ("tomita_4", "no three zeros in a row", 2,
     lambda: automaton(0, 2, lambda s, x: 0 if x else (s + 1 if s < 2 else None), lambda s: True),
     _STAR_FREE),
    ("tomita_5", "an even number of zeros and of ones", 2,
     lambda: automaton((0, 0), 2, lambda s, x: (s[0] ^ (x == 0), s[1] ^ (x == 1)),
                       lambda s: not any(s)), _COUNTS),
    ("tomita_6", "as many zeros as ones, modulo 3", 2,
     lambda: automaton(0, 2, lambda s, x: (s + 1 - 2 * x) % 3, lambda s: s == 0), _COUNTS),
    ("tomita_7", "0*1*0*1*", 2, _phases("0", "1", "0", "1"), _STAR_FREE),
    ("parity_language", "an even number of ones", 2,
     lambda: automaton(0, 2, lambda s, x: s ^ x, lambda s: s == 0), _COUNTS),
    ("aa_star", "(aa)*", 1, _cycle("aa"), _COUNTS),
    ("aaaa_star", "(aaaa)*", 1, _cycle("aaaa"), _COUNTS),
    ("abab_star", "(abab)*", 2, _cycle("abab"), _COUNTS),
    *((f"d_{n}", f"brackets of one kind, at most {n} deep", 2, _depth(n), _STAR_FREE)
      for n in (2, 3, 4, 12)),
    ("abcde", "aa*bb*cc*dd*ee*", 5, lambda: automaton(0, 5, _chain, lambda s: s == 5), _STAR_FREE),
    ("ab_d_bc", "{a,b}*d{b,c}*", 4,
     lambda: automaton(0, 4, lambda s, x: {(0, 0): 0, (0, 1): 0, (0, 3): 1, (1, 1): 1,
                                           (1, 2): 1}.get((s, x)), lambda s: s == 1), _STAR_FREE),
    ("012_02", "{0,1,2}*02*", 3,
     lambda: automaton(0, 3, lambda s, x: (1, 0, s)[x], lambda s: s == 1), _STAR_FREE),
)  # fmt: skip

TASKS: tuple[Task, ...] = tuple(
    Regular(
        name=name,
        why=f"The language of {words}. {kind}",
        build=build,
        symbols=symbols,
        answers=symbols + 1,
        answer="set",
        budget=Budget(50, (100, 150), shortest=2),
    )
    for name, words, symbols, build, kind in _KINDS
)
