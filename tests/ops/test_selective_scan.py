"""selective_scan: closed forms, every form against the reference, Mamba's own numbers."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.ops import diagonal_scan, selective_scan
from tests.golden import assert_parity, golden
from tests.ops.helpers import (
    randn,
    results,
    uniform,
)

OPTIONAL = ("D", "z", "h0", "dt_bias", "mask", "reset")


def call(impl, u, dt, A, B, C, **options):
    return selective_scan(u, dt, A, B, C, **options, dt_softplus=True, impl=impl)


def plain_step(impl, u, dt, A, B, C, **options):
    return selective_scan(u, dt.abs(), A, B, C, **options, impl=impl)


def inputs(b=2, t=9, d=5, n=3, groups=0, constant="", without=()):
    def write_or_read(name, seed):
        if name in constant:
            return randn(d, n, seed=seed)
        return randn(b, t, groups, n, seed=seed) if groups else randn(b, t, n, seed=seed)

    tensors = {
        "u": randn(b, t, d, seed=1),
        "dt": randn(b, t, d, seed=2),
        "A": -uniform(d, n, high=3.0, seed=3),
        "B": write_or_read("B", 4),
        "C": write_or_read("C", 5),
        "D": randn(d, seed=6),
        "z": randn(b, t, d, seed=7),
        "h0": randn(b, d, n, seed=8),
        "dt_bias": randn(d, seed=9),
        "mask": uniform(b, t, seed=10) < 0.7,
        "reset": uniform(b, t, seed=11) < 0.1,
    }
    return {name: None if name in without else x for name, x in tensors.items()}


# The equation


def test_hand_numbers():
    one = torch.ones(1, 2, 1)
    y, last = selective_scan(
        2 * one, 0.5 * one, -torch.ones(1, 1) * 2 * torch.log(torch.tensor(2.0)),
        3 * one, 10 * one, D=torch.ones(1), h0=torch.full((1, 1, 1), 4.0), impl="reference",
    )  # fmt: skip
    # decay 1/2, input 1/2 * 2 * 3: states 4/2 + 3 = 5 and 5/2 + 3 = 5.5; outputs 10 h + u
    assert_close(y.flatten(), torch.tensor([52.0, 57.0]))
    assert_close(last.flatten(), torch.tensor([5.5]))


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_constant_input_sums_geometrically(impl):
    d, n, t = 4, 3, 70
    A = -uniform(d, n, low=0.1, seed=3)
    dt = uniform(d, low=0.1, seed=4).expand(1, t, d)
    ones = torch.ones(1, t, d, dtype=torch.float64)
    B, C = (randn(1, 1, n, seed=s).expand(1, t, n) for s in (5, 6))
    y, last = selective_scan(ones, dt, A, B, C, impl=impl)
    decay = torch.exp(dt[0, 0, :, None] * A)
    steps = torch.arange(1, t + 1, dtype=torch.float64)[:, None, None]
    h = (1 - decay**steps) / (1 - decay) * dt[0, 0, :, None] * B[0, 0]
    assert_close(y[0], (h * C[0, 0]).sum(-1))
    assert_close(last[0], h[-1])


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_is_a_diagonal_scan_of_its_own_decays(impl):
    tensors = inputs(t=40, without=("mask",))
    dt = F.softplus(tensors["dt"] + tensors["dt_bias"])[..., None]
    x = dt * tensors["u"][..., None] * tensors["B"][:, :, None]
    h, last = diagonal_scan(
        x.flatten(2), torch.exp(dt * tensors["A"]).flatten(2), tensors["h0"].flatten(1),
        reset=tensors["reset"], impl="reference",
    )  # fmt: skip
    expected = (h.view_as(x) * tensors["C"][:, :, None]).sum(-1) + tensors["D"] * tensors["u"]
    y, state = call(impl, **tensors)
    assert_close(y, expected * F.silu(tensors["z"]))
    assert_close(state, last.view_as(state))


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_input_is_discretised_by_eulers_rule(impl):
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    for dt in (0.0, 1.0, 1e6):
        _, last = selective_scan(one, dt * one, -one[0], one, one, h0=5 * one, impl=impl)
        assert_close(last, torch.exp(-dt * one) * 5 + dt)  # grows with dt: no zero-order hold


def test_complex_rates_are_pairs_of_modes():
    t, d, n = 20, 3, 4
    u, dt, C = randn(1, t, d, seed=1), uniform(1, t, d, seed=2), randn(1, t, n, seed=3)
    A = torch.complex(-uniform(d, n, seed=4), randn(d, n, seed=5))
    B = randn(1, t, n, dtype=torch.complex128, seed=6)
    y, last = selective_scan(u, dt, A, B, C.to(B.dtype))
    h, total = torch.zeros(1, d, n, dtype=B.dtype), []
    for i in range(t):
        h = torch.exp(dt[:, i, :, None] * A) * h + (dt * u)[:, i, :, None] * B[:, i, None]
        total.append((h * C[:, i, None] + (h * C[:, i, None]).conj()).sum(-1).real)
    assert_close(y, torch.stack(total, dim=1))
    assert_close(last, h)
    with pytest.raises(ValueError, match="complex A needs"):
        selective_scan(u, dt, A, B, C, impl="cpu")


# What mask, reset and state promise


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_masked_step_has_no_effect(impl, dtype):
    tensors = inputs(b=1, t=70, without=("reset",))
    mask = tensors["mask"][0]
    for name in ("u", "dt", "B", "C", "z"):
        tensors[name][:, ~mask] = float("nan")
    tensors = {n: x if x is None or n == "mask" else x.to(dtype) for n, x in tensors.items()}
    y, last = call(impl, **tensors)
    kept = {n: tensors[n][:, mask] for n in ("u", "dt", "B", "C", "z")} | {"mask": None}
    expected, expected_last = call(impl, **tensors | kept)
    assert_close(y[:, mask], expected)
    assert_close(last, expected_last)
    assert not y[:, ~mask].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_masked_step_leaves_the_state_bit_for_bit(dtype):
    tensors = {n: x if x is None or x.dtype == torch.bool else x.to(dtype)
               for n, x in inputs(t=40, without=("reset",)).items()}  # fmt: skip
    tensors["h0"] = tensors["h0"].to(torch.promote_types(dtype, torch.float32))
    _, last = call("cpu", **tensors | {"mask": torch.zeros(2, 40, dtype=torch.bool)})
    assert torch.equal(last, tensors["h0"])
    off = plain_step("cpu", **tensors | {"dt": 0 * tensors["dt"], "dt_bias": None, "mask": None})
    assert torch.equal(off[1], tensors["h0"])


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_gradients_at_masked_steps_are_zero(impl):
    tensors = inputs(t=40)
    for name in ("u", "dt", "B", "C", "z"):
        tensors[name][~tensors["mask"]] = float("nan")
    found = results(call, impl, tensors)
    for name in ("u", "dt", "B", "C", "z"):
        assert not found[f"gradient of {name}"][~tensors["mask"]].any()
    assert all(torch.isfinite(x).all() for x in found.values())


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("where", [0, 4, 32, 39])
def test_reset_starts_a_new_sequence(impl, where):
    tensors = inputs(b=1, t=40, without=("mask",))
    tensors["u"][:, :where] = float("inf")
    reset = torch.zeros(1, 40, dtype=torch.bool)
    reset[0, where] = True
    whole, last = call(impl, **tensors | {"reset": reset})
    tail = {n: tensors[n][:, where:] for n in ("u", "dt", "B", "C", "z")}
    expected, expected_last = call(impl, **tensors | tail | {"h0": None, "reset": None})
    assert_close(whole[:, where:], expected)
    assert_close(last, expected_last)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_chunks_are_the_whole(impl):
    tensors = inputs(t=100)
    y, last = call(impl, **tensors)
    parts, state, start = [], tensors["h0"], 0
    for size in (1, 33, 2, 64):
        over_time = ("u", "dt", "B", "C", "z", "mask", "reset")
        piece = {n: tensors[n][:, start : start + size] for n in over_time}
        part, state = call(impl, **tensors | piece | {"h0": state})
        parts.append(part)
        start += size
    assert_close(torch.cat(parts, dim=1), y)
    assert_close(state, last)


def test_gradients_through_a_carried_state_are_those_of_the_whole():
    def in_two(impl, **tensors):
        over_time = ("u", "dt", "B", "C", "z", "mask", "reset")
        first = {n: tensors[n][:, :37] for n in over_time}
        second = {n: tensors[n][:, 37:] for n in over_time}
        y, state = call(impl, **tensors | first)
        z, last = call(impl, **tensors | second | {"h0": state})
        return torch.cat((y, z), dim=1), last

    tensors = inputs(t=70)
    expected, found = results(call, "cpu", tensors), results(in_two, "cpu", tensors)
    for name, value in expected.items():
        assert_close(found[name], value)


# What it refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": torch.zeros(2, 3)}, "u must be"),
        ({"u": torch.zeros(2, 0, 5)}, "no time steps"),
        ({"A": torch.zeros(4, 3)}, "A must be"),
        ({"dt": torch.zeros(2, 9, 1)}, "dt must be"),
        ({"z": torch.zeros(2, 8, 5)}, "z must be"),
        ({"B": torch.zeros(2, 9, 2, 3)}, "B must be"),
        ({"C": torch.zeros(2, 3, 9)}, "C must be"),
        ({"D": torch.zeros(4)}, "D must be"),
        ({"h0": torch.zeros(2, 3, 5)}, "h0 must be"),
        ({"mask": torch.zeros(2, 9)}, "mask must be"),
        ({"reset": torch.zeros(9, dtype=torch.bool)}, "reset must be"),
    ],
)
def test_wrong_shapes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        call("cpu", **inputs() | change)


# The papers' own numbers


def by_time(x):
    return x.movedim(-1, 1)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_parity_with_mambas_own_scan(impl):
    data = golden("selective_scan")
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    leaves = {n: data[n].requires_grad_() for n in names}
    y, last = selective_scan(
        by_time(leaves["u"]), by_time(leaves["delta"]), leaves["A"], by_time(leaves["B"]),
        by_time(leaves["C"]), leaves["D"], by_time(leaves["z"]),
        dt_bias=leaves["delta_bias"], dt_softplus=True, impl=impl,
    )  # fmt: skip
    assert_parity(y, by_time(data["out"]))
    assert_parity(last, data["last_state"])
    grads = torch.autograd.grad(y, list(leaves.values()), by_time(data["cotangent"]))
    for name, grad in zip(names, grads, strict=True):
        assert_parity(grad, data[f"grad_{name}"])


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_parity_with_mambas_own_scan_in_groups(impl):
    data = golden("selective_scan_grouped")
    y, _ = selective_scan(
        by_time(data["u"]), by_time(data["delta"]), data["A"],
        data["B"].permute(0, 3, 1, 2), data["C"].permute(0, 3, 1, 2), data["D"],
        by_time(data["z"]), dt_bias=data["delta_bias"], dt_softplus=True, impl=impl,
    )  # fmt: skip
    assert_parity(y, by_time(data["out"]))
