"""The generators against definitions that are written in another way."""

import math
import re

import pytest
import torch
from torch import Generator

from longstate.tasks import Task, task
from longstate.tasks._tasks import tasks
from longstate.tasks.groups import even_permutations, products
from longstate.tasks.listops import BLANK, OPERATORS, value
from longstate.tasks.lorenz import step

PATTERNS = {
    "tomita_1": "1*", "tomita_2": "(10)*", "tomita_4": "((?!000).)*", "tomita_7": "0*1*0*1*",
    "parity_language": "(0*10*1)*0*", "aa_star": "(00)*", "aaaa_star": "(0000)*",
    "abab_star": "(0101)*", "abcde": "00*11*22*33*44*", "ab_d_bc": "[01]*3[12]*",
    "012_02": "[012]*02*", "d_2": "(0(01)*1)*", "d_3": "(0(0(01)*1)*1)*",
}  # fmt: skip


def sample(name: str, batch: int, length: int, seed: int = 0):
    return task(name).sample(batch, length, Generator().manual_seed(seed))


def ends(t: Task, word: str) -> bool | None:
    """Whether the oracle accepts a word; None where it cannot continue."""
    state = t._begin(1)
    for c in word:
        legal = t.machine.legal[state]
        if not legal[0, int(c)]:
            return None
        _, state = t._step(torch.tensor([int(c)]), state)
    return bool(t.machine.legal[state][0, -1])


@pytest.mark.parametrize("name", PATTERNS)
def test_languages_are_those_of_regular_expressions(name):
    t = task(name)
    pattern = re.compile(PATTERNS[name])
    for n in range(7 if t.symbols < 4 else 6):
        for number in range(t.symbols**n):
            word = "".join(str(number // t.symbols**i % t.symbols) for i in range(n))
            right = pattern.fullmatch(word) is not None if "?!" not in PATTERNS[name] else (
                "000" not in word
            )  # fmt: skip
            assert bool(ends(t, word)) == right, word


def tomita_3(word: str) -> bool:
    return not re.search(r"(?<!1)1(11)*0(00)*(?!0)", word)


COUNTED = {
    "tomita_3": tomita_3,
    "tomita_5": lambda w: w.count("0") % 2 == w.count("1") % 2 == 0,
    "tomita_6": lambda w: (w.count("0") - w.count("1")) % 3 == 0,
}


@pytest.mark.parametrize("name", COUNTED)
def test_languages_that_count(name):
    for n in range(10):
        for number in range(2**n):
            word = f"{number:0{n}b}" if n else ""
            assert bool(ends(task(name), word)) == COUNTED[name](word), word


def test_rows_of_a_language_are_uniform():
    x = sample("tomita_4", 20000, 4).inputs
    seen, count = torch.unique(x, dim=0, return_counts=True)
    assert len(seen) == 13  # 16 words without 0000, 0001 and 1000
    assert (count / 20000 - 1 / 13).abs().max() < 6 * math.sqrt(1 / 13 / 20000)


def balanced(word: list[int], kinds: int) -> bool:
    counts = [0] * kinds
    for c in word:
        counts[c % kinds] += 1 if c < kinds else -1
    return not any(counts)


@pytest.mark.parametrize(("name", "kinds"), [("dyck_1", 1), ("shuffle_4", 4)])
def test_shuffles_end_where_all_is_balanced(name, kinds):
    x, y, _ = sample(name, 50, 30)
    for row, legal in zip(x.tolist(), y, strict=True):
        for t in range(30):
            assert bool(legal[t, -1]) == balanced(row[: t + 1], kinds)


def test_powers_are_words():
    for name, letters in (("anbn", 2), ("anbncn", 3), ("anbncndn", 4)):
        x, y, scored = sample(name, 40, 25)
        for row, legal, here in zip(x.tolist(), y, scored, strict=True):
            word = [c for c in row if c < letters]
            n = len(word) // letters
            assert word == [i for i in range(letters) for _ in range(n)]
            assert int(here.sum()) == len(word)
            assert legal[len(word) - 1].nonzero().flatten().tolist() == [letters]
            if n > 1:
                assert legal[0].nonzero().flatten().tolist() == [0, 1]


def complete(word: list[int]) -> bool:
    """Whether an expression is whole, by reading it with recursion."""

    def after(i: int) -> int:
        if i >= len(word):
            return len(word) + 1
        end = i + 1
        for _ in range(max(0, word[i] - 1)):
            end = after(end)
        return end

    return after(0) == len(word)


def test_boolean_expressions_end_when_they_are_whole():
    x, y, scored = sample("boolean_5", 60, 20)
    ended = 0
    for row, legal, here in zip(x.tolist(), y, scored, strict=True):
        for t in range(int(here.sum())):
            assert bool(legal[t, -1]) == complete(row[: t + 1])
        ended += bool(legal[:, -1].any())
    assert ended > 0


def test_a5_is_the_group_of_even_permutations():
    all_, table = even_permutations(), products()
    assert len(torch.unique(all_, dim=0)) == 60
    a, b = torch.meshgrid(torch.arange(60), torch.arange(60), indexing="ij")
    for point in range(5):
        assert torch.equal(all_[table[a, b], point], all_[a, all_[b, point]])
    assert len(torch.unique(table[7])) == 60
    assert not torch.equal(table, table.T)


def test_the_oracle_of_a5_is_exact_over_500_steps():
    batch = sample("a5", 8, 500)
    assert torch.equal(task("a5").solve(batch.inputs), batch.targets)


def test_parity_is_exact_over_ten_thousand_steps():
    batch = sample("parity", 2, 10_000)
    assert torch.equal(task("parity").solve(batch.inputs), batch.targets)


def test_listops_by_hand():
    t = task("listops")
    tokens = {**{str(i): i for i in range(10)}, "]": 14}
    tokens |= {f"[{name}": 10 + i for i, name in enumerate(OPERATORS)}
    cases = {
        "[MAX 2 9 [MIN 4 7 ] 0 ]": 9, "[SM 5 6 [MED 1 2 9 ] ]": 3, "[MED 1 8 3 6 ]": 4,
        "[MIN 3 [SM 9 9 9 ] ]": 3,
    }  # fmt: skip
    for text, answer in cases.items():
        x = torch.tensor([[tokens[word] for word in text.split()]])
        assert int(t.solve(x)[0, -1]) == answer
    assert value(2, [0, 9, 9]) == 9


def test_listops_rows_have_balanced_brackets():
    x, _, scored = sample("listops", 50, 48)
    opens, closes = ((x >= 10) & (x < 14)).long(), (x == 14).long()
    depth = (opens - closes).cumsum(1)
    last = scored.long().argmax(1)
    assert (depth.gather(1, last[:, None]) == 0).all()
    assert (x[torch.arange(48) > last[:, None]] == BLANK).all()
    assert (last >= 23).all()


def test_the_signature_of_a_known_path():
    """Around a square the area is 1; S^12 of a straight line is half the product."""
    t = task("signature_12")
    square = torch.tensor([[[1.0, 0], [0, 1], [-1, 0], [0, -1]]]).double()
    line = torch.tensor([[[1.0, 2.0], [1.0, 2.0]]]).double()
    torch.testing.assert_close(t.solve(square)[0, -1], torch.tensor([2.0]).double())
    torch.testing.assert_close(t.solve(line)[0, -1], torch.tensor([2 * 4.0]).double())
    u, y, _ = sample("signature_12", 16, 30)
    assert torch.equal((u * math.sqrt(32)).round(), (u * math.sqrt(32)).round().round())
    assert y.std() > 0.1


def test_narma_by_its_equation():
    u, y, _ = sample("narma10", 3, 40)
    u, y = u[..., 0], y[..., 0] / 10 + 0.4
    for t in range(20, 40):
        past = y[:, t - 10 : t].sum(1)
        new = 0.3 * y[:, t - 1] + 0.05 * y[:, t - 1] * past + 1.5 * u[:, t - 10] * u[:, t - 1] + 0.1
        torch.testing.assert_close(y[:, t], new)


def test_lorenz_stays_on_its_attractor():
    state = torch.tensor([1.0, 1.0, 25.0]).double()
    seen = []
    for _ in range(5000):
        state = step(state)
        seen.append(state)
    x, _, z = torch.stack(seen[500:]).unbind(1)
    assert -25 < float(x.min()) < -10 < 10 < float(x.max()) < 25
    assert 0 < float(z.min()) < float(z.max()) < 60
    assert float(step(torch.zeros(3).double()).abs().max()) == 0


def test_brackets_match():
    x, y, scored = sample("dyck", 30, 64)
    for row, answer, here in zip(x.tolist(), y.tolist(), scored.tolist(), strict=True):
        stack: list[int] = []
        for t, c in enumerate(row):
            if c < 8:
                stack.append(c)
            else:
                assert stack.pop() == c - 8
            assert len(stack) <= 10
            if here[t]:
                assert answer[t] == stack[-1]
                if t < 63:
                    assert row[t + 1] == 8 + answer[t]


def test_pathfinder_has_both_kinds_and_two_dots():
    x, y, _ = sample("pathfinder_16", 60, 256)
    assert ((x == 2).sum(1) == 2).all()
    assert 0 < int(y[:, -1].sum()) < 60


def errors(name: str, rows: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared errors of an oracle after each number of examples, and their standard errors."""
    t = task(name)
    batch = t.sample(rows, 28, Generator().manual_seed(0))
    wrong = (t.solve(batch.inputs) - batch.targets)[:, ::2, 0].square()
    return wrong.mean(0), wrong.std(0) / math.sqrt(rows)


def test_least_squares_has_its_known_error():
    """(d - k) / d after k examples, and 0 from k = d on."""
    found, spread = errors("icl_linear")
    known = (1 - torch.arange(14) / 5).clamp(min=0).double()
    assert ((found - known).abs()[:5] < 6 * spread[:5]).all()
    t = task("icl_linear")
    x, y = t.function(200, 14, 5, Generator().manual_seed(1))
    torch.testing.assert_close(t.predict(x[:, 9], x[:, :9], y[:, :9]), y[:, 9])


def test_sparse_functions_are_known_after_three_examples():
    found, spread = errors("icl_sparse", 1000)
    assert abs(found[0] - 1) < 6 * spread[0]
    assert (found[1:3].diff() < 0).all()
    t = task("icl_sparse")
    x, y = t.function(200, 14, 8, Generator().manual_seed(1))
    torch.testing.assert_close(t.predict(x[:, 6], x[:, :6], y[:, :6]), y[:, 6])


@pytest.mark.parametrize("name", ["icl_relu", "icl_tree"])
def test_estimates_by_covariance_have_their_known_error(name):
    """The error of a best linear estimate is its posterior variance, whatever the distribution."""
    t = task(name)
    prior = t.predict.__closure__[0].cell_contents
    x, y = t.function(4000, 9, 5, Generator().manual_seed(0))
    X, at = x[:, :8], x[:, 8:]
    cross = prior(at, X)
    inverse = torch.linalg.pinv(prior(X, X), hermitian=True, rtol=1e-10)
    variance = (prior(at, at) - cross @ inverse @ cross.mT)[:, 0, 0]
    wrong = (t.predict(at[:, 0], X, y[:, :8]) - y[:, 8]).square()
    gap = wrong - variance
    assert gap.mean().abs() < 6 * gap.std() / math.sqrt(len(gap))
    assert variance.mean() < 0.9


def test_parity_in_context_is_found():
    """One of 15 pairs; each wrong one fits k examples with probability 2^-k, and an error is at
    most 2."""
    found, spread = errors("icl_parity", 1000)
    assert abs(found[0] - 14 / 15) < 6 * spread[0]
    bound = 4 * 14 * 0.5 ** torch.arange(14).double()
    assert (found <= bound + 6 * spread).all()


def test_names_are_those_of_the_command_line():
    for name, t in tasks().items():
        assert name == t.name
        assert re.fullmatch(r"[a-z0-9_]+", name)
