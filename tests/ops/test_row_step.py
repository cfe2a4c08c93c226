import pytest
import torch
from torch.testing import assert_close

from longstate.ops import selective_scan, short_conv
from longstate.ops.row_step import row_step_
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import randn

SIZES = [(1, 1, 1, 1), (5, 3, 4, 2), (63, 16, 4, 8), (130, 5, 2, 7)]  # d, n, k, r


def weights(d, n, k, r, bias=True):
    return (
        randn(d, k, seed=1), randn(d, seed=2) if bias else None,
        randn(r + 2 * n, d, seed=3) / d**0.5, randn(d, r, seed=4) / r**0.5, randn(d, seed=5),
        randn(d, n, seed=6), randn(d, seed=7),
    )  # fmt: skip


def pass_over(x, z, taps, h, conv_weight, conv_bias, steering, dt_weight, dt_bias, A_log, D):
    """A sequence (b, t, d), by the ops that a layer is made of; the taps without the oldest."""
    past = taps[..., 1:].mT
    u, taps = short_conv(x, conv_weight, conv_bias, past, activation="silu", impl="reference")
    n = h.shape[-1]
    low, B, C = (u @ steering.T).split([dt_weight.shape[1], n, n], dim=-1)
    y, h = selective_scan(
        u, low @ dt_weight.T, -A_log.exp(), B, C, D, z, h, dt_bias=dt_bias, dt_softplus=True,
        impl="reference",
    )  # fmt: skip
    return y, taps.mT, h


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("d", "n", "k", "r"), SIZES)
def test_steps_are_the_pass(impl, bias, d, n, k, r):
    b, t = 2, 7
    x, z = randn(b, t, d, seed=11), randn(b, t, 2 * d, seed=12)[..., d:]
    taps, h = randn(b, d, k, seed=13), randn(b, d, n, seed=14)
    w = weights(d, n, k, r, bias)
    expected, last_taps, last = pass_over(x, z, taps, h, *w)
    steps = [row_step_(x[:, i], z[:, i], taps, h, *w, impl=impl) for i in range(t)]
    assert_close(torch.stack(steps, 1), expected)
    assert_close(h, last)
    assert torch.equal(taps[..., 1:], last_taps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_inputs(dtype):
    d, n, k, r = 130, 16, 4, 8
    narrow = [None if v is None else v.to(dtype) for v in weights(d, n, k, r)]
    x, z, taps = (v.to(dtype) for v in (randn(2, d), randn(2, d, seed=1), randn(2, d, k)))
    h = randn(2, d, n).float()

    def step(impl, wide=None):
        def to(v):
            return v.clone() if wide is None else v.to(wide)

        state = to(h)
        given = [to(v) for v in narrow]
        return row_step_(to(x), to(z), to(taps), state, *given, impl=impl), state

    for actual, exact, plain in zip(
        step("cpu"), step("reference", torch.float64), step("reference"), strict=True
    ):
        assert_within_reference_error(actual, exact, plain)


def test_threads_share_the_batch_and_nothing_else():
    d, n, k, r = 256, 16, 4, 8
    w = [v.float() for v in weights(d, n, k, r)]
    before = torch.get_num_threads()

    def step(threads):
        torch.set_num_threads(threads)
        taps, h = randn(8, d, k).float(), randn(8, d, n).float()
        return row_step_(randn(8, d).float(), randn(8, d).float(), taps, h, *w), taps, h

    try:
        for one, three in zip(step(1), step(3), strict=True):
            assert torch.equal(one, three)
    finally:
        torch.set_num_threads(before)


def arguments(**other):
    d, n, k, r = 4, 3, 2, 1
    names = ("conv_weight", "conv_bias", "steering", "dt_weight", "dt_bias", "A_log", "D")
    given = {"x": randn(2, d), "z": randn(2, d), "taps": randn(2, d, k), "h": randn(2, d, n)}
    return given | dict(zip(names, weights(d, n, k, r), strict=True)) | other


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"x": randn(2, 1, 4)}, r"x must be \(b, d\)"),
        ({"z": randn(2, 5)}, r"z must be \(2, 4\); got \(2, 5\)"),
        ({"taps": randn(2, 4, 3)}, r"conv_weight must be \(4, 3\)"),
        ({"steering": randn(6, 4)}, r"steering must be \(7, 4\)"),
        ({"conv_bias": randn(5)}, r"conv_bias must be \(4,\)"),
        ({"h": randn(2, 3, 4).mT}, "contiguous"),
        ({"h": randn(2, 4, 3).bfloat16()}, "h be float32 or float64"),
        ({"taps": randn(2, 4, 2).float()}, "taps must have the type of x"),
        ({"D": randn(4).requires_grad_()}, "no_grad"),
        ({"impl": "triton"}, "triton"),
    ],
)
def test_refusals(other, message):
    with pytest.raises(ValueError, match=message):
        row_step_(**arguments(**other))


def test_what_the_refusals_are_made_of_is_right():
    assert row_step_(**arguments()).shape == (2, 4)
