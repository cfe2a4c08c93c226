"""chunk_scan in narrow types, and with decays of very different sizes."""

import pytest
import torch
from torch.testing import assert_close

from longstate.testing import assert_within_reference_error
from tests.ops.helpers import assert_equals_reference, results
from tests.ops.test_chunk_scan import assert_within_dual_budget, call, case


def test_large_decays_do_not_affect_other_samples():
    """Sums of logarithms up to 1e5 within a chunk, beside decays near 1, forgetting and none."""
    v = case(130)
    v["log_a"][:, ::7] = -1e3
    v["log_a"][:, 40:60] = -1e4
    v["log_a"][:, 61:110] = -1e-3
    v["log_a"][:, 115] = 0.0
    assert_equals_reference(call, "chunks", v)
    assert_within_dual_budget(v)
    v["log_a"][:, [3, 64, 90]] = -torch.inf
    found = results(call, "chunks", v)
    # the loop's own gradient is not a number there: exp is 0 and its logarithm infinite
    loop = results(call, "reference", v | {"log_a": v["log_a"].clamp(min=-2e3)})
    for name, value in loop.items():
        assert_close(found[name], value, msg=name)


@pytest.mark.parametrize("low", [-1.0, -0.1, -0.001])
def test_float32_is_as_accurate_as_plain_products(low):
    assert_within_dual_budget(case(130, b=1, n=64, p=32, low=low))
    assert_within_dual_budget(case(63, n=16, p=8, low=low))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs(dtype):
    """Outputs and gradients come back in the narrow type, the state in float32."""
    low = {k: x.to(dtype) for k, x in case(100).items()}
    for name in ("log_a", "weight", "own", "h0"):
        low[name] = low[name].float()
    exact = results(call, "reference", {k: x.double() for k, x in low.items()})
    plain = results(call, "reference", low)
    found = results(call, "chunks", low)
    assert found["output 0"].dtype == dtype
    assert found["output 1"].dtype == torch.float32
    for name in exact:
        assert_within_reference_error(found[name], exact[name], plain[name])
