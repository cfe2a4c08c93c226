"""Every task: its oracle is right, its rows are as described, and memory is needed."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator

from longstate.errors import InputError
from longstate.tasks import Batch, accuracy, chance, memoryless, task, tasks, whole_rows
from longstate.tasks.recall import Recall

EVERY = list(tasks())
EXACT = [n for n in EVERY if not n.startswith("icl_") or n == "icl_retrieval"]


def rows(name: str, seed: int = 0, batch: int = 32, length: int | None = None) -> Batch:
    t = task(name)
    return t.sample(batch, length or t.budget.length, Generator().manual_seed(seed))


def lengths(name: str) -> list[int]:
    t = task(name)
    return sorted({t.least(), t.budget.length, *t.budget.longer[:1]} - {1024})


@pytest.mark.parametrize("name", EXACT)
def test_the_oracle_is_right_at_all_lengths(name):
    t = task(name)
    for length in lengths(name):
        batch = rows(name, length=length, batch=8 if length > 500 else 32)
        answers = t.solve(batch.inputs)
        if t.answer == "numbers":
            torch.testing.assert_close(answers[batch.scored], batch.targets[batch.scored])
        else:
            assert accuracy(t, answers, batch) == 1
            assert whole_rows(t, answers, batch) == 1


@pytest.mark.parametrize("name", EVERY)
def test_rows_are_as_described(name):
    t = task(name)
    x, y, scored = rows(name)
    shape = (32, t.budget.length)
    assert scored.shape == shape
    assert scored.dtype == torch.bool
    assert scored.any()
    if t.symbols:
        assert x.shape == shape
        assert x.dtype == torch.long
        assert int(x.min()) >= 0
        assert int(x.max()) < t.symbols
    else:
        assert x.shape == (*shape, t.features)
        assert x.isfinite().all()
    if t.answer == "symbol":
        assert y.shape == shape
        assert int(y[scored].min()) >= 0
        assert int(y[scored].max()) < t.answers
    else:
        assert y.shape == (*shape, t.answers)
        assert y.dtype == torch.bool if t.answer == "set" else y.is_floating_point()


@pytest.mark.parametrize("name", EVERY)
def test_rows_follow_the_seed(name):
    t = task(name)
    first, same = rows(name, 3), rows(name, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    if name not in ("tomita_1", "tomita_2", "aa_star", "aaaa_star", "abab_star"):  # one word each
        assert not torch.equal(first.inputs, rows(name, 4).inputs)
    assert "\n" not in t.why
    assert len(t.why) > 60


def luck(name: str, n: int) -> float:
    """Six standard errors from n rows; positions of one row may depend on each other."""
    t = task(name)
    spread = 1.0 if t.answer == "numbers" else math.sqrt(t.chance * (1 - t.chance))
    return 6 * spread / math.sqrt(n)


KNOWN = [n for n in EVERY if task(n).chance is not None]


@pytest.mark.parametrize("name", KNOWN)
def test_without_memory_nothing_beats_chance(name):
    n = 200 if name.startswith("pathfinder") else 4000
    found = memoryless(task(name), rows(name, 1, n))
    assert abs(found - task(name).chance) < luck(name, n // 2)


def test_a_leak_into_the_input_is_seen():
    class Leaky(Recall):
        def _draw(self, batch, length, generator):
            x, y, scored = super()._draw(batch, length, generator)
            return Batch(torch.where(scored, self.keys + y, x), y, scored)

    t = task("recall")
    leaky = Leaky(**{name: getattr(t, name) for name in t.__dataclass_fields__})
    batch = leaky.sample(4000, 20, Generator().manual_seed(1))
    assert memoryless(leaky, batch) > t.chance + luck("recall", 2000)


@pytest.mark.parametrize("name", ["recall", "parity", "dyck", "shuffle_2", "a5", "narma10"])
def test_a_wrong_target_is_seen(name):
    t, batch = task(name), rows(name)
    first = int(batch.scored[0].nonzero()[0])
    wrong = batch.targets.clone()
    if t.answer == "numbers":
        wrong[0, first] += 1
    else:
        wrong[0, first] = (
            ~wrong[0, first] if t.answer == "set" else 1 - wrong[0, first].clamp(max=1)
        )
    spoiled = replace_targets(batch, wrong)
    assert accuracy(t, t.solve(batch.inputs), spoiled) < 1


def replace_targets(batch: Batch, targets: torch.Tensor) -> Batch:
    return batch._replace(targets=targets)


@pytest.mark.parametrize("name", EVERY)
def test_demands_have_a_kind_and_grow(name):
    t = task(name)
    short, long = (t.demand(n) for n in (t.budget.length, 4 * t.budget.length))
    assert short.kind in ("exact", "lower_bound", "estimate")
    assert 0 <= short.bits <= long.bits


def test_demands_in_numbers():
    bits = {name: task(name).demand(task(name).budget.length).bits for name in EVERY}
    expected = {
        "recall": math.log2(math.comb(8, 4)) + 12, "recall_6": math.log2(math.comb(16, 6)) + 24,
        "selective_copy": 24, "copy": 17 * 3, "induction": math.log2(15), "parity": 1,
        "flip_flop": 1, "counting": math.log2(5), "a5": math.log2(60), "d_4": math.log2(5),
        "tomita_1": 0, "tomita_3": 2, "aaaa_star": 2, "dyck_1": math.log2(51),
        "delay": 16 * math.log2(10), "anbn": math.log2(26 + 25),
    }  # fmt: skip
    assert {name: bits[name] for name in expected} == pytest.approx(expected)


def test_chance_is_estimated_where_it_is_not_known():
    assert chance(task("recall"), 20) == 1 / 8
    assert chance(task("tomita_1"), 20) == 1
    assert 0.3 < chance(task("aa_star"), 51) < 0.7


def test_errors_are_sentences():
    with pytest.raises(InputError, match="there is no task 'parit'; did you mean 'parity'"):
        task("parit")
    with pytest.raises(InputError, match="length of at least 9; got 5"):
        task("recall").sample(2, 5)
    with pytest.raises(InputError, match="square number of pixels as length; got 120"):
        task("pathfinder_16").sample(2, 120)
    with pytest.raises(InputError, match="batch must be a whole number"):
        task("parity").sample(0, 5)


def test_a_task_can_be_changed():
    harder = replace(task("recall"), pairs=6)
    batch = harder.sample(16, 30, Generator().manual_seed(0))
    assert accuracy(harder, harder.solve(batch.inputs), batch) == 1
