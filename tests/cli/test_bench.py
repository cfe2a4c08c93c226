"""`longstate bench`: JSON alone on standard output, the table on standard error."""

import inspect
import json
import signal
import sys

import pytest

from longstate.bench import Settings, run
from longstate.bench import _timing as timing
from longstate.cli import bench, main
from longstate.ops.short_conv import reference

TINY = ["--length", "40", "--d-model", "8", "--threads", "1", "--seconds", "1e-4"]
ROW = {
    "kind", "name", "mode", "shapes", "error", "tokens", "bytes", "products", "wrong", "note",
    "ms", "ms_low", "ms_high", "repeats", "tokens_per_s", "bandwidth_fraction", "product_fraction",
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setattr(timing, "_ARRAY", 2**20)
    monkeypatch.setattr(timing, "_LARGEST", 512)


def test_one_json_line_and_a_table(capfd):
    arguments = ["bench", *TINY, "--ops", "chunk_scan, short_conv", "--layers", "mamba"]
    assert main(arguments) == 0
    out, err = capfd.readouterr()
    assert out.endswith("\n")
    assert len(out.splitlines()) == 1
    found = json.loads(out)
    assert list(found) == [
        "environment", "settings", "device_name", "limits", "rows", "complete",
    ]  # fmt: skip
    assert found["settings"] == {
        "batch": 1, "length": 40, "d_model": 8, "dtype": "float32", "device": "cpu", "threads": 1,
        "seconds": 1e-4,
    }  # fmt: skip
    assert set(found["limits"]) == {"products_gflops", "bandwidth_gbs", "transfers_gbs", "moved"}
    assert found["complete"] is True
    assert [(row["name"], row["mode"]) for row in found["rows"]] == [
        ("short_conv", "forward"), ("short_conv", "forward+backward"),
        ("chunk_scan", "forward"), ("chunk_scan", "forward+backward"),
        ("Mamba", "forward"), ("Mamba", "forward+backward"), ("Mamba", "step"),
    ]  # fmt: skip
    for row in found["rows"]:
        assert set(row) == ROW
        assert row["ms_low"] <= row["ms"] <= row["ms_high"]
        assert row["tokens_per_s"] == pytest.approx(1e3 * row["tokens"] / row["ms"])
    for word in ("GFLOP/s", "GB/s", "1 thread,", "PyTorch", "chunk_scan", "Mamba", "step"):
        assert word in err


def test_on_a_terminal_json_is_printed_only_on_request(capfd, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    arguments = ["bench", *TINY, "--ops", "short_conv"]
    assert main(arguments) == 0
    assert capfd.readouterr().out == ""
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["complete"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ops", "short_con"], "there is no op 'short_con' to measure; did you mean 'short_c"),
        (["--layers", "S4,mambo"], "there is no layer 'mambo' to measure; did you mean 'Mamba"),
        (["--layers", "S4,"], "there is no layer '' to measure; there is 'S4', "),
        (["--length", "0"], "length must be a whole number of at least 1; got 0"),
        (["--threads", "0"], "threads must be from 1 to"),
        (["--seconds", "-1"], "seconds must be above 0 and at most 3600; got -1"),
        (["--dtype", "bf16"], "there is no dtype 'bf16'; did you mean 'bfloat16'"),
        (["--device", "gpu"], "device 'gpu' cannot be used here"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, capfd):
    assert main(["bench", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1


def test_a_wrong_result_is_reported_with_exit_code_1(capfd, monkeypatch):
    right = reference.forward
    monkeypatch.setattr(reference, "forward", lambda *x: tuple(2 * y for y in right(*x)))
    assert main(["bench", *TINY, "--ops", "short_conv"]) == 1
    out, err = capfd.readouterr()
    sentence = "wrong: differs from its reference by 0.5 of the largest value; no speed"
    assert err.count(sentence) == 1
    rows = json.loads(out)["rows"]
    assert [(row["ms"], row["wrong"], row["note"]) for row in rows] == [(None, True, sentence)] * 2


def test_an_interrupt_shows_what_was_measured(capfd, monkeypatch):
    def interrupted(settings, *, ops, layers, show):
        def stop(progress):
            show(progress)
            if progress.done == 1:
                signal.raise_signal(signal.SIGINT)

        return run(settings, ops=ops, layers=layers, show=stop)

    monkeypatch.setattr("longstate.bench.run", interrupted)
    assert main(["bench", *TINY, "--ops", "short_conv"]) == 0
    out, err = capfd.readouterr()
    assert "Interrupted" in err
    found = json.loads(out)
    assert found["complete"] is False
    assert [row["mode"] for row in found["rows"]] == ["forward"]


def test_a_busy_machine_is_reported(capfd, monkeypatch):
    from longstate.bench._timing import Limits

    both = iter([Limits({"float32": 1e9}, {"copy": 1e9}), Limits({"float32": 2e9}, {"copy": 1e9})])
    monkeypatch.setattr("longstate.bench._measure.limits", lambda settings: next(both))
    assert main(["bench", *TINY, "--ops", "short_conv"]) == 0
    out, err = capfd.readouterr()
    assert "The limits before and after differ by 50%" in err
    assert json.loads(out)["limits"]["moved"] == 0.5


def test_defaults_are_those_of_the_settings():
    defaults = {k: p.default for k, p in inspect.signature(bench.bench).parameters.items()}
    settings = Settings()
    for name in ("batch", "length", "d_model", "dtype", "device", "seconds"):
        assert defaults[name] == getattr(settings, name)
    assert defaults["threads"] is None
