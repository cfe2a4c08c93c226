"""What rounding may do to a state: a bound, and searches for inputs that pass it."""

import pytest
import torch

from longstate.compress import drift, quantize_state
from longstate.errors import InputError
from longstate.layers import S4, S4D, S5, LinOSS, Longhorn
from tests.compress.drifts import RADIUS, LeakyBank, limited, searched, tensor_of, worst_case
from tests.compress.states import language, made

ROUNDINGS = ("nearest", "stochastic", "feedback")
SCALES = ("number", "row", "head", "tensor")


def drifted(quantized, layer, u, state=None):
    """Largest distance of each stored state, over time, of runs with and without rounding."""
    exact = layer.init_state(len(u)) if state is None else state
    rounded = quantized._rounded(exact) if state is not None else quantized.init_state(len(u))
    worst = None
    with torch.no_grad():
        for t in range(u.shape[1]):
            _, exact = layer(u[:, t : t + 1], exact)
            _, rounded = quantized(u[:, t : t + 1], rounded)
            place = quantized.grids[0].place
            h, q = (_tensor(v) for v in (exact, quantized._whole(rounded)))
            miss = (h - q).abs().flatten(1).amax(0)
            worst = miss if worst is None else torch.maximum(worst, miss)
    assert place is not None
    return worst


def _tensor(state):
    return state["ssm"] if isinstance(state, dict) else state


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_rounding_stays_below_the_bound_of_a_diagonal_layer(rounding):
    """Attacked: white noise, constants, oscillations, and silence from a state of any size, where
    rounding to nearest holds a small state up for ever: which comes within 20 % of the bound."""
    layer = LeakyBank().double()
    quantized = quantize_state(layer, bits=6, rounding=rounding, allocate=False)
    bound = drift(quantized)
    torch.manual_seed(0)
    t = torch.arange(300.0).double()
    kinds = [torch.randn(300).double(), 0.1 + 0 * t, torch.sin(t / 3), 0.02 * (t % 7 - 3)]
    u = torch.stack(kinds)[:, :, None]
    worst = drifted(quantized, layer, u)
    start = quantized.grids[0].step.reshape(1, 1, -1) * torch.linspace(0, 31, 400)[:, None, None]
    silent = drifted(quantized, layer, torch.zeros(400, 300, 1).double(), start.double())
    assert quantized.clipped == 0
    most = bound.state.flatten()
    assert bool((worst <= most).all())
    assert bool((silent <= most).all())
    if rounding == "nearest":
        assert float((silent / most).max()) > 0.8
    assert bound.kind == "certified"
    with torch.no_grad():
        y, z = layer(u)[0], quantized(u)[0]
    assert float((y - z).abs().max()) <= float(bound.output.max())


@pytest.mark.parametrize("make", [lambda: S4(2, d_state=6), lambda: LinOSS(3, d_state=4)])
def test_rounding_stays_below_the_bound_of_a_dense_layer(make):
    torch.manual_seed(1)
    layer = make().double()
    quantized = quantize_state(layer, bits=7)
    bound = drift(quantized)
    u = 0.3 * torch.randn(8, 200, layer.d_model).double()
    with torch.no_grad():
        y, exact = layer(u)
        z, rounded = quantized(u)
    assert quantized.clipped == 0
    place = quantized.grids[0].place
    shape = (8, *quantized.grids[0].step.flatten(1).shape)
    miss = (place.real(exact) - place.real(rounded)).reshape(shape).norm(dim=-1)
    assert bool((miss <= bound.state[:, 0]).all())
    miss = (y - z).abs().amax((0, 1))
    assert bool((miss <= bound.output).all())
    assert float((miss / bound.output).max()) > 1e-4


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_a_search_stays_below_the_bound_of_a_selective_layer(kind, scale, rounding):
    layer = limited(kind)
    data = torch.randn(64, 60, layer.d_model).double()
    bits = 5 if scale == "number" else 8
    quantized = quantize_state(
        layer, data, bits=bits, rounding=rounding, allocate=False, scale=scale
    )
    bound = drift(quantized, radius=RADIUS)
    assert bool(bound.state.isfinite().all())
    assert bound.rate < 1
    u = torch.cat([data[:, :40] * (0.3 if scale == "number" else 3.0), 0 * data[:, :10]], dim=1)
    assert float(u.norm(dim=-1).max()) < RADIUS
    worst, most = searched(quantized, u), bound.state.flatten()
    assert quantized.clipped == 0
    assert bool((worst <= most).all())
    assert float((worst / most).max()) > (0.05 if scale == "number" else 1e-6)
    assert bound.output is None


def test_irregular_samples_have_a_bound_of_their_own():
    """Samples that come 50 times as often decay so little that rounding to nearest holds a state
    up: further than the bound of regular samples, but not further than that of the range."""
    layer = limited("mamba")
    data = torch.randn(64, 60, layer.d_model).double()
    quantized = quantize_state(layer, data, bits=4, allocate=False)
    regular, often = (drift(quantized, radius=RADIUS, dt=v) for v in ((1.0, 1.0), (0.02, 1.0)))
    with torch.no_grad():
        _, start = quantized(data[:, :30])
        silence, dt = torch.zeros(64, 400, layer.d_model).double(), torch.full((64, 400), 0.02)
        _, exact = layer(silence, start, dt=dt.double())
        _, rounded = quantized(silence, start, dt=dt.double())
    miss = (exact["ssm"] - rounded["ssm"]).abs().amax(0).flatten()
    assert bool((miss > regular.state.flatten()).any())
    assert bool((miss <= often.state.flatten()).all())
    assert "dt between 0.02 and 1" in often.scope
    assert bool(drift(quantized, radius=RADIUS, dt=(0.0, 1.0)).state.isinf().all())


def test_short_calls_are_inside_the_bound():
    """Whoever asks for a rounding every 16 samples may still send one sample at a time."""
    torch.manual_seed(0)
    layer = S4D(1, d_state=1, init="real", dt_min=0.01, dt_max=0.01).double()
    seldom = quantize_state(layer, bits=8, allocate=False, every=16)
    often = quantize_state(layer, bits=8, allocate=False)
    assert float(drift(seldom).state) == float(drift(often).state)
    found = worst_case(seldom, layer)
    assert 0.95 * float(drift(seldom).state) < found <= float(drift(seldom).state)


@pytest.mark.parametrize("scale", ["row", "head", "tensor"])
def test_a_masked_state_is_rounded_to_itself(scale):
    """Otherwise errors of samples that are skipped would collect without any decay."""
    for rounding in ROUNDINGS:
        layer = made("mamba2")
        quantized = quantize_state(layer, bits=8, rounding=rounding, scale=scale)
        u = torch.randn(3, 12, layer.d_model)
        with torch.no_grad():
            _, state = quantized(u)
            after = state
            for _ in range(5):
                _, after = quantized(u[:, :1], after, mask=torch.zeros(3, 1, dtype=torch.bool))
        h, q = (tensor_of(quantized._whole(s)) for s in (state, after))
        torch.testing.assert_close(h, q, rtol=0, atol=0)


def test_zeros_extremes_and_narrow_types():
    """A row of zeros stays zero; no size overflows a step; what is not finite stays so."""
    grid = quantize_state(made("mamba"), bits=8, scale="row").grids[0]
    g, r, m = grid.shape
    for dtype in (torch.float16, torch.float32, torch.float64):
        most = min(torch.finfo(dtype).max, 1e38)
        x = torch.randn(2, g, r, m).clamp(-4, 4).to(dtype)
        x[:, 0] = 0
        x[:, 1] *= most / 4
        x[:, 2] *= torch.finfo(dtype).tiny
        x = x.double()
        found = grid.round(x)
        assert bool((found.value[:, 0] == 0).all())
        assert bool(found.value.isfinite().all())
        size = x.abs().amax(-1, keepdim=True)
        off = (found.value - x).abs()
        assert bool((off <= size / 127 + 2.0**-100).all())
    x[0, 3, 0, 1] = torch.inf
    x[1, 3, 0, 1] = torch.nan
    found = grid.round(x)
    assert bool(found.value[:, 3].isnan().all())
    assert bool(found.value[:, 0].isfinite().all())


def test_a_layer_without_decay_has_no_bound():
    layer = Longhorn(4, d_state=3).double()
    data = torch.randn(20, 16, 4).double()
    bound = drift(quantize_state(layer, data), radius=10.0)
    assert bound.rate == 1
    assert bool(bound.state.isinf().all())
    assert "no finite bound" in bound.sentence


def test_refused_arguments_have_clear_messages():
    layer, linear = limited("mamba2"), S5(3, d_state=4)
    followed = quantize_state(linear, scale="row")
    rounded = quantize_state(language(), torch.randint(0, 11, (8, 16)))
    for call, sentence in (
        (lambda: drift(rounded), "drift is for one layer"),
        (lambda: drift(quantize_state(layer, scale="row")), "pass radius="),
        (lambda: drift(followed), "pass radius="),
        (lambda: drift(followed, radius=1.0, dt=(0.5, 1.0)), "and no dt"),
        (lambda: drift(quantize_state(linear), dt=(2.0, 1.0)), "dt must be a shortest"),
        (lambda: drift(quantize_state(S4(2, d_state=4)), dt=(0.5, 1.0)), "dense system"),
        (lambda: quantize_state(S5(2, bidirectional=True)), "carries no state"),
        (lambda: quantize_state(layer, scale="lane"), "scale must be one of"),
        (lambda: quantize_state(layer, scale="row", bits=4.5), "whole number from 2 to 16"),
    ):
        with pytest.raises(InputError, match=sentence):
            call()
