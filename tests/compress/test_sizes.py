"""The curve of state sizes against a metric: what is measured, of which model, in what time."""

import itertools

import pytest
import torch
from torch.utils._pytree import tree_leaves

from longstate.compress import _sizes as sizes
from longstate.compress import size_curve
from longstate.errors import InputError
from longstate.layers import LSTM, S4D, Mamba2
from longstate.models import Stack


def state_of(model):
    return sum(x.numel() * x.element_size() for x in tree_leaves(model.init_state(1)))


def outputs(u):
    """A metric that sees every layer: the energy of the output."""
    return lambda model: float(model(u)[0].square().mean())


@pytest.fixture
def stack():
    torch.manual_seed(0)
    return Stack([S4D(4, d_state=16), Mamba2(4, d_state=8, d_head=4)]).eval()


def test_sizes_and_metrics_are_those_of_the_model_that_was_measured(stack):
    u = torch.randn(2, 50, 4)
    measured = []

    def metric(model):
        measured.append((state_of(model), outputs(u)(model)))
        return measured[-1][1]

    with torch.no_grad():
        before = outputs(u)(stack)
        curve = size_curve(stack, metric, u, shares=(1.0, 0.5, 0.25))
        assert outputs(u)(stack) == before  # its layers are back
    assert [(p.bytes, p.metric) for p in curve.points] == measured
    assert measured[0] == (state_of(stack), before)
    assert measured[0][0] > measured[1][0] > measured[2][0]
    assert curve.left_out == ()
    whole, small = curve.points[0], curve.points[-1]
    first, second = curve.sentence.split(", with ")
    assert f"{whole.bytes:,} bytes" in first
    assert f"{small.bytes:,} bytes" in second


def test_a_single_layer_is_measured_as_itself():
    torch.manual_seed(0)
    layer, u = S4D(3, d_state=16).eval(), torch.randn(1, 30, 3)
    curve = size_curve(layer, outputs(u), shares=(1.0, 0.5))
    assert [p.bytes for p in curve.points] == [state_of(layer), state_of(layer) // 2]
    with torch.no_grad():
        assert curve.points[0].metric == outputs(u)(layer)
    assert curve.points[1].metric != curve.points[0].metric


@pytest.mark.parametrize(("seconds", "count"), [(0.0, 1), (25.0, 2), (1000.0, 4)])
def test_no_share_is_begun_that_would_end_too_late(seconds, count, monkeypatch):
    clock = itertools.count(step=5.0)  # a share takes 5 s, and is asked for when 5 s have passed
    monkeypatch.setattr(sizes.time, "monotonic", lambda: next(clock))
    layer, shares = S4D(2, d_state=16), (1.0, 0.5, 0.25, 0.125)
    curve = size_curve(layer, lambda model: 0.0, shares=shares, seconds=seconds)
    assert [p.keep for p in curve.points] == list(shares[:count])
    assert curve.left_out == shares[count:]


def test_a_model_without_a_state_to_reduce_is_refused():
    with pytest.raises(InputError, match="no layer whose state can be smaller"):
        size_curve(Stack([LSTM(4)]), lambda model: 0.0)
