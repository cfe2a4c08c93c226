"""oscillator_scan: every implementation against the reference. Physics: test_oscillator_physics."""

import pytest
import torch
from torch.testing import assert_close

from longstate.ops import oscillator_scan
from longstate.ops.oscillator_scan import CHUNK, STABLE, Inputs
from longstate.ops.oscillator_scan.cpu import backward_, forward_
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import (
    LENGTHS,
    assert_concurrent_calls_agree,
    assert_equals_reference,
    assert_same_where_finite,
    assert_survives_fork,
    assert_thread_count_is_invisible,
    assert_within_budget,
    narrow,
    randn,
    results,
    run_python,
    strided,
    uniform,
    widen,
)

FORMS = ("from u", "real from u", "drive", "real drive")
both_rules = pytest.mark.parametrize("rule", ["im", "imex"])
every_form = pytest.mark.parametrize("form", FORMS)


def with_rule(rule):
    def call(impl, A, u, h0=None, B=None, dt=None, reset=None):
        return oscillator_scan(u, A, h0, B=B, dt=dt, rule=rule, reset=reset, impl=impl)

    return call


def inputs(b=2, t=9, n=7, d=3, form="from u", h0=True, dt=True, reset=False):
    """Free masses, slow and fast oscillators; steps of 0 and steps that are cut."""
    dtype = torch.float64 if form.startswith("real") else torch.complex128
    project = form.endswith("from u")
    A = 3 * uniform(n, seed=1)
    A[::5], A[1::5], A[2::5] = 0, 20, 3
    steps = uniform(b, t, high=2.0, seed=2)
    steps[:, ::4] = 0
    return {
        "A": A,
        "u": randn(b, t, d, seed=3) if project else randn(b, t, n, dtype=dtype, seed=3),
        "h0": randn(b, 2, n, dtype=dtype, seed=4) if h0 else None,
        "B": randn(n, d, dtype=dtype, seed=5) if project else None,
        "dt": steps if dt else None,
        "reset": uniform(b, t, seed=6) < 0.2 if reset else None,
    }


# Every implementation


@pytest.mark.parametrize("t", LENGTHS)
@both_rules
@every_form
def test_cpu_equals_reference(t, rule, form):
    assert_equals_reference(with_rule(rule), "cpu", inputs(t=t, form=form))


@both_rules
def test_cpu_without_state_or_steps_and_with_reset(rule):
    for options in ({"h0": False, "dt": False}, {"reset": True}, {"h0": False, "reset": True}):
        assert_equals_reference(with_rule(rule), "cpu", inputs(t=70, **options))


@pytest.mark.parametrize("n", [1, 128, 129, 300])
def test_cpu_at_the_edges_of_a_block(n):
    assert_equals_reference(with_rule("im"), "cpu", inputs(b=1, t=4, n=n))


@every_form
def test_cpu_takes_any_strides(form):
    tensors = inputs(t=12, form=form, reset=True)
    tensors = {name: None if x is None else strided(x) for name, x in tensors.items()}
    assert_equals_reference(with_rule("im"), "cpu", tensors)


@both_rules
def test_gradient_of_the_last_state_alone(rule):
    call = with_rule(rule)
    assert_equals_reference(lambda impl, **kw: call(impl, **kw)[1:], "cpu", inputs())
    assert_equals_reference(lambda impl, **kw: call(impl, **kw)[:1], "cpu", inputs())


def test_inputs_are_not_overwritten():
    tensors = inputs(form="drive")
    before = {name: x.clone() for name, x in tensors.items() if x is not None}
    results(with_rule("im"), "cpu", tensors)
    for name, x in before.items():
        assert torch.equal(tensors[name], x)


@both_rules
@every_form
def test_gradcheck(rule, form):
    tensors = inputs(b=2, t=5, n=4, d=2, form=form, reset=True)
    tensors["dt"] += 0.1  # at 0 the central difference would need a negative step
    tensors["A"] += 0.1
    wanted = {k: x.requires_grad_() for k, x in tensors.items() if k != "reset" and x is not None}
    rest = {k: x for k, x in tensors.items() if k not in wanted}
    call = with_rule(rule)
    torch.autograd.gradcheck(
        lambda *p: call("cpu", **dict(zip(wanted, p, strict=True)), **rest), tuple(wanted.values())
    )


@both_rules
@pytest.mark.parametrize("form", ["from u", "real drive"])
def test_opcheck(rule, form):
    tensors = inputs(t=5, n=4, form=form, reset=True)
    tensors["A"].clamp_(max=STABLE)  # which the public function does
    for name, x in tensors.items():
        if x is not None and name != "reset":
            x.requires_grad_()
    order = [tensors[name] for name in ("u", "A", "dt", "h0", "B", "reset")]
    torch.library.opcheck(torch.ops.longstate.oscillator_scan, (*order, rule == "im", "cpu"))


@both_rules
@every_form
def test_float32_error_budget(rule, form):
    tensors = inputs(b=2, t=300, n=40, form=form, reset=True)
    tensors["dt"] *= 0.3
    assert_within_budget(with_rule(rule), "cpu", tensors)


@both_rules
def test_the_backward_pass_does_not_amplify_rounding(rule):
    """It makes velocities again. Where that rounds otherwise than the forward pass did, as another
    compilation of the same lines may, the gradients are as accurate as before."""
    tensors = inputs(b=2, t=300, n=40, form="real drive")
    tensors["A"].clamp_(max=STABLE)
    tensors["dt"] *= 0.3
    low = {name: narrow(x) for name, x in tensors.items()}
    s = Inputs(low["u"], low["A"], low["dt"], low["h0"], None, None, rule == "im", "cpu")
    y, kept = low["u"].clone(), low["A"].new_empty(2, -(-300 // CHUNK), 40)
    forward_(s, s.A, y, s.h0.clone(), kept)
    y[:, 1::4] *= 1 + torch.finfo(y.dtype).eps
    found = backward_(s, s.A, low["u"].clone(), y, kept, torch.ones_like(y), 0 * s.h0)

    def reference(values):
        values = {k: x.clone().requires_grad_() for k, x in values.items() if x is not None}
        out = with_rule(rule)("reference", **values)[0].sum()
        return torch.autograd.grad(out, (values["A"], values["dt"]))

    exact, plain = reference({name: widen(x) for name, x in low.items()}), reference(low)
    for values in zip(found, exact, plain, strict=True):
        assert_within_reference_error(*values)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(autocast):
    tensors = {name: narrow(x) for name, x in inputs().items()}
    tensors["u"] = tensors["u"].bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y, last = with_rule("im")("cpu", **tensors)
    expected, _ = with_rule("im")("cpu", **tensors | {"u": tensors["u"].float()})
    assert y.dtype == last.dtype == torch.complex64
    assert torch.equal(y, expected)


@both_rules
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_propagate_as_in_the_reference(rule, bad):
    tensors = inputs(b=3, t=40, form="real drive", reset=True)
    tensors["u"][0, 3, 1] = bad
    tensors["h0"][1, 0, 2] = bad
    tensors["dt"][2, 37] = float("nan")
    call = with_rule(rule)
    assert_same_where_finite(call("cpu", **tensors)[0], call("reference", **tensors)[0])


def test_a_reset_removes_a_nan():
    tensors = inputs(t=6, form="real drive")
    tensors["u"][:, 2] = float("nan")
    tensors["reset"] = torch.zeros(2, 6, dtype=torch.bool)
    tensors["reset"][:, 3] = True
    y, last = with_rule("im")("cpu", **tensors)
    assert y[:, 3:].isfinite().all()
    assert last.isfinite().all()


# Threads and processes

LARGE = {"b": 4, "t": 130, "n": 300}
# small enough that PyTorch's clone() does not call on OpenMP, which does not survive a fork
FORKED = {"b": 4, "t": 50, "n": 90, "form": "drive"}


def test_sixteen_threads_at_once():
    assert_concurrent_calls_agree(with_rule("im"), inputs(**LARGE))


def test_the_number_of_threads_does_not_change_results():
    assert_thread_count_is_invisible(with_rule("imex"), inputs(**LARGE, form="drive"))


def test_fork_after_first_use():
    assert_survives_fork(
        "from tests.ops.test_oscillator_scan import with_rule, inputs, FORKED;"
        "call = with_rule('im'); tensors = inputs(**FORKED)"
    )


# What it refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": torch.zeros(7, dtype=torch.complex64)}, "A must be .* real"),
        ({"u": torch.zeros(2, 9)}, "u must be"),
        ({"u": torch.zeros(2, 0, 3)}, "no time steps"),
        ({"u": torch.zeros(2, 9, 3, dtype=torch.complex64)}, "u must be real"),
        ({"B": None}, "without B"),
        ({"B": torch.zeros(7, 4)}, "B must be"),
        ({"dt": torch.zeros(2)}, "dt must be"),
        ({"h0": torch.zeros(2, 7)}, "h0 must be"),
        ({"reset": torch.zeros(2, 9)}, "reset must be"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        with_rule("im")("cpu", **inputs() | change)


def test_what_cannot_run_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="impl='triton'"):
        with_rule("im")("triton", **inputs())
    with pytest.raises(ValueError, match="'im' or 'imex'"):
        with_rule("euler")("cpu", **inputs())


# Triton

INTERPRETED = """
import torch
from tests.ops.helpers import assert_equals_reference
from tests.ops.test_oscillator_scan import FORMS, inputs, with_rule
for rule in ("im", "imex"):
    tensors = inputs(b=2, t=35, n=3, form="from u", reset=True)
    assert_equals_reference(with_rule(rule), "triton", tensors)
    tensors = inputs(b=1, t=4, n=35, form="real drive")
    assert_equals_reference(with_rule(rule), "triton", tensors | {"h0": None, "dt": None})
print("same")
"""


def test_triton_under_its_interpreter():
    pytest.importorskip("triton")
    assert run_python(INTERPRETED, TRITON_INTERPRET="1").strip() == "same"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("t", LENGTHS)
@both_rules
def test_triton_on_a_gpu(t, rule):
    tensors = inputs(t=t, n=40, reset=True)
    on_gpu = {name: None if x is None else x.cuda() for name, x in tensors.items()}
    call = with_rule(rule)
    expected, found = results(call, "reference", tensors), results(call, "triton", on_gpu)
    for name, value in expected.items():
        assert_close(found[name].cpu(), value)
