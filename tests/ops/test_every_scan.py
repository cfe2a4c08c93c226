"""Tests of all input-dependent scans, in one table with a line for each rule."""

from typing import NamedTuple

import pytest
import torch

from longstate.ops._layout import Rows
from longstate.ops._numba.scan import rule
from tests.ops import own_exponentials, own_rule
from tests.ops import test_longhorn_scan as longhorn
from tests.ops import test_selective_scan as selective
from tests.ops.helpers import (
    assert_equals_reference,
    assert_thread_count_is_invisible,
    assert_within_budget,
    results,
    strided,
)

SCANS = {
    "selective": (selective.call, selective.inputs),
    "longhorn, diagonal": (longhorn.diagonal, longhorn.inputs),
    "longhorn, exact": (longhorn.exact, longhorn.inputs),
    "a rule of one's own": (own_rule.call, own_rule.inputs),
}
every_scan = pytest.mark.parametrize(("call", "inputs"), SCANS.values(), ids=SCANS)
OPTIONAL = ("z", "mask", "reset")


@every_scan
@pytest.mark.parametrize("t", [1, 31, 32, 33, 100])  # a chunk has 32 steps
def test_equals_the_reference(call, inputs, t):
    assert_equals_reference(call, "cpu", inputs(t=t, d=70))


@every_scan
@pytest.mark.parametrize("without", [*((name,) for name in OPTIONAL), OPTIONAL])
def test_without_optional_arguments(call, inputs, without):
    assert_equals_reference(call, "cpu", inputs(t=40, without=without))


@every_scan
def test_one_state_per_channel_leaves_the_inputs_as_they_are(call, inputs):
    """Tiles of whole blocks of channels with one state have the layout of the inputs."""
    tensors = inputs(t=40, d=64, n=1)
    before = {name: x.clone() for name, x in tensors.items()}
    assert_equals_reference(call, "cpu", tensors)
    with torch.no_grad():
        call(**tensors, impl="cpu")
    for name, x in tensors.items():
        torch.testing.assert_close(x, before[name], rtol=0, atol=0)


@every_scan
def test_takes_any_strides(call, inputs):
    tensors = {name: strided(x) for name, x in inputs(t=34, d=70).items()}
    assert_equals_reference(call, "cpu", tensors)


@every_scan
def test_a_batch_of_no_rows(call, inputs):
    tensors = inputs(b=0, t=34)
    found, expected = results(call, "cpu", tensors), results(call, "reference", tensors)
    assert {name: x.shape for name, x in found.items()} == {
        name: x.shape for name, x in expected.items()
    }


@every_scan
def test_gradcheck(call, inputs):
    tensors = inputs(t=4, d=2, n=2)
    marks = {name: tensors.pop(name) for name in ("mask", "reset")}
    names, values = zip(*tensors.items(), strict=True)
    torch.autograd.gradcheck(
        lambda *p: call("cpu", **dict(zip(names, p, strict=True)), **marks),
        [x.requires_grad_() for x in values],
    )


@every_scan
def test_forward_mode_tangents_are_computed(call, inputs):
    tensors = inputs(t=4, d=2, n=2)
    first = next(iter(tensors))
    x, tensors = tensors[first], {name: x for name, x in tensors.items() if name != first}
    v, w = torch.linspace(-1, 1, x.numel()).view(x.shape).to(x), torch.cos(x)
    tangent = torch.func.jvp(lambda x: call("cpu", **{first: x}, **tensors)[0], (x,), (v,))[1]
    y = call("cpu", **{first: x.requires_grad_()}, **tensors)[0]
    (gradient,) = torch.autograd.grad((y * w.detach()).sum(), x)
    torch.testing.assert_close((tangent * w.detach()).sum(), (gradient * v).sum())


@every_scan
@pytest.mark.parametrize("b", [1, 2])
def test_float32_error_budget_of_long_products(call, inputs, b):
    """Without a reset a state passes through all steps: errors of the decays add up."""
    tensors = inputs(b=b, t=100, d=20, n=3, without=("reset",))
    exactly = own_exponentials.exact_call(tensors) if call is selective.call else None
    assert_within_budget(call, "cpu", tensors, exactly)


@every_scan
def test_the_number_of_threads_does_not_change_results(call, inputs):
    assert_thread_count_is_invisible(call, inputs(t=70, d=300, n=5))


@every_scan
@pytest.mark.parametrize("name", ["input", "z"])
def test_nonfinite_values_stay_in_their_row(call, inputs, name):
    """Two threads, so that one takes a short block of row 1 after a full one of row 2."""
    tensors = inputs(b=3, t=64, d=70, without=("mask", "reset"))
    first = next(iter(tensors)) if name == "input" else name
    spoilt = tensors[first].clone()
    spoilt[2, [5, 40]] = torch.nan
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected, found = (
            results(call, "cpu", tensors | {first: x}) for x in (tensors[first], spoilt)
        )
    finally:
        torch.set_num_threads(before)
    for key, x in found.items():
        if len(x) == 3:  # rows of the batch; parameters are shared by all
            torch.testing.assert_close(x[:2], expected[key][:2], rtol=0, atol=0)
            assert torch.equal(x.isfinite()[:2], torch.ones_like(x[:2], dtype=torch.bool))


def test_a_rule_without_a_required_function_is_refused():
    with pytest.raises(TypeError, match="Nothing lacks tiles, begin"):

        @rule()
        class Nothing(NamedTuple):
            x: Rows
