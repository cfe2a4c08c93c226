"""One run: the schedule of its learning rate, and the rows on which it is tested."""

from longstate.tasks import Run, Settings, task
from longstate.tasks._train import TEST, VALIDATION, execute

TINY = Settings(width=8, blocks=1, seconds=60, scale=0.01)


def test_the_rate_has_the_schedule_of_the_trainers(monkeypatch):
    told = []
    monkeypatch.setattr(
        "longstate.tasks._train.set_rate", lambda _, step, total: told.append((step, total))
    )
    execute(Run("parity", "lstm", 0.01, 0, TINY))
    planned = round(task("parity").budget.steps * TINY.scale)
    assert told == [(step, planned) for step in range(planned)]


def test_validation_and_test_are_on_other_rows(monkeypatch):
    seeds = {}

    def test(model, chosen, length, seed):
        seeds.setdefault(seed, []).append(length)
        return {"length": length, "rows": 1, "accuracy": 0.5, "whole_rows": 0.5}

    monkeypatch.setattr("longstate.tasks._train._test", test)
    execute(Run("parity", "lstm", 0.01, 3, TINY))
    budget = task("parity").budget
    assert seeds == {TEST + 3: [budget.length, *budget.longer], VALIDATION + 3: [budget.length]}
