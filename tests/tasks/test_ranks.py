"""A screen on several processes."""

import dataclasses
import json

from longstate.tasks import Plan, Run, Settings, screen
from longstate.tasks import _screen as screen_module
from tests.parallel.ranks import on_ranks

TINY = Settings(width=8, blocks=1, seconds=5, scale=0.003)
PLAN = Plan(("lstm",), ("parity", "delay"), 2, (0.001, 0.01), TINY)


class Noting:
    """Stands for a pool; notes who did which run, and trains nothing."""

    def __init__(self, workers, folder):
        self.folder = folder

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, runs, done):
        for run in runs:
            if run.task == "parity" and run.rate == 0.01:
                done(run, "RuntimeError: no luck")
                continue
            found = {"validation": 0.5, "seconds": 1.0, "steps": 2, "planned": 2, "parameters": 3,
                     "state_bytes": 4, "tests": [{"accuracy": run.rate, "whole_rows": 0.0}] * 3,
                     "run": dataclasses.asdict(run)}  # fmt: skip
            (self.folder / run.file()).write_text(json.dumps(found))
            done(run, None)


def on_rank(rank, size, folder):
    screen_module.Pool = Noting
    told, done = [], []
    run = Noting.run
    Noting.run = lambda self, runs, ended: (done.extend(runs), run(self, runs, ended))
    found = screen(PLAN, folder / "out", workers=1, show=told.append)
    assert found.errors == ["lstm on parity: RuntimeError: no luck"]
    assert bool(told) == (rank == 0)
    assert [p.total for p in told] == [6] * len(told)
    (folder / f"{rank}.json").write_text(json.dumps([run.file() for run in done]))


def test_ranks_share_the_runs_and_tell_of_all(tmp_path):
    on_ranks(2, on_rank, tmp_path)
    first, second = (set(json.loads((tmp_path / f"{r}.json").read_text())) for r in (0, 1))
    both = [Run(t, "lstm", 0.001, seed, TINY) for t in PLAN.tasks for seed in (0, 1)]
    both += [Run(t, "lstm", 0.01, 0, TINY) for t in PLAN.tasks]
    assert not first & second
    assert first | second == {run.file() for run in both}
    assert len(first) == len(second) == 3
    written = json.loads((tmp_path / "out" / "screen.json").read_text())
    assert len(written["errors"]) == 1
    assert [len(cell["each"][min(cell["each"])]) for cell in written["cells"]] == [2, 2]
