"""A screen: what is trained, what is kept, and how mistakes are said."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from longstate.cli import main
from longstate.errors import InputError
from longstate.memory import demand_of_copy
from longstate.tasks import (
    DEFAULT,
    LAYERS,
    Plan,
    Run,
    Settings,
    collected,
    held,
    screen,
    task,
    tasks,
)  # fmt: skip
from longstate.tasks import _screen as screen_module
from longstate.tasks._candidates import candidate
from longstate.tasks._train import build, execute

OWN = "tests.tasks.own_layers"
ROOT = Path(__file__).resolve().parents[2]
TINY = Settings(width=8, blocks=1, seconds=5, scale=0.01)


def test_every_layer_of_the_package_can_be_trained():
    from longstate import layers
    from longstate.layers import Layer

    named = {n.lower() for n, c in vars(layers).items()
             if isinstance(c, type) and issubclass(c, Layer) and c is not Layer}  # fmt: skip
    assert {name.partition(":")[0] for name in LAYERS} == named
    t = task("recall")
    x = t.sample(2, 20).inputs
    for name in LAYERS:
        model = build(t, candidate(name), Settings(width=16, blocks=2))
        y, state = model(x)
        assert y.shape == (2, 20, t.answers)
        assert len(state) == 2


@pytest.mark.parametrize("name", ["parity", "anbn", "icl_linear"])
def test_a_run_has_all_facts(name):
    found = execute(Run(name, "lstm", 0.003, 1, TINY))
    t = task(name)
    assert found["steps"] == found["planned"] == round(t.budget.steps / 100)
    assert [test["length"] for test in found["tests"]] == [t.budget.length, *t.budget.longer]
    assert found["state_bytes"] == 2 * 64 * 4
    assert math.isfinite(found["validation"])
    assert (found["tests"][0]["whole_rows"] is None) == (t.answer == "numbers")
    json.dumps(found, allow_nan=False)
    again = execute(Run(name, "lstm", 0.003, 1, TINY))
    assert {**again, "seconds": 0, "training_seconds": 0} == {
        **found, "seconds": 0, "training_seconds": 0,
    }  # fmt: skip


def test_training_learns_a_delay():
    """A tenth of the steps explains a part of it; a model after one step explains none."""
    easy = replace(Settings(width=32), scale=0.1)
    learned = execute(Run("delay", "s4d", 0.01, 0, easy))["tests"][0]["accuracy"]
    fresh = execute(Run("delay", "s4d", 0.01, 0, replace(easy, scale=1e-4)))
    assert fresh["tests"][0]["accuracy"] < 0 < learned


def test_a_run_ends_at_its_time_and_at_a_no():
    found = execute(Run("parity", "lstm", 0.003, 0, Settings(width=8, seconds=0.01)))
    assert 0 < found["steps"] < found["planned"]
    assert execute(Run("parity", "lstm", 0.003, 0, TINY), lambda: False) is None


def test_other_settings_are_other_files():
    run = Run("parity", "lstm", 0.003, 0, TINY)
    others = [replace(run, seed=1), replace(run, rate=0.01), replace(run, version="x"),
              replace(run, settings=replace(TINY, width=16))]  # fmt: skip
    assert len({r.file() for r in (run, *others)}) == 5
    assert "/" not in Run("parity", "a.b:C", 0.003, 0).file()


def test_bits_that_a_state_held():
    recall = task("recall")
    assert held(recall, 1.0, 20).bits == demand_of_copy(4, 8).bits
    assert held(recall, 1 / 8, 20).bits == held(recall, 0.05, 20).bits == 0
    values = [held(recall, a / 10, 20).bits for a in range(2, 11)]
    assert values == sorted(values)
    assert held(task("delay"), 0.99, 64).bits == pytest.approx(16 * math.log2(10))
    assert held(task("narma10"), 0.99, 64) is None
    assert held(task("dyck"), 1.0, 64).kind == "estimate"
    assert held(task("parity"), 1.0, 40).kind == "lower_bound"


@pytest.mark.parametrize("name", [n for n in tasks() if not n.startswith("icl")])
def test_no_state_held_more_than_the_task_needs(name):
    t = task(name)
    found = held(t, 0.99 if t.answer == "numbers" else 1.0, t.budget.length)
    if found is not None:
        needed = t.demand(t.budget.length).bits
        assert found.bits <= needed or found.bits == pytest.approx(needed)


def test_a_screen_runs_once_and_collects(tmp_path):
    plan = Plan((f"{OWN}:Running", "lstm"), ("parity", "delay"), 2, (0.001, 0.01), TINY)
    told = []
    found = screen(plan, tmp_path / "out", workers=1, show=told.append)
    assert found.complete
    assert not found.errors
    assert [(c.layer, c.task) for c in found.cells] == [
        (layer, name) for layer in plan.layers for name in plan.tasks
    ]
    assert [p.done for p in told] == list(range(13))
    assert {p.total for p in told} == {12}
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").iterdir()}
    assert len(files) == 12
    best = found.cells[0]
    assert {c.held.kind for c in found.cells if c.held is not None} == {"estimate"}
    name = "parity-tests_tasks_own_layers_Running"
    tried = {
        rate: json.loads(p.read_text())["validation"]
        for p in files
        for rate in plan.rates
        if p.name.startswith(f"{name}-{rate:g}-0-")
    }
    assert tried[best.rate] == max(tried.values())
    tests = [
        json.loads(p.read_text())["tests"]
        for seed in range(plan.seeds)
        for p in files
        if p.name.startswith(f"{name}-{best.rate:g}-{seed}-")
    ]
    assert best.each == {
        test[0]["length"]: [t["accuracy"] for t in test] for test in zip(*tests, strict=True)
    }
    assert json.loads((tmp_path / "out" / "screen.json").read_text())["complete"] is True
    again = []
    same = screen(plan, tmp_path / "out", workers=1, show=again.append)
    assert same.to_json().partition('"cells"')[2] == found.to_json().partition('"cells"')[2]
    assert all(p.run is None for p in again)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").iterdir()} == files
    assert not collected(replace(plan, seeds=3), tmp_path / "out").complete


COMMAND = ["tasks", "run", "--layers", "lstm", "--tasks", "parity", "--seeds", "1", "--width", "8",
           "--rates", "0.001,0.002,0.003", "--scale", "0.3", "--workers", "1"]  # fmt: skip


def started(folder: Path) -> subprocess.Popen:
    """The command, after its first run has ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "longstate", *COMMAND, "--out", str(folder)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(1200):
        if list(folder.glob("runs/*.json")):
            return process
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("no run ended")


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_screen_goes_on(how, tmp_path, capsys):
    process = started(tmp_path)
    workers = children(process.pid)
    assert workers
    os.kill(process.pid, how)
    out, err = process.communicate()
    first = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*.json")}
    assert 0 < len(first) < 3
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "Not all runs have ended" in out
        assert err.endswith("the same command goes on.\n")
    for _ in range(600):
        if all(map(gone, workers)):
            break
        time.sleep(0.1)
    assert all(map(gone, workers))
    assert main([*COMMAND, "--out", str(tmp_path)]) == 0
    after = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*.json")}
    assert len(after) == 3
    assert first.items() <= after.items()
    out, err = capsys.readouterr()
    assert f"{len(first)}/3 " in err
    assert "The report is" in " ".join(out.split())
    assert (tmp_path / "report.html").exists()


def test_a_run_that_fails_is_said_and_tried_again(tmp_path, monkeypatch):
    class Failing:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def run(self, runs, done):
            for run in runs:
                done(run, "RuntimeError: no luck")

    monkeypatch.setattr(screen_module, "Pool", Failing)
    plan = Plan(("lstm",), ("parity",), 1, (0.001,), TINY)
    found = screen(plan, tmp_path, workers=1)
    assert found.errors == ["lstm on parity: RuntimeError: no luck"]
    assert not found.complete
    assert not list((tmp_path / "runs").iterdir())


BROKEN = {
    "NoState": "a call must return y and a state; got Tensor",
    "Narrow": r"y must have the shape of u, \(2, 12, 8\); got \(2, 12, 1\)",
    "Future": "its output depends on later samples",
    "Forgets": "two pieces with the state between them differ",
    "Infinite": "y is not finite",
    "Raises": "it raised RuntimeError: first second;",
    "Plain": "it has no d_model; derive it from longstate.layers.Layer",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_layer_that_breaks_the_contract_is_refused(name, tmp_path):
    plan = Plan((f"{OWN}:{name}",), ("parity",), settings=TINY)
    with pytest.raises(InputError, match=f"{name}' breaks the contract of a layer: {BROKEN[name]}"):
        screen(plan, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


MISTAKES = {
    "--layers mambo": "there is no layer 'mambo'; did you mean 'mamba'",
    "--layers lstm --tasks recal": "there is no task 'recal'; did you mean 'recall'",
    "--layers nowhere:X": "the module 'nowhere' of the layer 'nowhere:X' cannot be imported: No",
    f"--layers {OWN}:Runing": f"the module '{OWN}' has no 'Runing'; did you mean 'Running'",
    f"--layers {OWN}:number": f"{OWN}:number must be a class or a function",
    "--layers lstm --seeds 0": "seeds must be a whole number of at least 1; got 0",
    "--layers lstm --rates 2": "a learning rate must be above 0 and below 1; got 2.0",
    "--layers lstm --rates ,": "a screen needs at least one layer, one task and one learning rate",
    "--layers lstm --width 0": "width must be a whole number of at least 1; got 0",
    "--layers lstm --seconds 0": "seconds must be above 0; got 0.0",
    "--layers lstm --workers 0": "workers must be a whole number of at least 1; got 0",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_are_one_sentence(arguments, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["tasks", "run", *arguments.split(), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {MISTAKES[arguments]}")
    assert said.count("\n") == 1
    assert not out.exists()


def test_the_list(capsys):
    assert main(["tasks", "list", "--json"]) == 0
    found = {t["name"]: t for t in json.loads(capsys.readouterr().out)}
    assert list(found) == list(tasks())
    assert set(DEFAULT) <= set(found)
    assert found["parity"]["bits"] == 1
    assert found["parity"]["chance_kind"] == "exact"
    assert main(["tasks", "list"]) == 0
    assert "The simplest use of memory" in capsys.readouterr().out
