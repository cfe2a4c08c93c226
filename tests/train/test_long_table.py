"""A file past memory gives the table, and the forecasts, of the same file in memory."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from longstate.cli import main
from longstate.errors import InputError
from longstate.models import ForecastSpec
from longstate.train import Forecaster, Size, Training, _long_grid, read_recent, read_table
from longstate.train import _long_series as series
from longstate.train import _long_table as long
from longstate.train._read_table import Roles, training_table
from longstate.train._time_step import Timing
from longstate.train._windows import Windows
from tests.train.helpers import write_arrow

ROWS = 1500
ROLES = Roles(("y", "z"), ("load",), ("plan",))


def made(rows: int = ROWS, **changes) -> pd.DataFrame:
    """Hours with gaps: a missing row, rows without a target, columns that begin late, a future."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "when": pd.date_range("2021-03-01", periods=rows, freq="h"),
            "y": np.sin(np.arange(rows) * 2 * np.pi / 24) + 0.1 * draw.standard_normal(rows),
            "load": draw.standard_normal(rows).round(3),
            "z": draw.integers(0, 9, rows).astype(float),
            "plan": draw.standard_normal(rows),
            "other": "text",
        }
    )
    frame.loc[:3, "y"] = np.nan  # left out
    frame.loc[:6, "load"] = frame.loc[:200, "plan"] = np.nan
    frame.loc[[40, 41, 99, 100, 101, 707], ["y", "z"]] = np.nan
    frame.loc[500:520, "z"] = frame.loc[90:110, "load"] = np.nan  # over the end of a part
    frame.loc[rows - 30 :, ["y", "z", "load"]] = np.nan  # the future
    frame.loc[rows - 4, "plan"] = np.nan
    return frame.drop(index=[300, 301, 650]).assign(**changes).reset_index(drop=True)


@pytest.fixture
def small(monkeypatch):
    """Small files count as large, and are read in small parts."""
    monkeypatch.setattr(long, "LARGE", 1)
    monkeypatch.setattr(long, "PIECE", 97)


def written(frame, tmp_path, form):
    path = tmp_path / f"data.{form}"
    if form == "csv":
        frame.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
        if "parquet" in form:
            frame.to_parquet(path, index=form == "index.parquet", row_group_size=200)
        else:
            write_arrow(frame, path, stream=form == "stream", rows=300)
    return path


def assert_same_tables(mapped, whole):
    for field in fields(whole):
        found, expected = getattr(mapped, field.name), getattr(whole, field.name)
        if field.name == "some":
            assert set(found) == set(range(whole.rows))
        elif isinstance(expected, np.ndarray):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
        elif isinstance(expected, pd.Index):
            pd.testing.assert_index_equal(found, expected, exact="equiv", check_names=False)
        else:
            assert found == expected, field.name
    assert mapped.digest(mapped.rows) == whole.digest(whole.rows)
    assert mapped.digest(700) == whole.digest(700)


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow", "stream"])
@pytest.mark.parametrize("kind", ["hours", "zone", "seconds", "jitter", "numbers", "nothing"])
def test_table_of_a_file_is_that_in_memory(form, kind, tmp_path, small):
    frame = made()
    roles, timing = replace(ROLES, time="when"), Timing()
    if kind == "zone":
        timing = Timing(zone="Europe/Berlin")
        frame = frame[frame["when"].dt.date != pd.Timestamp("2021-03-28").date()]
    elif kind == "seconds":
        frame["when"] = 1614556800 + 3600 * np.arange(len(frame))
    elif kind == "jitter":
        frame["when"] += pd.to_timedelta((np.arange(len(frame)) % 5 == 0).astype(int), unit="s")
    elif kind == "numbers":
        frame["when"] = 0.25 * np.arange(len(frame))
    elif kind == "nothing":
        frame, roles = frame.drop(columns="when"), ROLES
    path = written(frame, tmp_path, form)
    whole, notes = training_table(read_table(path), roles, timing)
    for _ in range(2):  # written, and opened again
        found = long.table_of_file(path, roles, timing, tmp_path / "run")
        assert isinstance(found.table.target, np.memmap)
        assert_same_tables(found.table, whole)
        assert found.notes == notes
        assert found.before + len(found.tail) == len(frame)


def test_times_in_the_index_of_a_parquet_file(tmp_path, small):
    path = written(made().set_index("when"), tmp_path, "index.parquet")
    found = long.table_of_file(path, ROLES, Timing(), tmp_path / "run").table
    assert isinstance(found.target, np.memmap)
    assert_same_tables(found, training_table(read_table(path), ROLES, Timing())[0])


def test_what_the_first_rows_cannot_decide_is_read_into_memory(tmp_path, small, monkeypatch):
    monkeypatch.setattr(_long_grid, "MOST_ADDED", 500)
    uneven = made()
    uneven.loc[900:, "when"] += pd.Timedelta("11min")
    empty = made(load=np.nan)
    panel = made(unique_id="a").rename(columns={"when": "ds"})
    far = made()
    far.loc[len(far) - 1, "when"] += pd.Timedelta("30D")
    for name, frame, roles in (
        ("uneven", uneven, replace(ROLES, time="when")),
        ("far", far, replace(ROLES, time="when")),
        ("empty", empty, replace(ROLES, time="when")),
        ("panel", panel, replace(ROLES, id="unique_id", time="ds")),
    ):
        path = tmp_path / f"{name}.csv"
        frame.to_csv(path, index=False)
        results = []
        for run in (
            lambda p=path, r=roles: training_table(read_table(p), r, Timing())[0].digest(50),
            lambda p=path, r=roles: long.table_of_file(
                p, r, Timing(), tmp_path / "run"
            ).table.digest(50),
        ):
            try:
                results.append(run())
            except InputError as e:
                results.append(str(e))
        assert results[0] == results[1], name
        if name in ("far", "panel"):  # the others are refused
            found = long.table_of_file(path, roles, Timing(), tmp_path / "run")
            assert found.table.some is None, name


def test_a_remark_says_that_a_file_is_in_memory(tmp_path, small):
    path = tmp_path / "panel.csv"
    made(unique_id="a").rename(columns={"when": "ds"}).to_csv(path, index=False)
    roles = replace(ROLES, id="unique_id", time="ds")
    found = long.table_of_file(path, roles, Timing(), tmp_path / "run")
    assert found.notes[-1] == long.WHOLE.format(path)


def test_an_error_names_the_line_of_the_file(tmp_path, small):
    frame = made().astype({"load": object})
    frame.loc[1200, "load"] = "much"
    path = written(frame, tmp_path, "csv")
    with pytest.raises(InputError, match="column 'load' holds 'much' in line 1202"):
        long.table_of_file(path, replace(ROLES, time="when"), Timing(), tmp_path / "run")
    with pytest.raises(InputError, match=r"is past memory; out= gives a folder"):
        Forecaster(horizon=4).fit(path, "y")


def test_files_of_another_source_are_written_anew(tmp_path, small):
    roles, run = replace(ROLES, time="when"), tmp_path / "run"
    first = long.table_of_file(written(made(), tmp_path, "csv"), roles, Timing(), run).table
    before = first.digest(first.rows)
    path = written(made(z=np.arange(ROWS - 3.0)), tmp_path, "csv")
    second = long.table_of_file(path, roles, Timing(), run).table
    assert second.digest(second.rows) != before
    facts = run / "data" / "table.json"
    facts.write_text(facts.read_text()[:-20])  # damaged
    third = long.table_of_file(path, roles, Timing(), run).table
    assert third.digest(third.rows) == second.digest(second.rows)
    assert json.loads(facts.read_text())["rows"] == third.rows
    assert not list((run / "data").glob(".*part"))


def settings(epochs=2):
    training = Training(epochs=epochs, batch_size=16, windows_per_epoch=64, patience=9)
    return {"window": 30, "size": Size(d_model=4, n_layers=1, d_state=4), "training": training}


def test_forecasts_of_a_file_are_those_of_memory(tmp_path, small):
    frame = made().drop(columns=["z", "load", "plan"])
    path = written(frame, tmp_path, "csv")
    names = {"target": "y", "time": "when"}
    whole = Forecaster(6, **settings()).fit(read_table(path), **names)
    mapped = Forecaster(6, **settings()).fit(path, **names, out=tmp_path / "run")
    assert mapped.facts["seen_digest"] == whole.facts["seen_digest"]
    assert mapped.choice.parts[1] == whole.choice.parts[1]  # line and ridge see all windows
    assert [p.name for p in mapped.choice.parts] == [p.name for p in whole.choice.parts]
    assert mapped.predict().attrs["notes"] == whole.predict().attrs["notes"]
    assert mapped.predict()["when"].tolist() == whole.predict()["when"].tolist()
    for part in ("line", "scale"):
        mine, theirs = (getattr(one.model, part).state_dict() for one in (mapped, whole))
        assert_close(mine, theirs, rtol=0, atol=0)
    assert mapped.evaluate(mapped.tail).windows == whole.evaluate(read_table(path)).windows


KILLED = """
import os, signal, sys
from longstate.train import _long_table as long
long.LARGE, long.PIECE = 1, 97
from longstate.train import Forecaster
from tests.train.test_long_table import settings
def show(progress):
    if progress.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
path, out = sys.argv[1:]
Forecaster(6, **settings(3)).fit(path, "y", time="when", out=out, show=show)
"""


def test_a_training_that_was_killed_goes_on_to_the_same_bits(tmp_path, small):
    path = written(made()[["when", "y"]], tmp_path, "csv")
    command = [sys.executable, "-c", KILLED, str(path), str(tmp_path / "run")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    data = tmp_path / "run" / "data" / "target"
    written_at = data.stat().st_mtime_ns
    found, whole = (
        Forecaster(6, **settings(3)).fit(path, "y", time="when", out=tmp_path / name)
        for name in ("run", "undisturbed")
    )
    assert data.stat().st_mtime_ns == written_at
    assert_close(found.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_a_full_disk_leaves_no_half_of_a_table(tmp_path, small, monkeypatch):
    path = written(made()[["when", "y"]], tmp_path, "csv")

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="cannot be written: No space left on device"):
            Forecaster(6, **settings()).fit(path, "y", time="when", out=tmp_path / "run")
    assert not list((tmp_path / "run" / "data").iterdir())


def test_the_command_reads_a_file_past_memory(tmp_path, small):
    path = written(made()[["when", "y"]], tmp_path, "csv")
    words = ["train", "forecast", path, "--horizon", 6, "--window", 30, "--epochs", 1]
    words += ["--d-model", 4, "--n-layers", 1, "--d-state", 4, "--out", tmp_path / "run"]
    assert main(list(map(str, words))) == 0
    facts = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert facts["windows"] > 250
    assert main(["predict", str(tmp_path / "run"), str(path), "-o", str(tmp_path / "f.csv")]) == 0
    found = Forecaster.load(tmp_path / "run" / "model.safetensors")
    expected = found.predict(read_table(path))
    forecast = pd.read_csv(tmp_path / "f.csv")
    np.testing.assert_allclose(forecast["y"], expected["y"])
    assert len(read_recent(path, found.model.spec)) < len(read_table(path))
    assert (tmp_path / "run" / "data" / "target").stat().st_size == 8 * (ROWS - 30 - 4)


def test_windows_of_a_long_series(tmp_path, small, monkeypatch):
    monkeypatch.setattr(series, "WINDOWS", 100)
    monkeypatch.setattr(long, "SOME", 200)
    frame = made()
    frame.loc[600:700, ["y", "z"]] = np.nan
    path = written(frame, tmp_path, "csv")
    roles = replace(ROLES, time="when")
    mapped = long.table_of_file(path, roles, Timing(), tmp_path / "run").table
    whole, _ = training_table(read_table(path), roles, Timing())
    spec = ForecastSpec(
        targets=("y", "z"), covariates=("load",), known=("plan",), time="when",
        calendar=whole.calendar, cycles=("day", "week"), window=30, horizon=6,
        season=24, quantiles=(),
    )  # fmt: skip
    few, all_ = Windows(mapped, spec, 0, 1000), Windows(whole, spec, 0, 1000)
    assert 50 < len(few) < 70
    assert set(few.origins) <= set(all_.origins)
    expected = all_.at(few.origins)
    for mine, theirs in zip(few.at(few.origins).window, expected.window, strict=True):
        assert (mine is None) == (theirs is None)
        if isinstance(mine, torch.Tensor):
            assert_close(mine, theirs, rtol=0, atol=0)
    one = few.drawn(np.random.default_rng([0, 1]), 500)
    again = few.drawn(np.random.default_rng([0, 1]), 500)
    assert np.array_equal(one, again)
    assert set(one) <= set(all_.origins)
    assert len(set(one)) > 200  # not only those that stand for all
    low, high = mapped.target.argmin(0), mapped.target.argmax(0)
    assert {*low, *high} <= set(mapped.some)
    assert len(mapped.some) <= 200 + 8
