import math

import pytest
import torch
from torch.testing import assert_close

from longstate.ops.chunk_scan import chunk_scan, chunks, cpu
from longstate.testing import assert_within_reference_error
from tests.golden import assert_parity, golden
from tests.ops.helpers import (
    assert_concurrent_calls_agree,
    assert_equals_reference,
    assert_thread_count_is_invisible,
    narrow,
    randn,
    results,
    run_python,
    strided,
    uniform,
    widen,
)

LENGTHS = (1, 63, 64, 65, 300)
PRODUCTS = ("chunks", "cpu")


def call(impl, reset=None, mask=None, **tensors):
    return chunk_scan(**tensors, reset=reset, mask=mask, impl=impl)


def case(t, *, b=2, h=4, p=3, g=2, n=5, low=-1.0):
    return {
        "x": randn(b, t, h, p, seed=1),
        "log_a": uniform(b, t, h, low=low, high=0.0, seed=2),
        "B": randn(b, t, g, n, seed=3),
        "C": randn(b, t, g, n, seed=4),
        "h0": randn(b, h, p, n, seed=5),
        "weight": uniform(b, t, h, seed=8),
        "own": randn(b, t, h, seed=9),
        "D": randn(h, seed=10),
    }


ORDER = ("x", "log_a", "weight", "own", "B", "C", "D", "h0")  # of the custom op
PLAIN = {"weight": None, "own": None, "D": None}


def at_times(v, index):
    """The samples of a case at `index`."""
    return {k: x if k in ("h0", "D") else x[:, index] for k, x in v.items()}


def quadratic(x, log_a, B, C, h0, weight, own, D):
    """The dual form over the whole sequence, with L from its definition: one matrix product."""
    t, per_group = x.shape[1], x.shape[2] // B.shape[2]
    B, C = (v.repeat_interleave(per_group, 2) for v in (B, C))
    earlier = torch.ones(t, t, dtype=torch.bool).tril(-1)
    steps = torch.where(earlier, log_a.mT[..., None], 0).cumsum(2)  # (b, h, l, s)
    L = torch.where(earlier, steps, -torch.inf).exp() * weight.mT[:, :, None]
    CB = torch.einsum("blhn,bshn->bhls", C, B)
    M = L * CB + torch.diag_embed(own.mT * CB.diagonal(0, -2, -1) + D[:, None])
    total = log_a.cumsum(1)
    inside = torch.einsum("bhls,bshp->blhp", M, x)
    y = inside + torch.einsum("blhn,bhpn->blhp", C, h0) * total.exp()[..., None]
    behind = torch.nn.functional.pad(log_a[:, 1:], (0, 0, 0, 1)).flip(1).cumsum(1).flip(1)
    to_end = behind.exp() * weight
    last = torch.einsum("bshp,bshn->bhpn", to_end[..., None] * x, B)
    return y, last + total[:, -1, :, None, None].exp() * h0


def assert_within_dual_budget(tensors, impl="chunks"):
    """float32 against products in float32: a loop adds up in another, slightly better order."""

    def dual(_, **v):
        return quadratic(**v)

    low = {k: narrow(x) for k, x in tensors.items()}
    exact = results(call, "reference", {k: widen(x) for k, x in low.items()})
    plain, found = results(dual, "", low), results(call, impl, low)
    for name in exact:
        try:
            assert_within_reference_error(found[name], exact[name], plain[name])
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def flags(b, t):
    return {"reset": uniform(b, t, seed=6) < 0.05, "mask": uniform(b, t, seed=7) < 0.8}


@pytest.mark.parametrize("impl", ["reference", *PRODUCTS])
def test_known_values(impl):
    # a = 1/2, h0 = 1: h = 1/2 + 3 = 3.5, then 1.75 + 1 * 2 = 3.75; y = h C
    def column(*values):
        return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)

    y, last = chunk_scan(
        column(3, 1),
        torch.full((1, 2, 1), math.log(0.5), dtype=torch.float64),
        column(1, 2),
        column(2, -1),
        torch.ones(1, 1, 1, 1, dtype=torch.float64),
        impl=impl,
    )
    assert_close(y.flatten(), torch.tensor([7.0, -3.75], dtype=torch.float64))
    assert_close(last.item(), 3.75)


@pytest.mark.parametrize("impl", PRODUCTS)
@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("g", [1, 2, 4])
def test_chunks_are_the_recurrence(t, g, impl):
    assert_equals_reference(call, impl, case(t, g=g))
    assert_equals_reference(call, impl, case(t, g=g) | PLAIN | {"h0": None})
    assert_equals_reference(call, impl, case(t, g=g) | flags(2, t))


@pytest.mark.parametrize("impl", PRODUCTS)
@pytest.mark.parametrize("entries", [1, 4 * 64**2, 2 * 4 * 64**2, 8 * 4 * 64**2, 2**20])
def test_any_tiling(monkeypatch, entries, impl):
    """One chunk of one row at a time, some rows, some chunks, everything at once."""
    monkeypatch.setitem(chunks._TILE, "cpu", entries)
    monkeypatch.setattr(cpu, "_TILE", 8 * entries)
    tensors = case(200, b=4) | flags(4, 200)
    assert_equals_reference(call, impl, tensors)
    with torch.no_grad():  # then the states between chunks are not kept
        assert_close(call(impl, **tensors), call("reference", **tensors))


@pytest.mark.parametrize("impl", PRODUCTS)
def test_awkward_strides(impl):
    assert_equals_reference(call, impl, {k: strided(v) for k, v in case(130).items()})


def test_threads():
    v = {k: x.float() for k, x in case(200, h=8, p=16, n=16).items()}
    assert_thread_count_is_invisible(call, v)
    assert_concurrent_calls_agree(call, v)


@pytest.mark.parametrize("impl", ["reference", *PRODUCTS])
def test_quadratic_form(impl):
    v = case(150)
    assert_close(chunk_scan(**v, impl=impl), quadratic(**v))


def test_golden():
    data = golden("ssd")
    x, dt = data["x"], data["dt"]
    v = {"x": x * dt[..., None], "log_a": dt * data["A"], "B": data["B"], "C": data["C"]}
    for impl in ("reference", *PRODUCTS):
        y, last = chunk_scan(**v, impl=impl)
        assert_parity(y, data["y"])
        assert_parity(last, data["final_state"])
        y, last = chunk_scan(**v, h0=data["initial_state"], impl=impl)
        assert_parity(y, data["y_with_initial_state"])
        assert_parity(last, data["final_state_with_initial_state"])


def test_pieces_are_the_whole():
    v = case(200)
    y, last = chunk_scan(**v)
    pieces = []
    for start, stop in ((0, 1), (1, 70), (70, 134), (134, 200)):
        piece, v["h0"] = chunk_scan(**at_times(v, slice(start, stop)))
        pieces.append(piece)
    assert_close(torch.cat(pieces, 1), y)
    assert_close(v["h0"], last)


def test_a_reset_starts_from_a_zero_state():
    v = case(150)
    reset = torch.zeros(2, 150, dtype=torch.bool)
    reset[:, 70] = True
    y, last = chunk_scan(**v, reset=reset)
    first, _ = chunk_scan(**at_times(v, slice(70)))
    second, after = chunk_scan(**at_times(v | {"h0": None}, slice(70, None)))
    assert_close(y, torch.cat([first, second], 1))
    assert_close(last, after)


def test_masked_steps_have_no_effect():
    v = case(100, b=1)
    mask = flags(1, 100)["mask"]
    hostile = {
        k: x
        if k in ("h0", "D")
        else x.masked_fill(~mask.view(1, -1, *[1] * (x.dim() - 2)), torch.nan)
        for k, x in v.items()
    }
    y, last = chunk_scan(**hostile, mask=mask)
    alone, after = chunk_scan(**at_times(v, mask[0]))
    assert not y[~mask].any()
    assert_close(y[mask][None], alone)
    assert_close(last, after)


def test_gradcheck_and_opcheck():
    v = {k: x.requires_grad_() for k, x in case(9, b=1, h=2, g=1, p=2, n=2).items()}
    assert torch.autograd.gradcheck(
        lambda *a: chunk_scan(**dict(zip(v, a, strict=True))), list(v.values())
    )
    v = {k: x.requires_grad_() for k, x in case(16, b=1, h=2, g=1, p=2, n=2).items()}
    for keep in (True, False):
        inputs = [v[k] if keep else v[k].detach() for k in ORDER]
        for impl in PRODUCTS:
            torch.library.opcheck(torch.ops.longstate.chunk_scan, (*inputs, 8, keep, impl))


def test_only_the_last_state_is_used():
    v = {k: x.requires_grad_() for k, x in case(70).items()}
    for part in (0, 1):
        loss = chunk_scan(**v)[part].sum()
        expected = chunk_scan(**v, impl="reference")[part].sum()
        wanted = [x for k, x in v.items() if part == 0 or k not in ("C", "own", "D")]
        assert_close(torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted))


def test_own_is_weight_by_default():
    v = case(70)
    assert torch.equal(
        chunk_scan(**v | {"own": None})[0], chunk_scan(**v | {"own": v["weight"]})[0]
    )


def test_nothing_is_kept_without_gradients():
    v = case(130)
    with torch.no_grad():
        quiet = chunk_scan(**v)
    assert_close(quiet, chunk_scan(**{k: x.requires_grad_() for k, x in v.items()}), rtol=0, atol=0)
    inputs = [at_times(v, slice(128))[k].detach() for k in ORDER]
    for impl in PRODUCTS:
        *_, states = torch.ops.longstate.chunk_scan(*inputs, 64, False, impl)
        assert states.numel() == 0


def test_later_inputs_do_not_change_earlier_outputs():
    v = case(100)
    y, _ = chunk_scan(**v)
    v["x"][:, 37:], v["B"][:, 37:] = 5.0, -2.0
    assert torch.equal(chunk_scan(**v)[0][:, :37], y[:, :37])


def test_fresh_memory_is_never_read():
    print_values = """
import torch
torch.use_deterministic_algorithms(True)
torch.utils.deterministic.fill_uninitialized_memory = True
from tests.ops.test_chunk_scan import *
for impl in PRODUCTS:
    found = results(call, impl, case(200) | flags(2, 200))
    print(all(bool(v.isfinite().all()) for v in found.values()))
"""
    assert run_python(print_values).split() == ["True", "True"]


def test_refusals():
    v = case(4)
    with pytest.raises(ValueError, match="groups that divide 4"):
        chunk_scan(**v | {"B": randn(2, 4, 3, 5), "C": randn(2, 4, 3, 5)})
    for name in ("log_a", "weight", "own"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            chunk_scan(**v | {name: v[name][..., :1]})
    with pytest.raises(ValueError, match="D must be"):
        chunk_scan(**v | {"D": v["D"][:1]})
    with pytest.raises(ValueError, match="shape of B"):
        chunk_scan(**v | {"C": v["C"][..., :1]})
    with pytest.raises(ValueError, match="h0 must be"):
        chunk_scan(**v | {"h0": v["h0"][:1]})
    with pytest.raises(ValueError, match="mask must be"):
        chunk_scan(**v, mask=torch.ones(2, 4))
    with pytest.raises(ValueError, match="no time steps"):
        chunk_scan(**at_times(v, slice(0)))
    with pytest.raises(ValueError, match="impl must be"):
        chunk_scan(**v, impl="magic")
