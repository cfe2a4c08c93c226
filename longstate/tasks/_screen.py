"""A screen: every layer on every task, with a small sweep of learning rates, and several seeds.

For each pair of a task and a layer, all rates are tried with the first seed; the rate that is best
on rows for validation is used for the other seeds. Tests are on other rows. Outcomes are files, one
for each run, so that a screen that was interrupted goes on where it was. In a process group each
rank does a part of the runs, and all see one folder.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longstate._environment import environment
from longstate._files import write_whole
from longstate.errors import expect_whole
from longstate.tasks._candidates import Candidate
from longstate.tasks._held import held
from longstate.tasks._pool import Pool
from longstate.tasks._result import Cell, Plan, Screen
from longstate.tasks._settings import Run
from longstate.tasks._tasks import chance, task
from longstate.train import _ranks as ranks
from longstate.train._checkpoint import run_folder


@dataclass(frozen=True)
class Progress:
    """What a caller is told after each run.

    Args:
        run: the run that has ended; None at the beginning.
        accuracy: its accuracy for validation; None if it failed.
        done: runs that have ended, with those of earlier calls.
        total: runs of the whole screen.
        left: seconds until the end, an estimate.
    """

    run: Run | None
    accuracy: float | None
    done: int
    total: int
    left: float


def _silent(progress: Progress) -> None:
    """Shows nothing."""


def screen(
    plan: Plan,
    folder: str | Path,
    *,
    workers: int,
    show: Callable[[Progress], None] = _silent,
) -> Screen:
    """Run what is missing, and collect everything. Ctrl-C keeps the runs that have ended.

    Of several ranks the first writes `screen.json` and calls `show`.

    Args:
        plan: what to run.
        folder: for the outcomes, `runs/*.json`, and `screen.json`. Those of earlier calls count.
        workers: processes of this rank, with one thread each.
        show: called at the beginning and after each run.

    Raises:
        InputError: the plan cannot be run, or the folder cannot be written.
    """
    expect_whole("workers", workers)
    if ranks.rank():
        show = _silent
    folder, candidates = Path(folder), plan.candidates()
    with run_folder(folder):
        runs = folder / "runs"
        runs.mkdir(exist_ok=True)
        with Pool(workers, runs) as pool:
            state = _State(plan, candidates, runs, workers, show)
            try:
                state.do(pool, state.sweep())
                state.do(pool, state.repeats())
            finally:
                found = state.collect()
                if ranks.rank() == 0:
                    write_whole(folder / "screen.json", found.to_json())
    return found


def collected(plan: Plan, folder: str | Path) -> Screen:
    """What earlier calls of `screen` left in a folder."""
    state = _State(plan, plan.candidates(), Path(folder) / "runs", 1, _silent)
    return state.collect()


class _State:
    """The runs of a plan, and which of them have ended."""

    def __init__(
        self,
        plan: Plan,
        candidates: list[Candidate],
        folder: Path,
        workers: int,
        show: Callable[[Progress], None],
    ):
        self.plan, self.folder, self.workers, self.show = plan, folder, workers, show
        self.candidates = candidates
        pairs = len(candidates) * len(plan.tasks)
        self.total = pairs * (len(plan.rates) + plan.seeds - 1)
        self.errors: dict[Run, str] = {}
        self.began, self.new, self.done = time.monotonic(), 0, 0
        self.elsewhere: list[Run] = []  # what other ranks have not ended

    def sweep(self) -> list[Run]:
        return [run for c in self.candidates for t in self.plan.tasks for run in self._rates(t, c)]

    def repeats(self) -> list[Run]:
        found: list[Run] = []
        for c in self.candidates:
            for t in self.plan.tasks:
                best = self._best(t, c)
                found += [] if best is None else self._seeds(t, c, best)[1:]
        return found

    def do(self, pool: Pool, runs: list[Run]) -> None:
        missing = [run for run in runs if self.outcome(run) is None]
        self.done += len(runs) - len(missing)
        ranks.values_of_all(None)  # all have looked before anyone adds an outcome
        own = missing[ranks.rank() :: ranks.size()]
        self.elsewhere = [run for run in missing if run not in own]
        if not self.new:
            self._tell(None)
        pool.run(own, self._ended)
        for errors in ranks.values_of_all(self.errors):
            self.errors |= errors
        self._count(len(self.elsewhere))
        self.elsewhere = []

    def outcome(self, run: Run) -> dict[str, Any] | None:
        """The facts of a run that has ended."""
        try:
            return json.loads((self.folder / run.file()).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def collect(self) -> Screen:
        cells, missing = [], len(self.errors)
        for c in self.candidates:
            for t in self.plan.tasks:
                best = self._best(t, c)
                if best is None:
                    missing += 1
                    continue
                ended = [o for run in self._seeds(t, c, best) if (o := self.outcome(run))]
                missing += self.plan.seeds - len(ended)
                missing += sum(self.outcome(run) is None for run in self._rates(t, c))
                cells.append(_cell(t, c.name, best, ended))
        errors = [f"{r.layer} on {r.task}: {e}" for r, e in self.errors.items()]
        return Screen(self.plan, cells, errors, not missing, environment())

    def _rates(self, task: str, c: Candidate) -> list[Run]:
        return [self._run(task, c, rate, 0) for rate in self.plan.rates]

    def _seeds(self, task: str, c: Candidate, rate: float) -> list[Run]:
        return [self._run(task, c, rate, seed) for seed in range(self.plan.seeds)]

    def _run(self, task: str, c: Candidate, rate: float, seed: int) -> Run:
        return Run(task, c.name, rate, seed, self.plan.settings, c.version)

    def _best(self, task: str, c: Candidate) -> float | None:
        """The rate with the best accuracy for validation; None if no run has ended."""
        found = [
            (outcome["validation"], -run.rate)
            for run in self._rates(task, c)
            if (outcome := self.outcome(run)) and outcome["validation"] is not None
        ]
        return -max(found)[1] if found else None

    def _ended(self, run: Run, error: str | None) -> None:
        if error is not None:
            self.errors[run] = error
        left = [run for run in self.elsewhere if self.outcome(run) is None]
        self._count(1 + len(self.elsewhere) - len(left))
        self.elsewhere = left
        self._tell(run)

    def _count(self, ended: int) -> None:
        self.new, self.done = self.new + ended, self.done + ended

    def _tell(self, run: Run | None) -> None:
        each = self.plan.settings.seconds / self.workers / ranks.size()
        if self.new:
            each = (time.monotonic() - self.began) / self.new
        outcome = None if run is None else self.outcome(run)
        accuracy = None if outcome is None else outcome["validation"]
        self.show(Progress(run, accuracy, self.done, self.total, each * (self.total - self.done)))


def _cell(name: str, layer: str, rate: float, outcomes: list[dict[str, Any]]) -> Cell:
    chosen = task(name)
    length = chosen.budget.length

    def values(i: int, key: str = "accuracy") -> list[float]:
        found = [o["tests"][i][key] for o in outcomes]
        return [v if v is not None else -1.0 for v in found]

    lengths = (length, *chosen.budget.longer)
    found = [o["tests"][0]["accuracy"] or 0.0 for o in outcomes]
    bits = held(chosen, max(found), length)
    if bits is not None:  # a bound for the accuracy itself; this one is of some rows
        bits = replace(bits, kind="estimate", scope="the best seed's accuracy on test rows")
    return Cell(
        task=name,
        layer=layer,
        rate=rate,
        accuracy=statistics.fmean(values(0)),
        spread=max(found) - min(found),
        longer={n: statistics.fmean(values(i)) for i, n in enumerate(lengths) if i},
        each={n: values(i) for i, n in enumerate(lengths)},
        rows=None if chosen.answer == "numbers" else statistics.fmean(values(0, "whole_rows")),
        chance=chance(chosen, length),
        demand=chosen.demand(length),
        held=bits,
        state_bytes=outcomes[0]["state_bytes"],
        parameters=outcomes[0]["parameters"],
        seconds=statistics.fmean(o["seconds"] for o in outcomes),
        cut=sum(o["steps"] < o["planned"] for o in outcomes),
        runs=len(outcomes),
    )
