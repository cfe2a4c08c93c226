"""chimera_scan: its equations, and the kernel against the reference."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from longstate.ops import chimera_scan
from longstate.ops.chimera_scan import Inputs, reference
from tests.ops.helpers import (
    assert_concurrent_calls_agree,
    assert_equals_reference,
    assert_same_where_finite,
    assert_survives_fork,
    assert_thread_count_is_invisible,
    assert_within_budget,
    narrow,
    randn,
    results,
    strided,
    uniform,
)

C128 = torch.complex128
FLAGS = {"mask", "reset"}


def call(impl, x, s, r, select, a, c, coupling, h0=None, g0=None, **flags):
    return chimera_scan(x, s, r, select, a, c, coupling, h0, g0, impl=impl, **flags)


def inputs(b=2, t=9, v=3, k=2, p=3, n=2, flags=False) -> dict[str, Tensor]:
    marks = {"mask": uniform(b, t, seed=10) < 0.7, "reset": uniform(b, t, seed=11) < 0.2}
    return {
        "x": randn(b, t, v, k, p, seed=1), "s": uniform(b, t, v, k, p, seed=2),
        "r": uniform(b, t, v, k, p, low=0.1, seed=3), "select": randn(b, t, v, k, 6, n, seed=4),
        "a": torch.complex(-uniform(k, p, n, low=0.1, seed=5), 3 * randn(k, p, n, seed=6)),
        "c": uniform(k, p, n, low=0.1, high=3.0, seed=7),
        "coupling": randn(2, k, p, n, seed=8).tanh(),
        "h0": randn(b, v, k, p, n, dtype=C128, seed=9),
        "g0": randn(b, v, k, p, n, dtype=C128, seed=12),
        **(marks if flags else {}),
    }  # fmt: skip


# Equations


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("sizes", [{}, {"t": 2, "v": 5}, {"v": 1}])
def test_one_site_after_another(impl, sizes):
    tensors = inputs(**sizes)
    x, s, r, select, a, c, (K1, K2), h0, g0 = tensors.values()
    h, g = list(h0.unbind(1)), list(g0.unbind(1))
    y = torch.zeros_like(x)
    for t in range(x.shape[1]):
        for v in range(x.shape[2]):
            b1, b2, *C = select[:, t, v, :, :, None].unbind(2)
            C1, C2 = torch.complex(*C[:2]), torch.complex(*C[2:])
            u, step, across = (part[:, t, v, ..., None] for part in (x, s, r))
            A1, A4 = (step * a).exp(), (-across * c).exp()
            h[v] = A1 * h[v] + (1 - A1.abs()) * K1 * g[v] + (A1 - 1) / a * b1 * u
            zero = torch.zeros_like(h[v])
            beside = (h[v - 1], g[v - 1]) if v else (zero, zero)
            g[v] = (1 - A4) * K2 * beside[0] + A4 * beside[1] + (1 - A4) / c * b2 * u
            y[:, t, v] = (C1 * h[v] + C2 * g[v]).real.sum(-1)
    assert_close(call(impl, **tensors), (y, torch.stack(h, 1), torch.stack(g, 1)))


@pytest.mark.parametrize("flags", [False, True])
def test_scans_over_time_and_over_variates_are_the_same(flags):
    given = inputs(flags=flags)
    marks = [given.pop(name, None) for name in ("mask", "reset")]
    start = given.pop("h0"), given.pop("g0")
    if flags:  # as for the loops, which get no steps at masked samples
        there = marks[0][..., None, None, None]
        given |= {name: torch.where(there, given[name], 0) for name in ("x", "s")}
    s = Inputs(*given.values(), *start, *marks, "reference", False)
    along, over = reference.over_time(s), reference.over_variates(s)
    assert_close(along[1:], over[1:])
    seen = torch.ones(2, 9, dtype=torch.bool) if marks[0] is None else marks[0]
    assert_close(along[0][seen], over[0][seen])


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_a_step_of_length_zero_has_no_effect(impl):
    tensors = inputs(t=1)
    tensors["s"][:], tensors["r"][:] = 0, 0
    _, h, g = call(impl, **tensors)
    assert_close(h, tensors["h0"])
    assert not g.any()


def test_a_pole_at_zero_adds_up():
    tensors = inputs()
    tensors["a"][:], tensors["c"][:] = 0, 0
    _, h, g = call("cpu", **tensors)
    steps, b1 = (tensors["x"] * tensors["s"])[..., None], tensors["select"][..., :1, :]
    assert_close(h, tensors["h0"] + (steps * b1).sum(1))
    along, b2 = (tensors["x"] * tensors["r"])[..., None], tensors["select"][..., 1:2, :]
    assert_close(g, (along * b2)[:, -1].cumsum(1).to(C128))
    nearly = {**tensors, "a": tensors["a"] - 1e-9, "c": tensors["c"] + 1e-9}
    at_zero, beside = results(call, "cpu", tensors), results(call, "cpu", nearly)
    for name, value in at_zero.items():
        assert_close(beside[name], value, rtol=1e-6, atol=1e-6)


# Against the reference


@pytest.mark.parametrize(
    "sizes",
    [
        {"t": 1}, {"t": 31}, {"t": 32}, {"t": 33}, {"t": 70}, {"v": 1}, {"v": 12},
        {"p": 1}, {"p": 16}, {"p": 17}, {"p": 40, "k": 3}, {"n": 1}, {"b": 1},
    ],
)  # fmt: skip
def test_equals_the_reference(sizes):
    assert_equals_reference(call, "cpu", inputs(**sizes))


@pytest.mark.parametrize("sizes", [{}, {"t": 70}, {"v": 1, "p": 20}, {"t": 3, "v": 6}])
def test_masks_and_resets(sizes):
    assert_equals_reference(call, "cpu", inputs(**sizes, flags=True))


@pytest.mark.parametrize("missing", [("h0",), ("g0",), ("h0", "g0")])
def test_without_initial_states(missing):
    given = {name: x for name, x in inputs().items() if name not in missing}
    assert_equals_reference(call, "cpu", given)


@pytest.mark.parametrize("alone", range(3))
def test_each_result_alone_has_gradients(alone):
    def one(impl, **tensors):
        return (call(impl, **tensors)[alone],)

    assert_equals_reference(one, "cpu", inputs())


def test_strides_and_lazy_conjugation():
    assert_equals_reference(call, "cpu", {name: strided(x) for name, x in inputs().items()})


def test_inputs_are_not_overwritten():
    tensors = inputs(flags=True)
    before = {name: x.clone() for name, x in tensors.items()}
    results(call, "cpu", tensors)
    for name, x in tensors.items():
        assert torch.equal(x, before[name])


def test_gradcheck():
    tensors = inputs(b=1, t=3, v=2, k=2, p=1, n=1, flags=True)
    marks = {name: tensors.pop(name) for name in FLAGS}
    leaves = [x.requires_grad_() for x in tensors.values()]
    torch.autograd.gradcheck(lambda *given: call("cpu", *given, **marks), leaves)


def test_opcheck():
    tensors = [x.requires_grad_() for x in inputs(t=5).values()]
    flags = inputs(t=5, flags=True)
    marks = flags["mask"], flags["reset"]
    torch.library.opcheck(torch.ops.longstate.chimera_scan, (*tensors, *marks, "cpu", True))


@pytest.mark.parametrize("sizes", [{"t": 200, "v": 1, "p": 8, "n": 8}, {"t": 40, "v": 7}])
def test_float32_error_budget(sizes):
    assert_within_budget(call, "cpu", inputs(**sizes))


def test_fast_and_slow_modes_keep_their_gradients_in_float32():
    tensors = inputs(t=20)
    for size in (1e-6, 1e-3, 50.0):  # of a step, beside modes of about 1
        given = {**tensors, "s": size * tensors["s"], "r": size * tensors["r"]}
        assert_within_budget(call, "cpu", given)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_stay_where_they_belong(bad):
    for narrowed in (False, True):
        tensors = inputs(b=3)
        if narrowed:
            tensors = {name: narrow(x) for name, x in tensors.items()}
        tensors["x"][0, 3, 1, 0, 2] = bad
        tensors["h0"][1, 2, 1, 1] = bad
        found, expected = call("cpu", **tensors)[0], call("reference", **tensors)[0]
        assert_same_where_finite(found, expected)
        assert found[2].isfinite().all()


def test_a_nan_leaves_the_gradients_of_other_rows():
    clean = inputs(b=4)
    broken = {name: x.clone() for name, x in clean.items()}
    broken["x"][1, 0] = float("nan")
    expected, found = results(call, "cpu", clean), results(call, "cpu", broken)
    for name, value in expected.items():
        if len(value) == 4:  # of each row
            assert_close(found[name][[0, 2, 3]], value[[0, 2, 3]])


def test_a_nan_in_a_gradient_spreads_backwards_only():
    tensors = inputs(p=20)  # a block of 16 channels, and one that leaves 12 lanes empty
    select, found = tensors["select"].requires_grad_(), {}
    for impl in ("reference", "cpu"):
        y = call(impl, **tensors)[0]
        into = torch.ones_like(y)
        into[0, 3, 1, 0, 7] = float("nan")
        (found[impl],) = torch.autograd.grad(y, select, into)
    assert found["reference"][0, 4:].isfinite().all()
    assert_same_where_finite(found["cpu"], found["reference"])


def test_a_reset_removes_a_nan_and_a_masked_one_is_not_read():
    tensors = inputs(t=6)
    tensors["x"][:, 2] = float("nan")
    reset, mask = torch.zeros(2, 6, dtype=torch.bool), torch.ones(2, 6, dtype=torch.bool)
    reset[:, 3], mask[:, 2] = True, False
    y, h, g = call("cpu", **tensors, reset=reset)
    assert y[:, 3:].isfinite().all()
    assert all(state.isfinite().all() for state in (h, g))
    for name in ("s", "r", "select"):
        tensors[name][:, 2] = float("nan")
    found = results(lambda impl, **kw: call(impl, **kw, mask=mask), "cpu", tensors)
    assert all(x.isfinite().all() for x in found.values())
    assert not found["output 0"][:, 2].any()
    assert not found["gradient of select"][:, 2].any()


# Threads and processes

LARGE = {"b": 3, "t": 40, "v": 2, "k": 4, "p": 20, "n": 4}


def test_sixteen_threads_at_once():
    assert_concurrent_calls_agree(call, inputs(**LARGE))


def test_the_number_of_threads_does_not_change_results():
    assert_thread_count_is_invisible(call, inputs(**LARGE))


def test_fork_after_first_use():
    assert_survives_fork(
        "from tests.ops.test_chimera_scan import LARGE, call, inputs; tensors = inputs(**LARGE)"
    )


# What it refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 9, 3, 2)}, "x must be"),
        ({"x": torch.zeros(2, 0, 3, 2, 3)}, "x must be .*time > 0"),
        ({"s": torch.zeros(2, 9, 3, 2, 1)}, "s must be"),
        ({"r": torch.zeros(2, 9, 3, 2, 1)}, "r must be"),
        ({"select": torch.zeros(2, 9, 3, 2, 5, 2)}, "select must be"),
        ({"a": torch.zeros(2, 3, 2)}, "a must be .*complex"),
        ({"a": torch.zeros(2, 3, 0, dtype=C128)}, "a must be .*states > 0"),
        ({"a": torch.zeros(2, 4, 2, dtype=C128)}, "a must be"),
        ({"c": torch.zeros(2, 3, 1)}, "c must be"),
        ({"c": torch.zeros(2, 3, 2, dtype=C128)}, "c must be real"),
        ({"x": torch.zeros(2, 9, 3, 2, 3, dtype=C128)}, "x must be real"),
        ({"coupling": torch.zeros(1, 2, 3, 2)}, "coupling must be"),
        ({"coupling": torch.zeros(2, 2, 3, 2, dtype=C128)}, "coupling must be real"),
        ({"h0": torch.zeros(2, 3, 2, 3, 1, dtype=C128)}, "h0 must be"),
        ({"g0": torch.zeros(2, 3, 2, 3, 1, dtype=C128)}, "g0 must be"),
        ({"reset": torch.zeros(2, 9)}, "reset must be"),
        ({"mask": torch.zeros(2, 8, dtype=torch.bool)}, "mask must be"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        call("cpu", **inputs() | change)


@pytest.mark.parametrize("impl", ["triton", "magic"])
def test_names_the_implementations_there_are(impl):
    with pytest.raises(ValueError, match="impl"):
        call(impl, **inputs())
