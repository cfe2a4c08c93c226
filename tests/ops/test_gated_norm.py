"""gated_norm: the reference against PyTorch's own norm, the kernel against the reference."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.ops import gated_norm
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import (
    assert_bitwise,
    assert_concurrent_calls_agree,
    assert_equals_reference,
    assert_same_where_finite,
    assert_thread_count_is_invisible,
    assert_within_budget,
    randn,
    results,
    run_python,
    strided,
)


def call(impl, y, z, weight, groups=1):
    return (gated_norm(y, z, weight, groups=groups, impl=impl),)


def grouped(impl, **tensors):
    return call(impl, **tensors, groups=3)


def inputs(*shape):
    return {
        "y": randn(*shape, seed=1),
        "z": randn(*shape, seed=2),
        "weight": randn(shape[-1], seed=3),
    }


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_is_pytorchs_norm_of_the_gated_input(impl):
    v = inputs(2, 5, 6)
    gated = (v["y"] * F.silu(v["z"])).unflatten(-1, (3, 2))
    expected = F.rms_norm(gated, (2,), eps=1e-5).flatten(-2) * v["weight"]
    assert_close(grouped(impl, **v)[0], expected)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 63, 6), (3, 33, 300), (129, 9), (12,)])
def test_kernel_is_the_reference(shape):
    for run in (call, grouped):
        assert_equals_reference(run, "cpu", inputs(*shape))
        assert_within_budget(run, "cpu", inputs(*shape))


def test_parts_of_a_projection_are_read_in_place():
    whole = randn(2, 40, 30)
    y, z = whole[..., 3:15], whole[..., 18:]
    v = {"y": y, "z": z, "weight": randn(12, seed=3)}
    dense = {name: x.contiguous() for name, x in v.items()}
    assert_bitwise(results(grouped, "cpu", v), results(grouped, "cpu", dense))
    assert_equals_reference(grouped, "cpu", {name: strided(x) for name, x in v.items()})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs(dtype):
    low = {name: x.to(dtype) for name, x in inputs(2, 33, 48).items()}
    exact = results(grouped, "reference", {name: x.double() for name, x in low.items()})
    plain, found = results(grouped, "reference", low), results(grouped, "cpu", low)
    for name in exact:
        assert_within_reference_error(found[name], exact[name], plain[name])


def test_not_a_number_stays_in_its_group():
    v = inputs(2, 5, 6)
    v["y"][1, 2, 0], v["z"][0, 3, 5], v["y"][0, 0, 2] = torch.nan, torch.nan, torch.inf
    assert_same_where_finite(grouped("cpu", **v)[0], grouped("reference", **v)[0])


def test_no_rows():
    v = inputs(0, 4, 6)
    assert grouped("cpu", **v)[0].shape == (0, 4, 6)
    assert not results(grouped, "cpu", v)["gradient of weight"].any()


def test_threads():
    v = inputs(2, 300, 96)
    assert_thread_count_is_invisible(grouped, v)
    assert_concurrent_calls_agree(grouped, v)


def test_gradcheck_and_opcheck():
    v = [x.requires_grad_() for x in inputs(2, 3, 6).values()]
    assert torch.autograd.gradcheck(lambda *v: gated_norm(*v, groups=3), v)
    assert torch.autograd.gradgradcheck(lambda *v: gated_norm(*v, groups=3), v)
    torch.library.opcheck(torch.ops.longstate.gated_norm, (*v, 3, 1e-5, "cpu"))


def test_fresh_memory_is_never_read():
    print_values = """
import torch
torch.use_deterministic_algorithms(True)
torch.utils.deterministic.fill_uninitialized_memory = True
from tests.ops.test_gated_norm import *
print(all(bool(v.isfinite().all()) for v in results(grouped, "cpu", inputs(2, 63, 6)).values()))
"""
    assert run_python(print_values).strip() == "True"


def test_refusals():
    v = inputs(2, 4, 6)
    with pytest.raises(ValueError, match="z must be"):
        call("auto", **v | {"z": v["z"][..., :3]})
    with pytest.raises(ValueError, match="weight must be"):
        call("auto", **v | {"weight": v["weight"][:3]})
    for groups in (0, 4):
        with pytest.raises(ValueError, match="groups must divide the 6 channels"):
            call("auto", **v, groups=groups)
    with pytest.raises(ValueError, match="no Triton kernel"):
        call("triton", **v)
