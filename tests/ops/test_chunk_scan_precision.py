"""chunk_scan in narrow types, and with decays of very different sizes."""

import pytest
import torch
from torch.testing import assert_close

from longstate.testing import assert_within_reference_error
from tests.ops.helpers import assert_equals_reference, assert_thread_count_is_invisible, results
from tests.ops.test_chunk_scan import ORDER, PRODUCTS, assert_within_dual_budget, call, case


@pytest.mark.parametrize("impl", PRODUCTS)
def test_large_decays_do_not_affect_other_samples(impl):
    """Sums of logarithms up to 1e5 within a chunk, beside decays near 1, forgetting and none."""
    v = case(130)
    v["log_a"][:, ::7] = -1e3
    v["log_a"][:, 40:60] = -1e4
    v["log_a"][:, 61:110] = -1e-3
    v["log_a"][:, 115] = 0.0
    assert_equals_reference(call, impl, v)
    assert_within_dual_budget(v, impl)
    v["log_a"][:, [3, 64, 90]] = -torch.inf
    found = results(call, impl, v)
    # the loop's own gradient is not a number there: exp is 0 and its logarithm infinite
    loop = results(call, "reference", v | {"log_a": v["log_a"].clamp(min=-2e3)})
    for name, value in loop.items():
        assert_close(found[name], value, msg=name)


@pytest.mark.parametrize("impl", PRODUCTS)
@pytest.mark.parametrize("low", [-1.0, -0.1, -0.001])
def test_float32_is_as_accurate_as_plain_products(low, impl):
    assert_within_dual_budget(case(130, b=1, n=64, p=32, low=low), impl)
    assert_within_dual_budget(case(63, n=16, p=8, low=low), impl)


def narrowed(dtype, **sizes):
    """A case as layers have it: decays, weights and states in float32."""
    low = {k: x.to(dtype) for k, x in case(**sizes).items()}
    return low | {k: low[k].float() for k in ("log_a", "weight", "own", "h0")}


def assert_as_accurate(plain, impl, low):
    exact = results(call, "reference", {k: x.double() for k, x in low.items()})
    found = results(call, impl, low)
    assert found["output 0"].dtype == low["x"].dtype
    assert found["output 1"].dtype == torch.float32
    for name in exact:
        assert_within_reference_error(found[name], exact[name], plain[name])


@pytest.mark.parametrize(
    ("dtype", "impl"),
    [(torch.bfloat16, "chunks"), (torch.float16, "chunks"), (torch.float16, "cpu")],
)
def test_narrow_inputs(dtype, impl):
    """Outputs and gradients come back in the narrow type, the state in float32."""
    low = narrowed(dtype, t=100)
    assert_as_accurate(results(call, "reference", low), impl, low)


def products_in_bfloat16(_, x, log_a, B, C, h0, weight, own, D):
    """The dual form over the whole sequence: operands and results of products in bfloat16."""
    t, per_group = x.shape[1], x.shape[2] // B.shape[2]
    B, C = (v.repeat_interleave(per_group, 2) for v in (B, C))
    earlier = torch.ones(t, t, dtype=torch.bool).tril(-1)
    steps = torch.where(earlier, log_a.mT[..., None], 0).cumsum(2)
    L = torch.where(earlier, steps, -torch.inf).exp() * weight.mT[:, :, None]
    CB = torch.einsum("blhn,bshn->bhls", C, B)
    M = L * CB + torch.diag_embed(own.mT * CB.diagonal(0, -2, -1) + D[:, None])
    y = torch.einsum("bhls,bshp->blhp", M.bfloat16(), x)
    total = log_a.cumsum(1)
    y = y + torch.einsum("blhn,bhpn->blhp", C, h0.bfloat16()) * total.exp()[..., None]
    behind = torch.nn.functional.pad(log_a[:, 1:], (0, 0, 0, 1)).flip(1).cumsum(1).flip(1)
    weighed = ((behind.exp() * weight)[..., None] * x).bfloat16()
    last = torch.einsum("bshp,bshn->bhpn", weighed, B).float()
    return y.to(x.dtype), last + total[:, -1, :, None, None].exp() * h0


@pytest.mark.parametrize(
    "sizes",
    [{"t": 65, "g": 4}, {"t": 300, "b": 1, "n": 64, "p": 32, "low": -0.1}, {"t": 7, "b": 3}],
)
@pytest.mark.parametrize("multiplies", [True, False])
def test_bfloat16_is_as_accurate_as_plain_products(monkeypatch, sizes, multiplies):
    """On processors that multiply it, and on others, which multiply float32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies)
    low = narrowed(torch.bfloat16, **sizes)
    plain = results(products_in_bfloat16 if multiplies else call, "reference", low)
    assert_as_accurate(plain, "cpu", low)


def test_type_of_products(monkeypatch):
    """bfloat16 if the processor multiplies it and all operands are; what runs along is float32."""
    v = narrowed(torch.bfloat16, t=130)
    inputs = [v[k] for k in ORDER]
    for multiplies, kind in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda yes=multiplies: yes)
        _, last, states = torch.ops.longstate.chunk_scan(*inputs, 64, True, "cpu")
        assert (states.dtype, last.dtype) == (kind, torch.float32)
    inputs[ORDER.index("B")] = v["B"].float()
    assert torch.ops.longstate.chunk_scan(*inputs, 64, True, "cpu")[2].dtype == torch.float32


def test_bfloat16_with_samples_that_are_not_finite():
    v = narrowed(torch.bfloat16, t=130, b=1)
    y, _ = call("cpu", **v)
    v["x"][0, 70, 1, 2] = torch.nan
    spoiled, last = call("cpu", **v)
    assert torch.equal(spoiled[:, :70], y[:, :70])
    assert spoiled[0, 70:, 1, 2].isnan().all()
    assert last[0, 1, 2].isnan().all()
    assert spoiled.isnan().sum() == 60


def test_threads_in_bfloat16():
    v = narrowed(torch.bfloat16, t=200, h=8, p=16, n=16)
    assert_thread_count_is_invisible(call, v)
