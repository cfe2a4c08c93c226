"""Results are checked before they are timed, counted as documented, and kept after an interrupt."""

import functools
import inspect
import json
import os
import signal

import pytest
import torch
from torch.testing import assert_close

from longstate import layers, ops
from longstate.bench import Settings, run
from longstate.bench import _layers as bench_layers
from longstate.bench import _measure as measure
from longstate.bench import _ops as bench_ops
from longstate.bench import _timing as timing
from longstate.bench._settings import Draw
from longstate.bench._subject import WrongResult, largest_error
from longstate.bench._timing import Limits, Timing, repeat
from longstate.errors import InputError
from longstate.ops.short_conv import reference

TINY = Settings(length=40, d_model=8, threads=1, seconds=1e-4)
SUBJECTS = [*bench_ops.subjects(), *bench_layers.subjects()]


def test_every_op_and_layer_is_measured():
    functions = {name for name in dir(ops) if inspect.isfunction(getattr(ops, name))}
    classes = {
        name
        for name, value in vars(layers).items()
        if inspect.isclass(value) and issubclass(value, layers.Layer) and value is not layers.Layer
    }
    assert {s.aliases[0] for s in SUBJECTS if s.kind == "op"} == functions
    assert {s.aliases[0] for s in SUBJECTS if s.kind == "layer"} == classes
    found = [(s.kind, s.name) for s in SUBJECTS]
    assert len(set(found)) == len(found)
    for op, layer in (("diagonal", "Longhorn"), ("exact", "Longhorn exact")):  # both updates
        assert {("op", f"longhorn_scan {op}"), ("layer", layer)} <= set(found)


FEW = ("S4D", "Mamba", "LSTM")  # layers that are measured in every run of the tests
LIMITS = functools.cache(timing.limits)  # a second each, which no row depends on


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(s, marks=[] if s.kind == "op" or s.name in FEW else pytest.mark.slow)
        for s in SUBJECTS
    ],
    ids=lambda s: f"{s.kind} {s.name}",
)
def test_a_row_for_every_mode(subject, monkeypatch):
    monkeypatch.setattr(measure, "limits", LIMITS)
    found = run(TINY, **{f"{subject.kind}s": [subject.name]})
    rows = [row for row in found.rows if row.name == subject.name]  # "Longhorn" is both of them
    assert [row.note for row in rows] == [""] * len(subject.modes)
    assert [row.mode for row in rows] == list(subject.modes)
    for row in rows:
        assert 0 <= row.error < 3e-4
        assert 0 < row.timing.best <= row.timing.low <= row.timing.median <= row.timing.high
        assert 0 < row.bandwidth_fraction(found.limits) < 1.5
        fraction = row.product_fraction(found.limits)
        assert (fraction is None) == (not row.products)
        assert fraction is None or 0 < fraction < 1.5


def test_bytes_and_tokens_are_the_documented_ones():
    settings = Settings(batch=2, length=40, d_model=8, threads=1, seconds=1e-4)
    op = run(settings, ops=["diagonal_scan"]).rows
    a, x, h0 = 8, 2 * 40 * 8, 2 * 8  # complex numbers, of 8 bytes
    given, found = a + x, x + h0
    both = given + found + 2 * given + x  # of the outputs, h is differentiated
    assert [row.bytes for row in op] == [8 * (given + found), 8 * both]
    assert [row.tokens for row in op] == [80, 80]
    assert op[0].shapes == {"x": [2, 40, 8], "a": [8]}
    layer = layers.Mamba(8)
    u, n = 2 * 40 * 8, sum(p.numel() for p in layer.parameters())
    state = sum(s.numel() for s in layer.init_state(2).values())
    forward, both, step = run(settings, layers=["Mamba"]).rows
    assert forward.bytes == 4 * (u + n + u + state)
    assert both.bytes == forward.bytes + 4 * (2 * (u + n) + u)
    assert step.bytes == 4 * (n + 2 * 2 * 8 + 2 * state)
    assert (step.tokens, step.shapes) == (2, {"u": [2, 8]})


def test_fractions_of_known_limits():
    limits = Limits({"float32": 100.0, "float64": 50.0}, {"copy": 10.0, "sum": 20.0})
    (row, *_) = run(TINY, ops=["short_conv"]).rows
    row = type(row)(
        row.kind, row.name, row.mode, timing=Timing(2.0, 1.0, 3.0, 0.5, 4), tokens=6, bytes=8,
        products={"float32": 40, "float64": 30},
    )  # fmt: skip
    assert row.bandwidth_fraction(limits) == pytest.approx(8 / 20 / 2)
    assert row.product_fraction(limits) == pytest.approx((40 / 100 + 30 / 50) / 2)
    assert row.product_fraction(Limits({"float64": 1.0}, {"copy": 1.0})) is None
    as_dict = row.to_dict(limits)
    assert (as_dict["ms"], as_dict["ms_low"], as_dict["ms_high"]) == (2000.0, 1000.0, 3000.0)
    assert as_dict["tokens_per_s"] == 3.0


def test_limits_are_the_best_of_two_and_report_their_difference():
    first = Limits({"float32": 100.0}, {"copy": 10.0, "sum": 8.0})
    second = Limits({"float32": 80.0}, {"copy": 9.0, "sum": 12.0})
    assert first.better(second) == Limits({"float32": 100.0}, {"copy": 10.0, "sum": 12.0})
    assert first.moved(second) == pytest.approx(0.2)


def test_limits_are_measured_from_calls():
    found = timing.limits(Settings(threads=1, dtype="bfloat16", seconds=1e-3))
    assert set(found.products) == {"float32", "float64", "bfloat16"}
    assert all(0 < x < 1e16 for x in (*found.products.values(), *found.transfers.values()))
    assert found.bandwidth == max(found.transfers.values())


@pytest.mark.parametrize(
    ("seconds", "budget", "repeats", "calls"),
    [
        (1e-6, 0.1, 25, 4**6 * (1 + 25) + sum(4**i for i in range(6))),  # 4 ms to a timing
        (0.01, 0.025, 3, 1 + 3),
        (0.01, 0.015, 3, 1 + 3),  # three timings, though two are enough
        (0.01, 0.002, 1, 1 + 1),  # unless they take much longer
    ],
)
def test_a_short_call_is_repeated_and_a_long_one_is_not(
    seconds, budget, repeats, calls, monkeypatch
):
    made = []
    monkeypatch.setattr(timing, "perf_counter", lambda: seconds * len(made))
    found = repeat(lambda: made.append(1), "cpu", budget)
    assert (found.repeats, len(made)) == (repeats, calls)
    assert found.low == pytest.approx(seconds)
    assert found.low <= found.median <= found.high == pytest.approx(found.best)


def test_the_spread_is_the_middle_half(monkeypatch):
    lasted = iter([0.0, 3.0, 1.0, 2.0])
    now = [0.0]
    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "_SHORTEST", 0.0)
    found = repeat(lambda: now.append(now.pop() + next(lasted)), "cpu", 6.0)
    assert found == Timing(median=2.0, low=1.5, high=2.5, best=1.0, repeats=3)


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (lambda y: y * 1.01, "wrong: differs from its reference by 0.01 of the largest value"),
        (lambda y: y * torch.nan, "wrong: differs from its reference by inf"),
    ],
)
def test_a_wrong_result_gets_no_speed(spoil, note, monkeypatch):
    right = reference.forward
    monkeypatch.setattr(reference, "forward", lambda *x: tuple(map(spoil, right(*x))))
    rows = run(TINY, ops=["short_conv", "diagonal_scan"]).rows
    assert [row.timing is None for row in rows] == [False, False, True, True]
    for row in rows[2:]:
        assert row.wrong
        assert row.note.startswith(note)


def test_a_result_needs_half_of_the_digits():
    one, off = [torch.ones(3)], [torch.ones(3, dtype=torch.float64) * (1 + 4e-4)]
    assert largest_error(one, [x.double() for x in one], TINY) == 0
    assert_close(1e4 * largest_error(one, off, Settings(dtype="bfloat16")), 4 / (1 + 4e-4))
    with pytest.raises(WrongResult, match=r"0\.0004"):
        largest_error(one, off, TINY)
    with pytest.raises(WrongResult, match="inf"):
        largest_error([torch.full((3,), torch.nan)], off, TINY)


def test_a_nonfinite_result_at_full_size_gets_no_speed(monkeypatch):
    def large_overflows(self, *shape):
        return normal(self, *shape) * (torch.inf if TINY.length in shape else 1)

    normal = Draw.normal
    monkeypatch.setattr(Draw, "normal", large_overflows)
    rows = run(TINY, ops=["short_conv"]).rows
    assert {row.note for row in rows} == {"wrong: not finite at this shape; no speed"}
    assert all(row.wrong for row in rows)


def test_a_row_that_fails_has_a_note_and_the_others_run(monkeypatch):
    def missing(*_):
        raise NotImplementedError("no such thing\nsecond line")

    monkeypatch.setattr(reference, "forward", missing)
    rows = run(TINY, ops=["short_conv", "diagonal_scan"]).rows
    assert [row.timing is None for row in rows] == [False, False, True, True]
    expected = "cannot run in float32 on cpu (NotImplementedError: no such thing)"
    assert {row.note for row in rows[2:]} == {expected}
    assert not any(row.wrong for row in rows)


def test_narrow_types_run_or_have_a_note():
    settings = Settings(length=40, d_model=8, dtype="bfloat16", threads=1, seconds=1e-4)
    rows = run(settings, ops=["selective_scan", "channel_scan"], layers=["S4D", "Mamba"]).rows
    assert not any(row.wrong for row in rows)
    notes = {row.name for row in rows if row.timing is None}
    assert notes <= {"diagonal_channel_scan"}


def test_an_interrupt_keeps_the_rows():
    def show(progress):
        if progress.doing == "diagonal_scan: forward+backward":
            os.kill(os.getpid(), signal.SIGINT)

    found = run(TINY, ops=["diagonal_scan", "short_conv"], show=show)
    assert [(row.name, row.mode) for row in found.rows] == [("diagonal_scan", "forward")]
    assert found.rows[0].timing is not None
    assert not found.complete
    assert found.limits_moved is None
    assert json.loads(found.to_json())["complete"] is False


def test_progress_counts_rows():
    said = []
    run(TINY, ops=["short_conv"], show=said.append)
    assert [(p.done, p.total, p.doing) for p in said] == [
        (0, 2, "the machine's limits"),
        (0, 2, "short_conv: checking, and compiling on the first run"),
        (0, 2, "short_conv: forward"),
        (1, 2, "short_conv: forward+backward"),
        (2, 2, "the machine's limits again"),
    ]


def test_uses_the_requested_threads_and_restores_the_number():
    before, state = torch.get_num_threads(), torch.get_rng_state()
    seen = []
    torch.set_num_threads(2)
    try:
        run(TINY, layers=["Mamba"], show=lambda progress: seen.append(torch.get_num_threads()))
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)


def test_reports_the_number_of_threads():
    assert run(TINY, ops=["short_conv"]).environment["processors"].endswith("PyTorch uses 1")


def test_a_folder_names_all_its_ops_and_case_does_not_matter():
    total = []
    run(TINY, ops=["Longhorn_Scan"], show=lambda p: total.append(p.total))
    assert set(total) == {4}
    with pytest.raises(
        InputError, match=r"there is no op 'selectiv_scan' to measure; did you mean"
    ):
        run(TINY, ops=["selectiv_scan"])
    with pytest.raises(InputError, match=r"there is no layer 'mambo' to measure; .*'Mamba'"):
        run(TINY, layers=["Mamba", "mambo"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"length": 0}, "length must be a whole number of at least 1; got 0"),
        ({"batch": -1}, "batch must be a whole number of at least 1; got -1"),
        ({"d_model": 0}, "d_model must be a whole number of at least 1; got 0"),
        ({"threads": 0}, "threads must be from 1 to"),
        ({"threads": 10**6}, "threads must be from 1 to"),
        ({"seconds": 0.0}, "seconds must be above 0 and at most 3600; got 0"),
        ({"seconds": float("nan")}, "seconds must be above 0 and at most 3600; got nan"),
        ({"dtype": "float23"}, "there is no dtype 'float23'; did you mean 'float32'"),
        ({"device": "gpu"}, "device 'gpu' cannot be used here: "),
        ({"device": "meta"}, "device 'meta' cannot be used here: "),
    ],
)
def test_settings_are_checked(changed, message):
    with pytest.raises(InputError) as error:
        Settings(**changed)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
