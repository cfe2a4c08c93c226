"""zoh_scan: exactness of the hold, every implementation against the reference, float32 accuracy."""

import mpmath
import pytest
import torch
from torch.testing import assert_close

from longstate.ops import zoh_scan
from longstate.ops.zoh_scan.reference import phi1
from tests.ops.helpers import (
    LENGTHS,
    assert_concurrent_calls_agree,
    assert_equals_reference,
    assert_same_where_finite,
    assert_survives_fork,
    assert_thread_count_is_invisible,
    narrow,
    randn,
    results,
    run_python,
    strided,
    uniform,
)

COMPLEX = torch.complex128


def call(impl, A, dt, u, h0=None, B=None, reset=None):
    return zoh_scan(u, A, dt, h0, B=B, reset=reset, impl=impl)


def poles(n):
    """Decaying, fast, slow, undamped, growing a little, nearly 0 and exactly 0."""
    A = torch.complex(-uniform(n, seed=1), 20 * randn(n, seed=2))
    for i, value in enumerate((0, 1e-9 + 1e-9j, 3j, 0.05 + 1j, -2 + 0j, -1e-3 + 1e-2j)):
        A[i + 1 :: 9] = value
    return A


def inputs(b=2, t=9, n=11, d=3, project=True, h0=True, reset=False):
    dt = uniform(b, t, high=2.0, seed=3)
    dt[:, ::4] = 0
    return {
        "A": poles(n),
        "dt": dt,
        "u": randn(b, t, d, seed=4) if project else randn(b, t, n, dtype=COMPLEX, seed=4),
        "h0": randn(b, n, dtype=COMPLEX, seed=5) if h0 else None,
        "B": randn(n, d, dtype=COMPLEX, seed=6) if project else None,
        "reset": uniform(b, t, seed=7) < 0.2 if reset else None,
    }


# The equation


def test_hand_numbers():
    A = torch.tensor([-1.0, 0.0], dtype=COMPLEX)
    u = torch.ones(1, 2, 2, dtype=COMPLEX)
    h, last = zoh_scan(u, A, torch.tensor([[1.0, 0.5]]), impl="reference")
    e = torch.tensor([1.0, 0.5], dtype=torch.float64).cumsum(0)
    assert_close(h[0, :, 0].real, 1 - torch.exp(-e))  # .63212056, .77686984
    assert_close(h[0, :, 1].real, e)
    assert_close(last, h[:, -1])


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_equals_the_matrix_exponential(impl):
    tensors = inputs(b=1, t=6, project=False)
    h, state = tensors["h0"][0], []
    for t in range(6):
        z = torch.zeros(len(h), 2, 2, dtype=COMPLEX)
        z[:, 0, 0], z[:, 0, 1] = tensors["A"], tensors["u"][0, t]
        z = torch.linalg.matrix_exp(z * tensors["dt"][0, t])
        h = z[:, 0, 0] * h + z[:, 0, 1]
        state.append(h)
    assert_close(call(impl, **tensors)[0][0], torch.stack(state))


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_cutting_a_step_changes_nothing(impl):
    whole = inputs()
    cut = whole | {
        "dt": (whole["dt"][..., None] * torch.tensor([0.3, 0.7], dtype=torch.float64)).flatten(1),
        "u": whole["u"].repeat_interleave(2, dim=1),
    }
    assert_close(call(impl, **cut)[0][:, 1::2], call(impl, **whole)[0])


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_a_step_of_length_zero_changes_nothing(impl):
    tensors = inputs(h0=True)
    tensors["dt"] = torch.zeros_like(tensors["dt"])
    h, last = call(impl, **tensors)
    assert torch.equal(h, tensors["h0"][:, None].expand_as(h))
    assert torch.equal(last, tensors["h0"])


def test_phi1_against_fifty_digits():
    mpmath.mp.dps = 50
    z = torch.tensor([0, 1e-12, 1e-5j, -0.3 + 0.4j, 0.999, 1.001j, -5 + 3j, 6.28j], dtype=COMPLEX)
    z.requires_grad_()
    value = phi1(z)
    slope = torch.autograd.grad(value.sum().real, z)[0].conj()  # of a holomorphic function
    for k in range(len(z)):
        x = mpmath.mpc(complex(z[k].detach()))
        exact = mpmath.expm1(x) / x if x else mpmath.mpf(1)
        exact_slope = (mpmath.exp(x) - exact) / x if x else mpmath.mpf(1) / 2
        assert_close(value[k].item(), complex(exact))
        assert_close(slope[k].item(), complex(exact_slope))


# Every implementation


@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("project", [True, False], ids=("from u", "from the drive"))
def test_cpu_equals_reference(t, project):
    assert_equals_reference(call, "cpu", inputs(t=t, project=project))


def test_cpu_without_state_and_with_reset():
    assert_equals_reference(call, "cpu", inputs(t=20, h0=False, reset=True))
    assert_equals_reference(call, "cpu", inputs(t=20, reset=True))


@pytest.mark.parametrize("n", [1, 127, 129])
def test_cpu_at_the_edges_of_a_block(n):
    assert_equals_reference(call, "cpu", inputs(b=1, t=4, n=n))


@pytest.mark.parametrize("project", [True, False], ids=("from u", "from the drive"))
def test_cpu_takes_any_strides(project):
    tensors = inputs(t=12, project=project, reset=True)
    assert_equals_reference(
        call, "cpu", {name: None if x is None else strided(x) for name, x in tensors.items()}
    )


def test_gradient_of_the_last_state_alone():
    assert_equals_reference(lambda impl, **kw: call(impl, **kw)[1:], "cpu", inputs())
    assert_equals_reference(lambda impl, **kw: call(impl, **kw)[:1], "cpu", inputs())


def test_the_drive_is_not_overwritten():
    tensors = inputs(project=False)
    before = tensors["u"].clone()
    results(call, "cpu", tensors)
    assert torch.equal(tensors["u"], before)


@pytest.mark.parametrize("project", [True, False], ids=("from u", "from the drive"))
def test_gradcheck(project):
    tensors = inputs(b=2, t=5, n=8, d=2, project=project, reset=True)
    tensors["dt"] += 0.1  # at 0 the central difference would need a negative step
    wanted = {k: x.requires_grad_() for k, x in tensors.items() if k != "reset" and x is not None}
    rest = {k: x for k, x in tensors.items() if k not in wanted}
    torch.autograd.gradcheck(
        lambda *p: call("cpu", **dict(zip(wanted, p, strict=True)), **rest), tuple(wanted.values())
    )


@pytest.mark.parametrize("project", [True, False], ids=("from u", "from the drive"))
def test_opcheck(project):
    tensors = inputs(t=5, n=4, project=project, reset=True)
    for name, x in tensors.items():
        if x is not None and name != "reset":
            x.requires_grad_()
    order = (tensors[name] for name in ("u", "A", "dt", "h0", "B", "reset"))
    torch.library.opcheck(torch.ops.longstate.zoh_scan, (*order, "cpu"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_propagate_as_in_the_reference(bad):
    for dtype in (torch.float64, torch.float32):
        tensors = inputs(b=3, t=12, project=False, reset=True)
        if dtype == torch.float32:
            tensors = {name: narrow(x) for name, x in tensors.items()}
        tensors["u"][0, 3, 1] = bad
        tensors["h0"][1, 2] = bad
        tensors["A"][5] = bad
        tensors["dt"][2, 5] = float("nan")
        assert_same_where_finite(call("cpu", **tensors)[0], call("reference", **tensors)[0])


def test_a_reset_removes_a_nan():
    tensors = inputs(t=6)
    tensors["u"][:, 2] = float("nan")
    tensors["reset"] = torch.zeros(2, 6, dtype=torch.bool)
    tensors["reset"][:, 3] = True
    h, last = call("cpu", **tensors)
    assert h[:, 3:].isfinite().all()
    assert last.isfinite().all()


# Threads and processes

LARGE = {"b": 4, "t": 130, "n": 300}
# small enough that PyTorch's clone() does not call on OpenMP, which does not survive a fork
FORKED = {"b": 4, "t": 50, "n": 40, "project": False}


def test_sixteen_threads_at_once():
    assert_concurrent_calls_agree(call, inputs(**LARGE))


def test_the_number_of_threads_does_not_change_results():
    assert_thread_count_is_invisible(call, inputs(**LARGE, project=False))


def test_fork_after_first_use():
    assert_survives_fork(
        "from tests.ops.test_zoh_scan import call, inputs, FORKED; tensors = inputs(**FORKED)"
    )


# What it refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": torch.zeros(11)}, "A must be .* complex"),
        ({"u": torch.zeros(2, 9)}, "u must be"),
        ({"u": torch.zeros(2, 0, 3)}, "no time steps"),
        ({"u": torch.zeros(2, 9, 3, dtype=torch.complex64)}, "u must be real"),
        ({"B": None}, "without B"),
        ({"B": torch.zeros(11, 3)}, "B must be .* complex"),
        ({"dt": torch.zeros(2)}, "dt must be"),
        ({"h0": torch.zeros(11)}, "h0 must be"),
        ({"reset": torch.zeros(2, 9)}, "reset must be"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        call("cpu", **inputs() | change)


def test_a_named_implementation_never_falls_back(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="impl='triton'"):
        call("triton", **inputs())


# Triton

INTERPRETED = """
import torch
from tests.ops.helpers import assert_equals_reference
from tests.ops.test_zoh_scan import call, inputs
for project in (True, False):
    tensors = inputs(b=2, t=5, n=35, project=project, reset=True)
    assert_equals_reference(call, "triton", tensors)
    assert_equals_reference(call, "triton", tensors | {"h0": None, "reset": None})
print("same")
"""


def test_triton_under_its_interpreter():
    pytest.importorskip("triton")
    assert run_python(INTERPRETED, TRITON_INTERPRET="1").strip() == "same"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("t", LENGTHS)
def test_triton_on_a_gpu(t):
    tensors = inputs(t=t, n=40, reset=True)
    on_gpu = {name: None if x is None else x.cuda() for name, x in tensors.items()}
    expected, found = results(call, "reference", tensors), results(call, "triton", on_gpu)
    for name, value in expected.items():
        assert_close(found[name].cpu(), value)
