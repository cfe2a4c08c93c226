"""A sample that is not finite reaches later outputs of its own row, and nothing else."""

import math

import pytest
import torch
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves, tree_map

from longstate.layers import DSS, S4, S4D, S5
from longstate.testing._states import annotations_unchecked, random_state
from tests.layers.test_contract import LAYERS, NO_DT

ROW = 1


def exactly(found, expected) -> None:
    assert_close(found, expected, rtol=0, atol=0)


def others(state):
    return [s[[0, 2]] for s in tree_leaves(state)]


# tanh and sigmoid of infinity are 1, and so is a rate
SATURATING = (
    *("elman", "gru", "lstm", "cfc", "cfc-no-gate", "cfc-pure", "timed-cell", "grud"),
    *("spiking-s4d", "spiking-mamba"),
)
MISSING = ("grud",)  # NaN is a missing value there


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("time", [9, 150])  # one chunk of every layer that has chunks, and several
@pytest.mark.parametrize("name", LAYERS)
def test_nonfinite_input_reaches_only_later_samples_of_its_row(name, time, value):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    u, state = torch.randn(3, time, layer.d_model, dtype=torch.float64), random_state(layer, 3)
    mask = torch.rand(3, time) < 0.8
    calls = [{}, {"mask": mask}]
    if name not in NO_DT:
        calls.append({"dt": torch.rand(3, time, dtype=torch.float64)})
    for at in (0, 4, time - 2):
        mask[ROW, at] = True
        reset = torch.zeros(3, time, dtype=torch.bool)
        reset[ROW, at + 1] = True
        hostile = u.clone()
        hostile[ROW, at, 0] = value
        for call in [*calls, {"reset": reset}]:
            with torch.no_grad():
                (y, after), (found, spoiled) = (layer(x, state, **call) for x in (u, hostile))
            exactly(found[[0, 2]], y[[0, 2]])
            exactly(others(spoiled), others(after))
            exactly(found[ROW, :at], y[ROW, :at])
            if name not in (SATURATING if value is math.inf else MISSING):
                assert not found[ROW, at].isfinite().all()
        # the last call has a reset, behind which all is as if nothing had been
        assert_close(found[ROW, at + 1 :], y[ROW, at + 1 :])
        assert_close(spoiled, after)


@pytest.mark.parametrize("name", LAYERS)
def test_a_nonfinite_state_affects_only_its_row(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    u, state = torch.randn(3, 9, layer.d_model, dtype=torch.float64), random_state(layer, 3)
    reset = torch.zeros(3, 9, dtype=torch.bool)
    reset[ROW, 2] = True
    bad = tree_map(lambda s: s.clone(), state)
    leaf = max((s for s in tree_leaves(bad) if s.dim() > 1), key=torch.Tensor.numel)
    leaf[ROW] = math.nan
    with torch.no_grad():
        (y, after), (found, spoiled) = (layer(u, s, reset=reset) for s in (state, bad))
    exactly(found[[0, 2]], y[[0, 2]])
    exactly(others(spoiled), others(after))
    assert_close(found[ROW, 2:], y[ROW, 2:])


@pytest.mark.parametrize("name", ["s4-legs", "mamba2", "mamba3-rational", "attention"])
def test_also_in_a_compiled_graph_and_in_transforms(name):
    torch.manual_seed(0)
    torch._dynamo.reset()
    layer = LAYERS[name]().double()
    u = torch.randn(3, 21, layer.d_model, dtype=torch.float64)
    hostile = u.clone()
    hostile[ROW, 4] = math.nan
    reset = torch.zeros(3, 21, dtype=torch.bool)
    reset[ROW, 9] = True

    def rows(x, reset):
        return torch.func.vmap(lambda x: layer(x[None])[0][0])(x)

    runs = [rows]
    if name != "s4-legs":  # whose sequences between resets have lengths that depend on values
        runs.append(torch.compile(lambda x, reset: layer(x, reset=reset)[0], backend="aot_eager"))
    runs.append(torch.compile(lambda x, reset: layer(x)[0], backend="aot_eager", fullgraph=True))
    with annotations_unchecked():
        for run in runs:
            y, found = run(u, reset), run(hostile, reset)
            assert_close(found[[0, 2]], y[[0, 2]])
            assert_close(found[ROW, :4], y[ROW, :4])
            assert not found[ROW, 4].isfinite().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_training_and_narrow_types(name, dtype):
    """Gradients of other rows stay as they were, too."""
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    u, state = torch.randn(3, 70, layer.d_model).to(dtype), random_state(layer, 3)
    hostile = u.clone()
    hostile[ROW, 30, -1] = math.nan
    found = []
    for x in (u, hostile):
        x.requires_grad_()
        y, after = layer(x, state)
        (gradient,) = torch.autograd.grad(y[[0, 2]].square().sum(), x)
        found.append((y, gradient, after))
    (y, gradient, after), (spoiled, other, end) = found
    exactly(spoiled[[0, 2]], y[[0, 2]])
    exactly(spoiled[ROW, :30], y[ROW, :30])
    exactly(other[[0, 2]], gradient[[0, 2]])
    exactly(others(end), others(after))
    assert spoiled[ROW, 30].isfinite().all() == (name in MISSING)


@pytest.mark.parametrize("make", [S4, S4D, S5, DSS])
def test_in_both_directions_a_nonfinite_row_affects_no_other(make):
    layer = make(3, d_state=4, bidirectional=True)
    u = torch.randn(3, 70, 3)
    hostile = u.clone()
    hostile[ROW, 30, 0] = math.nan
    exactly(layer(hostile)[0][[0, 2]], layer(u)[0][[0, 2]])
