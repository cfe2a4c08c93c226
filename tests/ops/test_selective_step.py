"""One sample through a whole Mamba layer: weights in rows and states in place, or in panels."""

import copy
from operator import attrgetter

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.ops import selective_scan, short_conv
from longstate.ops.matvec import quantise_rows, to_panels
from longstate.ops.selective_step import (
    BoundStep,
    Linear,
    Norm,
    Panels,
    Weights,
    cpu,
    selective_step_,
)
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import randn

SIZES = [(1, 1, 1, 1, 1), (3, 5, 3, 4, 2), (64, 63, 16, 4, 8), (65, 130, 5, 2, 7)]  # i, d, n, k, r
MAPS = ("in_proj", "x_proj", "dt_proj", "out_proj")


def layer(i, d, n, k, r, bias=True):
    def linear(rows, columns, seed, biased=bias):
        weight = randn(rows, columns, seed=seed) / columns**0.5
        return Linear(weight, randn(rows, seed=seed + 10) if biased else None)

    return Weights(
        in_proj=linear(2 * d, i, 1),
        conv_weight=randn(d, k, seed=2),
        conv_bias=randn(d, seed=3) if bias else None,
        x_proj=linear(r + 2 * n, d, 4, False),
        dt_proj=linear(d, r, 5),
        A_log=randn(d, n, seed=6),
        D=randn(d, seed=7),
        out_proj=linear(i, d, 8),
    )


def to(weights, dtype):
    def convert(part):
        if isinstance(part, tuple):
            return type(part)(*(convert(v) for v in part))
        return part if part is None or part.dtype == torch.int8 else part.to(dtype)

    return Weights(*(convert(part) for part in weights))


def in_panels(weights, kind="as they are"):
    """The same layer, or that of its weights in 8 bits."""

    def convert(linear):
        if kind != "int8":
            return Panels(to_panels(linear.weight), None, linear.bias)
        q, scale = quantise_rows(linear.weight)
        return Panels(to_panels(q), scale, linear.bias)

    return weights._replace(**{name: convert(getattr(weights, name)) for name in MAPS})


def in_rows(weights, kind):
    """What `in_panels` of this kind means."""

    def convert(linear):
        if kind != "int8":
            return linear
        q, scale = quantise_rows(linear.weight)
        return Linear(q.to(scale) * scale[:, None], linear.bias)

    return weights._replace(**{name: convert(getattr(weights, name)) for name in MAPS})


def pass_over(u, taps, h, w, norm=None):
    """A sequence (b, t, i), by the ops that a layer is made of; taps (b, k - 1, d)."""
    v = u if norm is None else F.rms_norm(u, u.shape[2:], norm.weight, norm.eps)
    x, z = F.linear(v, *w.in_proj).chunk(2, dim=-1)
    x, taps = short_conv(x, w.conv_weight, w.conv_bias, taps, activation="silu", impl="reference")
    n = h.shape[-1]
    low, B, C = F.linear(x, *w.x_proj).split([w.dt_proj.weight.shape[1], n, n], dim=-1)
    y, h = selective_scan(
        x, F.linear(low, *w.dt_proj), -w.A_log.exp(), B, C, w.D, z, h, dt_softplus=True,
        impl="reference",
    )  # fmt: skip
    y = F.linear(y, *w.out_proj)
    return (y if norm is None else u + y), taps, h


@pytest.mark.parametrize("impl", ["reference", "cpu", "cpu, shared out"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("i", "d", "n", "k", "r"), SIZES)
def test_steps_in_place_are_the_pass(impl, bias, i, d, n, k, r, monkeypatch):
    if impl == "cpu, shared out":
        impl = "cpu"
        monkeypatch.setattr(cpu, "_ALONE", 0)
    b, t = 2, 7
    u, taps, h = randn(b, t, i), randn(b, d, k, seed=13), randn(b, d, n, seed=14)
    w = layer(i, d, n, k, r, bias)
    expected, last_taps, last = pass_over(u, taps[..., 1:].mT, h, w)
    steps = [selective_step_(u[:, j], taps, h, w, impl=impl) for j in range(t)]
    assert_close(torch.stack(steps, 1), expected)
    assert_close(h, last)
    assert_close(taps[..., 1:].mT, last_taps)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["as they are", "int8"])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("i", "d", "n", "k", "r"), SIZES)
def test_bound_steps_are_the_pass(bias, kind, normed, i, d, n, k, r):
    b, t = 5, 4
    u, taps, h = randn(b, t, i), randn(b, k - 1, d, seed=13), randn(b, d, n, seed=14)
    w, norm = layer(i, d, n, k, r, bias), Norm(randn(i, seed=15), 0.1) if normed else None
    expected = pass_over(u, taps, h, in_rows(w, kind), norm)
    kept, bound, outputs = (taps.clone(), h.clone()), BoundStep(in_panels(w, kind), norm), []
    past, state = taps, h
    for j in range(t):
        y, past, state = bound(u[:, j], past, state)
        outputs.append(y)
    assert_close((torch.stack(outputs, 1), past, state), expected)
    assert_close(bound(u, taps, h), expected)
    assert_close(bound(u[:, :2], taps, h)[0], expected[0][:, :2])
    assert_close((taps, h), kept, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_inputs_in_place(dtype):
    narrow = to(layer(64, 130, 16, 4, 8), dtype)
    u, taps, h = randn(2, 64).to(dtype), randn(2, 130, 4).to(dtype), randn(2, 130, 16).float()

    def step(impl, wide=None):
        given, state = taps.to(wide or dtype, copy=True), h.to(wide or h.dtype, copy=True)
        weights = narrow if wide is None else to(narrow, wide)
        y = selective_step_(u.to(given.dtype), given, state, weights, impl=impl)
        return y, given, state

    for actual, exact, plain in zip(
        step("cpu"), step("reference", torch.float64), step("reference"), strict=True
    ):
        assert actual.dtype == plain.dtype
        assert_within_reference_error(actual, exact, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_inputs_of_a_bound_step(dtype):
    w = to(layer(64, 130, 16, 4, 8), dtype)
    u, taps, h = randn(2, 64).to(dtype), randn(2, 3, 130).float(), randn(2, 130, 16).float()

    def exact(wide):
        return pass_over(u[:, None].to(wide), taps.to(wide), h.to(wide), to(w, wide))

    actual = BoundStep(in_panels(w))(u, taps, h)
    for found, best, plain in zip(actual, exact(torch.float64), exact(torch.float32), strict=True):
        assert_within_reference_error(found.view(best.shape), best, plain)


@pytest.mark.parametrize("b", [1, 8])
def test_the_number_of_threads_does_not_change_results(b, monkeypatch):
    """Nor does it matter whether a layer is small enough for one call."""
    w = to(layer(256, 512, 16, 4, 16), torch.float32)
    before = torch.get_num_threads()

    def step(threads, alone=0):
        torch.set_num_threads(threads)
        monkeypatch.setattr(cpu, "_ALONE", alone)
        taps, h = randn(b, 512, 4).float(), randn(b, 512, 16).float()
        return selective_step_(randn(b, 256).float(), taps, h, w), taps, h

    try:
        for one, three, alone in zip(step(1), step(3), step(3, 10**9), strict=True):
            assert torch.equal(one, three)
            assert torch.equal(one, alone)
    finally:
        torch.set_num_threads(before)


def test_a_bound_step_reads_its_weights_without_a_copy():
    w = in_panels(layer(64, 63, 16, 4, 8))
    bound, (u, taps, h) = BoundStep(w), (randn(1, 64), randn(1, 3, 63), randn(1, 63, 16))
    first = bound(u, taps, h)[0]
    w.D.add_(1)
    w.in_proj.panels.mul_(2)
    assert bound.is_of(w.tensors())
    assert_close(bound(u, taps, h), BoundStep(w)(u, taps, h), rtol=0, atol=0)
    assert not torch.equal(bound(u, taps, h)[0], first)
    w.A_log.add_(1)
    assert not bound.is_of(w.tensors())
    assert not BoundStep(w).is_of(w._replace(D=w.D.clone()).tensors())
    norm = Norm(randn(64), 0.1)
    assert not BoundStep(w).is_of(w.tensors(), norm)
    assert BoundStep(w, norm).is_of(w.tensors(), norm)
    assert not BoundStep(w, norm).is_of(w.tensors(), norm._replace(eps=0.2))
    assert copy.deepcopy(bound) is None


@pytest.mark.parametrize("changed", ["A_log", "D", "conv_weight", "dt_proj.bias"])
def test_a_bound_step_knows_when_weights_that_it_converted_have_changed(changed):
    w = in_panels(to(layer(64, 63, 16, 4, 8), torch.bfloat16))
    bound = BoundStep(w)
    assert bound.is_of(w.tensors())
    attrgetter(changed)(w).add_(1)
    assert not bound.is_of(w.tensors())


def given(**other):
    w = layer(3, 4, 3, 2, 1)._replace(**{k: v for k, v in other.items() if k in Weights._fields})
    states = {"u": randn(2, 3), "taps": randn(2, 4, 2), "h": randn(2, 4, 3), "weights": w}
    return states | {k: v for k, v in other.items() if k not in Weights._fields}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"u": randn(2, 1, 3)}, r"u must be \(b, i\)"),
        ({"u": randn(2, 4)}, r"u must be \(2, 3\); got \(2, 4\)"),
        ({"h": randn(3, 4, 3)}, r"h must be \(2, 4, 3\); got \(3, 4, 3\)"),
        ({"taps": randn(2, 5, 2)}, r"taps must be \(2, 4, 2\); got \(2, 5, 2\)"),
        ({"taps": randn(2, 4, 3)}, r"taps must be \(2, 4, 2\)"),
        ({"in_proj": Linear(randn(8, 4), None)}, r"out_proj must be a map from 4 channels to 4"),
        ({"in_proj": Linear(randn(7, 3), None)}, r"in_proj must be a map from 3 channels to 8"),
        ({"in_proj": Linear(randn(8, 3), randn(7))}, r"got Linear of \(8, 3\) float64, \(7,\)"),
        ({"x_proj": Linear(randn(6, 4), None)}, r"x_proj must be a map from 4 channels to 7"),
        ({"x_proj": Panels(randn(2, 4, 64), None, None)}, r"x_proj must be a map from 4"),
        ({"x_proj": Panels(randn(1, 4, 64), None, None)}, r"of class Linear; got Panels"),
        ({"conv_weight": randn(5, 2)}, r"conv_weight must be \(4, 2\)"),
        ({"conv_weight": randn(4, 1, 2)}, r"conv_weight \(d, k\)"),
        ({"conv_bias": randn(5)}, r"conv_bias must be \(4,\)"),
        ({"h": randn(2, 4, 3).bfloat16()}, "h must be float32 or float64"),
        ({"D": randn(4).requires_grad_()}, "no_grad"),
        ({"impl": "triton"}, "triton"),
        ({"h": randn(2, 3, 4).mT}, "contiguous"),
        ({"taps": randn(2, 2, 4).mT}, "contiguous"),
        ({"taps": randn(2, 4, 2).float()}, "taps must have the type of u"),
    ],
)
def test_refusals(other, message):
    assert selective_step_(**given()).shape == (2, 3)
    with pytest.raises(ValueError, match=message):
        selective_step_(**given(**other))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"x_proj": Panels(randn(1, 4, 64), randn(8), None)}, r"x_proj must be a map from 4"),
        ({"x_proj": Panels(randn(2, 4, 64), None, None)}, r"x_proj must be a map from 4"),
        ({"x_proj": Linear(randn(7, 4), None)}, r"of class Panels; got Linear"),
        ({"D": randn(5)}, r"D must be \(4,\)"),
    ],
)
def test_refusals_of_a_bound_step(other, message):
    w = in_panels(layer(3, 4, 3, 2, 1))
    assert BoundStep(w, Norm(randn(3), 0.1))
    with pytest.raises(ValueError, match=r"norm must be \(3,\); got \(4,\)"):
        BoundStep(w, Norm(randn(4), 0.1))
    with pytest.raises(ValueError, match=message):
        BoundStep(w._replace(**other))
