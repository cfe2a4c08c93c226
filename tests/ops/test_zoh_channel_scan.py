"""zoh_channel_scan: the systems of zoh_scan, and every implementation against the reference."""

import pytest
import torch
from torch.testing import assert_close

from longstate.ops import zoh_channel_scan, zoh_scan
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
from tests.ops.test_zoh_scan import poles

COMPLEX = torch.complex128
FLAGS = ("mask", "reset")


def call(impl, u, A, B, C, dt, h0=None, mask=None, reset=None):
    return zoh_channel_scan(u, A, B, C, dt, h0, mask=mask, reset=reset, impl=impl)


def inputs(b=2, t=9, d=5, n=3, without=()):
    dt = uniform(b, t, high=2.0, seed=3)
    dt[:, ::4] = 0
    B, C = randn(2, d, n, dtype=COMPLEX, seed=6)
    found = {
        "u": randn(b, t, d, seed=4), "A": poles(d * n).view(d, n), "B": B, "C": C, "dt": dt,
        "h0": randn(b, d, n, dtype=COMPLEX, seed=5), "mask": uniform(b, t, seed=8) < 0.8,
        "reset": uniform(b, t, seed=7) < 0.2,
    }  # fmt: skip
    return {name: x for name, x in found.items() if name not in without}


# The equation


@pytest.mark.parametrize("impl", ["reference", "cpu", "blocks"])
def test_reads_out_the_states_of_zoh_scan(impl):
    tensors = inputs(t=70)
    u, A, B, C, dt, h0, mask, reset = tensors.values()
    y, last = call(impl, **tensors)
    for i in range(A.shape[0]):
        h, end = zoh_scan(
            u[..., i : i + 1], A[i], dt, h0[:, i], B=B[i, :, None], mask=mask, reset=reset,
            impl="reference",
        )  # fmt: skip
        assert_close(y[..., i], 2 * (h @ C[i]).real)
        assert_close(last[:, i], end)


@pytest.mark.parametrize("impl", ["reference", "cpu", "blocks"])
def test_a_step_of_length_zero_changes_nothing(impl):
    tensors = inputs(without=FLAGS)
    tensors["dt"] = torch.zeros_like(tensors["dt"])
    _, last = call(impl, **tensors)
    assert torch.equal(last, tensors["h0"])


# Every implementation


@pytest.mark.parametrize("impl", ["cpu", "blocks"])
@pytest.mark.parametrize("t", [1, 31, 32, 33, 100])  # the kernel writes one state in 32
def test_equals_the_reference(impl, t):
    assert_equals_reference(call, impl, inputs(t=t))


@pytest.mark.parametrize("without", [("h0",), ("mask",), ("reset",), ("h0", *FLAGS)])
def test_cpu_without_optional_arguments(without):
    assert_equals_reference(call, "cpu", inputs(t=40, without=without))


@pytest.mark.parametrize(("d", "n"), [(1, 1), (130, 1), (3, 50), (5, 32), (2, 128), (2, 129)])
def test_cpu_at_the_edges_of_a_block(d, n):
    assert_equals_reference(call, "cpu", inputs(b=1, t=4, d=d, n=n))


def test_cpu_takes_any_strides():
    assert_equals_reference(call, "cpu", {k: strided(x) for k, x in inputs(t=40).items()})


@pytest.mark.parametrize("impl", ["cpu", "blocks"])
def test_gradient_of_one_result_alone(impl):
    def last(impl, **tensors):
        y, last = call(impl, **tensors)
        return y[:, :0], last

    assert_equals_reference(lambda impl, **kw: call(impl, **kw)[:1], impl, inputs(t=40))
    assert_equals_reference(last, impl, inputs(t=40))


def test_inputs_are_not_overwritten():
    tensors = inputs(t=40)
    before = {name: x.clone() for name, x in tensors.items()}
    results(call, "cpu", tensors)
    for name, x in tensors.items():
        assert torch.equal(x, before[name])


def test_gradcheck():
    tensors = inputs(t=5, d=3, n=3)
    tensors["dt"] += 0.1  # at 0 the central difference would need a negative step
    flags = {name: tensors.pop(name) for name in FLAGS}
    for x in tensors.values():
        x.requires_grad_()
    torch.autograd.gradcheck(
        lambda *p: call("cpu", **dict(zip(tensors, p, strict=True)), **flags),
        tuple(tensors.values()),
    )


def test_opcheck():
    tensors = inputs(t=5, without=("mask",))
    for name, x in tensors.items():
        x.requires_grad_(name != "reset")
    op = torch.ops.longstate.zoh_channel_scan
    torch.library.opcheck(op, (*tensors.values(), "cpu", True))


def test_float32_error_budget():
    tensors = inputs(t=100, d=7, n=16)
    # phases of a few turns: the reference loses more digits of large ones than the kernel
    tensors["A"] = torch.complex(tensors["A"].real, tensors["A"].imag.clamp(-3, 3))
    assert_within_budget(call, "cpu", tensors)


def test_float32_phases_keep_six_digits():
    """A dt of 50,000 turns, in one step and in ten."""
    A = torch.complex(torch.tensor([[-1e-3]]), torch.tensor([[3e4]]))
    B = C = torch.ones_like(A)
    h0 = torch.ones(1, 1, 1, dtype=torch.complex64)
    dt = torch.full((1, 1), 10.47)
    y, _ = zoh_channel_scan(torch.zeros(1, 1, 1), A, B, C, dt, h0, impl="cpu")
    exact = 2 * torch.exp(A.to(COMPLEX) * dt.double()).real
    assert_close(y[0].double(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_propagate_as_in_the_reference(bad):
    for dtype in (torch.float64, torch.float32):
        tensors = inputs(b=3, t=40)
        if dtype == torch.float32:
            tensors = {name: narrow(x) for name, x in tensors.items()}
        tensors["u"][0, 3, 1] = bad
        tensors["h0"][1, 2] = bad
        tensors["A"][4, 1] = bad
        tensors["dt"][2, 5] = float("nan")
        assert_same_where_finite(call("cpu", **tensors)[0], call("reference", **tensors)[0])


def test_a_reset_removes_a_nan():
    tensors = inputs(t=6, without=FLAGS)
    tensors["u"][:, 2] = float("nan")
    tensors["reset"] = torch.zeros(2, 6, dtype=torch.bool)
    tensors["reset"][:, 3] = True
    y, last = call("cpu", **tensors)
    assert y[:, 3:].isfinite().all()
    assert last.isfinite().all()


# Threads and processes

LARGE = {"b": 4, "t": 70, "d": 40, "n": 16}


def test_sixteen_threads_at_once():
    assert_concurrent_calls_agree(call, inputs(**LARGE))


def test_the_number_of_threads_does_not_change_results():
    assert_thread_count_is_invisible(call, inputs(**LARGE))


def test_fork_after_first_use():
    assert_survives_fork(
        "from tests.ops.test_zoh_channel_scan import call, inputs; tensors = inputs(b=4, d=9)"
    )


# What it refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": torch.zeros(5, 3)}, "A must be .* complex"),
        ({"B": torch.zeros(5, 3)}, "B must be .* complex"),
        ({"C": torch.zeros(5, 2, dtype=COMPLEX)}, "C must be"),
        ({"u": torch.zeros(2, 9, 4)}, "u must be"),
        ({"u": torch.zeros(9, 5)}, "u must be"),
        ({"u": torch.zeros(2, 9, 5, dtype=COMPLEX)}, "u must be .* real"),
        ({"u": torch.zeros(2, 0, 5)}, "no time steps"),
        ({"dt": torch.zeros(2)}, "dt must be"),
        ({"h0": torch.zeros(2, 5)}, "h0 must be"),
        ({"reset": torch.zeros(2, 9)}, "reset must be"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        call("cpu", **inputs() | change)


@pytest.mark.parametrize("impl", ["triton", "magic"])
def test_names_the_implementations_there_are(impl):
    with pytest.raises(ValueError, match="impl"):
        call(impl, **inputs())
