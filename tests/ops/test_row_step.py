import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.ops import selective_scan, short_conv
from longstate.ops.row_step import Weights, cpu, row_step_
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import randn

SIZES = [(1, 1, 1, 1, 1), (3, 5, 3, 4, 2), (64, 63, 16, 4, 8), (65, 130, 5, 2, 7)]  # i, d, n, k, r


def layer(i, d, n, k, r, bias=True):
    return Weights(
        in_proj=randn(2 * d, i, seed=1) / i**0.5,
        in_bias=randn(2 * d, seed=2) if bias else None,
        conv_weight=randn(d, k, seed=3),
        conv_bias=randn(d, seed=4) if bias else None,
        x_proj=randn(r + 2 * n, d, seed=5) / d**0.5,
        dt_weight=randn(d, r, seed=6) / r**0.5,
        dt_bias=randn(d, seed=7),
        A_log=randn(d, n, seed=8),
        D=randn(d, seed=9),
        out_proj=randn(i, d, seed=10) / d**0.5,
        out_bias=randn(i, seed=11) if bias else None,
    )


def to(weights, dtype):
    return Weights(*(None if v is None else v.to(dtype) for v in weights))


def pass_over(u, taps, h, w):
    """A sequence (b, t, i), by the ops that a layer is made of; the taps without the oldest."""
    x, z = F.linear(u, w.in_proj, w.in_bias).chunk(2, dim=-1)
    x, taps = short_conv(
        x, w.conv_weight, w.conv_bias, taps[..., 1:].mT, activation="silu", impl="reference"
    )
    n = h.shape[-1]
    low, B, C = (x @ w.x_proj.T).split([w.dt_weight.shape[1], n, n], dim=-1)
    y, h = selective_scan(
        x, low @ w.dt_weight.T, -w.A_log.exp(), B, C, w.D, z, h, dt_bias=w.dt_bias,
        dt_softplus=True, impl="reference",
    )  # fmt: skip
    return F.linear(y, w.out_proj, w.out_bias), taps.mT, h


@pytest.mark.parametrize("impl", ["reference", "cpu", "cpu, shared out"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("i", "d", "n", "k", "r"), SIZES)
def test_steps_are_the_pass(impl, bias, i, d, n, k, r, monkeypatch):
    if impl == "cpu, shared out":
        impl = "cpu"
        monkeypatch.setattr(cpu, "_ALONE", 0)
    b, t = 2, 7
    u, taps, h = randn(b, t, i), randn(b, d, k, seed=13), randn(b, d, n, seed=14)
    w = layer(i, d, n, k, r, bias)
    expected, last_taps, last = pass_over(u, taps, h, w)
    steps = [row_step_(u[:, j], taps, h, w, impl=impl) for j in range(t)]
    assert_close(torch.stack(steps, 1), expected)
    assert_close(h, last)
    assert_close(taps[..., 1:], last_taps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_inputs(dtype):
    narrow = to(layer(64, 130, 16, 4, 8), dtype)
    u, taps, h = randn(2, 64).to(dtype), randn(2, 130, 4).to(dtype), randn(2, 130, 16).float()

    def step(impl, wide=None):
        given, state = taps.clone() if wide is None else taps.to(wide), h.to(wide or h.dtype)
        state = state.clone()
        weights = narrow if wide is None else to(narrow, wide)
        y = row_step_(u.to(given.dtype), given, state, weights, impl=impl)
        return y, given, state

    for actual, exact, plain in zip(
        step("cpu"), step("reference", torch.float64), step("reference"), strict=True
    ):
        assert_within_reference_error(actual, exact, plain)


@pytest.mark.parametrize("b", [1, 8])
def test_the_number_of_threads_is_invisible(b, monkeypatch):
    """Nor does it matter whether a layer is small enough for one call."""
    w = to(layer(256, 512, 16, 4, 16), torch.float32)
    before = torch.get_num_threads()

    def step(threads, alone=0):
        torch.set_num_threads(threads)
        monkeypatch.setattr(cpu, "_ALONE", alone)
        taps, h = randn(b, 512, 4).float(), randn(b, 512, 16).float()
        return row_step_(randn(b, 256).float(), taps, h, w), taps, h

    try:
        for one, three, alone in zip(step(1), step(3), step(3, 10**9), strict=True):
            assert torch.equal(one, three)
            assert torch.equal(one, alone)
    finally:
        torch.set_num_threads(before)


def given(**other):
    w = layer(3, 4, 3, 2, 1)._replace(**{k: v for k, v in other.items() if k in Weights._fields})
    states = {"u": randn(2, 3), "taps": randn(2, 4, 2), "h": randn(2, 4, 3), "weights": w}
    return states | {k: v for k, v in other.items() if k not in Weights._fields}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"u": randn(2, 1, 3)}, r"u must be \(b, i\)"),
        ({"u": randn(2, 4)}, r"in_proj must be \(8, 4\); got \(8, 3\)"),
        ({"h": randn(3, 4, 3)}, r"taps must be \(2, 4, 2\) and h \(2, 4, 3\)"),
        ({"taps": randn(2, 5, 2)}, r"taps must be \(2, 4, 2\)"),
        ({"taps": randn(2, 4, 3)}, r"conv_weight must be \(4, 3\)"),
        ({"x_proj": randn(6, 4)}, r"x_proj must be \(7, 4\)"),
        ({"conv_bias": randn(5)}, r"conv_bias must be \(4,\)"),
        ({"h": randn(2, 3, 4).mT}, "contiguous"),
        ({"h": randn(2, 4, 3).bfloat16()}, "h be float32 or float64"),
        ({"taps": randn(2, 4, 2).float()}, "taps must have the type of u"),
        ({"D": randn(4).requires_grad_()}, "no_grad"),
        ({"impl": "triton"}, "triton"),
    ],
)
def test_refusals(other, message):
    with pytest.raises(ValueError, match=message):
        row_step_(**given(**other))


def test_what_the_refusals_are_made_of_is_right():
    assert row_step_(**given()).shape == (2, 3)
