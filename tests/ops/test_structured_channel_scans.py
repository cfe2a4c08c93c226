"""dplr_channel_scan and allpass_channel_scan: every implementation against the reference."""

import pytest
import torch
from torch.testing import assert_close

from tests.ops.helpers import (
    assert_concurrent_calls_agree,
    assert_equals_reference,
    assert_survives_fork,
    assert_thread_count_is_invisible,
    assert_within_budget,
    narrow,
    results,
    strided,
    uniform,
)
from tests.ops.structured_channels import CASES, dplr

every_scan = pytest.mark.parametrize(("call", "inputs"), CASES.values(), ids=CASES)
every_form = pytest.mark.parametrize("impl", ["cpu", "chunks"])


def flagged(tensors):
    b, t, _ = tensors["u"].shape
    flags = {"mask": uniform(b, t, seed=8) < 0.8, "reset": uniform(b, t, seed=9) < 0.2}
    return tensors | flags


@every_scan
@every_form
@pytest.mark.parametrize("t", [1, 31, 32, 33, 100])  # the kernels keep one state in 32
def test_equals_the_reference(call, inputs, impl, t):
    assert_equals_reference(call, impl, inputs(t=t))


@every_scan
@every_form
def test_lengths_stop_the_state(call, inputs, impl):
    t = 70
    lengths = torch.tensor([70, 64, 33, 32, 1, 0])
    inside = (torch.arange(t) < lengths[:, None])[..., None]

    def padded(impl, **tensors):
        y, last = call(impl, lengths=lengths, **tensors)
        return y * inside, last  # outputs at padding are without meaning

    assert_equals_reference(padded, impl, inputs(b=len(lengths), t=t))


@every_scan
@every_form
def test_masks_and_resets(call, inputs, impl):
    assert_equals_reference(call, impl, flagged(inputs()))


@every_scan
def test_without_an_initial_state(call, inputs):
    tensors = inputs()
    del tensors["h0"]
    assert_equals_reference(call, "cpu", tensors)


@every_scan
@pytest.mark.parametrize(("d", "n"), [(1, 1), (16, 2), (17, 3), (32, 1), (33, 2), (3, 33)])
def test_cpu_at_the_edges_of_a_block(call, inputs, d, n):
    assert_equals_reference(call, "cpu", inputs(b=3, t=34, d=d, n=n))


@every_scan
def test_cpu_takes_any_strides(call, inputs):
    assert_equals_reference(call, "cpu", {k: strided(x) for k, x in inputs().items()})


@every_scan
@every_form
def test_gradient_of_one_result_alone(call, inputs, impl):
    def last(impl, **tensors):
        y, last = call(impl, **tensors)
        return y[:, :0], last

    assert_equals_reference(lambda impl, **kw: call(impl, **kw)[:1], impl, inputs())
    assert_equals_reference(last, impl, inputs())


@every_scan
def test_inputs_are_not_overwritten(call, inputs):
    tensors = inputs()
    before = {name: x.clone() for name, x in tensors.items()}
    results(call, "cpu", tensors)
    for name, x in tensors.items():
        assert torch.equal(x, before[name])


@every_scan
def test_gradcheck(call, inputs):
    tensors = {name: x.requires_grad_() for name, x in inputs(t=5, d=2).items()}
    torch.autograd.gradcheck(
        lambda *p: call("cpu", **dict(zip(tensors, p, strict=True))), tuple(tensors.values())
    )


@every_scan
def test_opcheck(call, inputs):
    tensors = [x.requires_grad_() for x in inputs(t=5).values()]
    lengths = torch.tensor([5, 3])
    op = torch.ops.longstate
    op = op.dplr_channel_scan if call is dplr else op.allpass_channel_scan
    torch.library.opcheck(op, (*tensors, lengths, "cpu", True))


@every_scan
@every_form
def test_float32_error_budget(call, inputs, impl):
    assert_within_budget(call, impl, inputs(t=300, d=7, n=16))


@every_scan
def test_a_nan_affects_its_channel_and_what_follows(call, inputs):
    for narrowed in (False, True):
        tensors = inputs(b=3)
        if narrowed:
            tensors = {name: narrow(x) for name, x in tensors.items()}
        tensors["u"][0, 3, 1] = torch.nan
        tensors["h0"][1, 2] = torch.inf
        found, expected = call("cpu", **tensors)[0], call("reference", **tensors)[0]
        hit = torch.zeros_like(found, dtype=torch.bool)
        hit[0, 3:, 1] = hit[1, :, 2] = True
        assert torch.equal(found.isfinite(), ~hit)
        assert_close(found[~hit], expected[~hit])


@every_scan
def test_a_reset_removes_a_nan(call, inputs):
    tensors = inputs(t=6)
    tensors["u"][:, 2] = torch.nan
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[:, 3] = True
    y, last = call("cpu", **tensors, reset=reset)
    assert y[:, 3:].isfinite().all()
    assert last.isfinite().all()


# Threads and processes

LARGE = {"b": 4, "t": 70, "d": 80, "n": 16}


@every_scan
def test_sixteen_threads_at_once(call, inputs):
    assert_concurrent_calls_agree(call, inputs(**LARGE))


@every_scan
def test_the_number_of_threads_does_not_change_results(call, inputs):
    assert_thread_count_is_invisible(call, inputs(**LARGE))


@pytest.mark.parametrize("name", ["dplr", "allpass"])
def test_fork_after_first_use(name):
    assert_survives_fork(
        "from tests.ops.structured_channels import CASES\n"
        "from tests.ops.test_structured_channel_scans import LARGE\n"
        f"call, inputs = CASES[{name!r}]; tensors = inputs(**LARGE)"
    )
