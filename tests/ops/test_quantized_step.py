"""A step with a rounded state: kernel against reference, and what rounding promises."""

import math

import pytest
import torch

from longstate.ops.quantized_step import (
    ROUNDINGS,
    Digits,
    Rounded,
    exact_state,
    head_quantized_step,
    round_state,
    seed_of,
    selective_quantized_step,
    storage,
)

WAYS = [Digits(bits, rounding) for bits in (8, 4) for rounding in ROUNDINGS]


def numbers(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


def selective(digits, n=5, d=70, dtype=torch.float64):
    b = 3
    state = round_state(numbers(b, d, n, dtype=dtype), digits, seed_of(digits))
    u, dt, B, C, D, z = (
        numbers(*s, dtype=dtype) for s in ((b, d), (b, d), (b, n), (b, n), (d,), (b, d))
    )
    return u, dt.exp(), -numbers(d, n, dtype=dtype).exp(), B, C, D, z, state, digits


def of_heads(digits, n=9, dtype=torch.float64):
    b, h, p, g = 3, 6, 5, 2
    state = round_state(numbers(b, h, p, n, dtype=dtype), digits, seed_of(digits))
    x, log_a, weight, B, C, D = (
        numbers(*s, dtype=dtype) for s in ((b, h, p), (b, h), (b, h), (b, g, n), (b, g, n), (h,))
    )
    return x, -log_a.abs(), weight, B, C, D, state, digits


CALLS = [(selective_quantized_step, selective), (head_quantized_step, of_heads)]


@pytest.mark.parametrize("digits", WAYS)
@pytest.mark.parametrize("n", [1, 2, 5, 16, 63])
@pytest.mark.parametrize(("step", "make"), CALLS)
def test_the_kernel_has_the_same_integers_as_the_reference(step, make, n, digits):
    torch.manual_seed(n)
    args = make(digits, n=n)
    y, state = step(*args, seed=7, impl="cpu")
    z, other = step(*args, seed=7, impl="reference")
    torch.testing.assert_close(y, z)
    for a, b in zip(state, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("step", "make"), CALLS)
def test_narrow_inputs(step, make, dtype):
    """Output within twice the reference's error in float32; the state within one value."""
    torch.manual_seed(0)
    args = make(Digits(8))
    exact, _ = step(*args, impl="reference")
    narrow = [v.float() if isinstance(v, torch.Tensor) else v for v in args]
    narrow[0] = narrow[0].to(dtype)
    y, state = step(*narrow, impl="cpu")
    z, other = step(*narrow, impl="reference")
    assert float((y - exact).abs().max()) <= 2 * float((z - exact).abs().max()) + 1e-6
    off = state.numbers.int() - other.numbers.int()
    assert int(off.abs().max()) <= 1


@pytest.mark.parametrize("digits", WAYS)
def test_rounding_is_within_a_step_and_leaves_its_own_values(digits):
    torch.manual_seed(1)
    for n in (1, 4, 7):
        h = numbers(40, n) * numbers(40, 1).exp()
        state = round_state(h, digits, 3)
        again = exact_state(state, digits, n, h.dtype)
        unit = torch.exp2(state.exponents.double())[:, None]
        share = 1.0 if digits.rounding == "stochastic" else 0.5
        assert bool(((again - h).abs() <= share * unit * (1 + 1e-12)).all())
        # the smallest power of 2 that fits
        assert bool((h.abs().amax(1, keepdim=True) > digits.most * unit / 2).all())
        twice = exact_state(round_state(again, digits, 4), digits, n, h.dtype)
        torch.testing.assert_close(twice, again, rtol=0, atol=0)
        single = exact_state(state, digits, n, torch.float32)
        torch.testing.assert_close(single.double(), again, rtol=0, atol=0)


def test_random_rounding_is_right_on_average_and_belongs_to_its_seed():
    h = torch.tensor([0.3, 1.7, -2.4, 100.0]).expand(20_000, 4).contiguous()
    digits = Digits(8, "stochastic")
    found = exact_state(round_state(h, digits, 5), digits, 4, h.dtype)
    assert bool((found.mean(0) - h[0]).abs().max() < 5 * 0.5 / math.sqrt(20_000))
    same, other = (round_state(h, digits, s).numbers for s in (5, 6))
    assert torch.equal(same, round_state(h, digits, 5).numbers)
    assert not torch.equal(same, other)


@pytest.mark.parametrize("digits", WAYS)
@pytest.mark.parametrize(("step", "make"), CALLS)
def test_zeros_stay_and_what_is_not_finite_stays_in_its_row(step, make, digits):
    torch.manual_seed(2)
    args = list(make(digits))
    at = next(i for i, v in enumerate(args) if isinstance(v, Rounded))
    n = args[3].shape[-1]
    zero = round_state(torch.zeros(*args[at].exponents.shape, n), digits)
    args[at] = zero
    args[0] = torch.zeros_like(args[0])
    _, state = step(*args, impl="cpu")
    assert bool((exact_state(state, digits, n, torch.float32) == 0).all())
    for bad in (math.nan, math.inf):
        args = list(make(digits))
        args[0][1, 2] = bad
        for impl in ("cpu", "reference"):
            y, state = step(*args, impl=impl)
            spoiled = exact_state(state, digits, n, torch.float64)
            assert bool(spoiled[1, 2].isnan().all())
            assert bool(spoiled[0].isfinite().all())
            assert bool(spoiled[1, 3].isfinite().all())
            y, _ = step(*(state if isinstance(v, Rounded) else v for v in make(digits)), impl=impl)
            assert bool(y[1, 2].isnan().any())
            assert bool(y[0].isfinite().all())


@pytest.mark.parametrize(("step", "make"), CALLS)
def test_inputs_in_any_layout(step, make):
    args = list(make(Digits(8)))
    y, state = step(*args, impl="cpu")
    for i, v in enumerate(args):
        if isinstance(v, torch.Tensor) and v.dim() > 1:
            args[i] = v.mT.contiguous().mT
    z, other = step(*args, impl="cpu")
    torch.testing.assert_close(y, z, rtol=0, atol=0)
    assert torch.equal(state.numbers, other.numbers)


def test_memory_of_a_state():
    """8 bits and an exponent for each row: a quarter, and 1/n of it."""
    for digits, share in ((Digits(8), 1 / 4), (Digits(4), 1 / 8), (Digits(8, "feedback"), 1 / 2)):
        h = torch.randn(2, 24, 64, 128)
        state = round_state(h, digits)
        assert state.numbers.nbytes == share * h.nbytes
        assert state.exponents.nbytes * 4 * 128 == h.nbytes
        assert state.numbers.shape[-1] == storage(digits, 128)[1]


def test_what_does_not_fit_is_said():
    args = list(selective(Digits(8)))
    for change, sentence in (
        ({8: Digits(6)}, "bits of a state must be 8 or 4; got 6"),
        ({8: Digits(8, "up")}, "rounding must be one of"),
        ({8: Digits(4)}, "numbers must be"),
        ({3: args[3][:, :2]}, "B must be"),
        ({2: args[2].half()}, "float32 or float64"),
    ):
        wrong = [change.get(i, v) for i, v in enumerate(args)]
        with pytest.raises(ValueError, match=sentence):
            selective_quantized_step(*wrong)
    with pytest.raises(ValueError, match="impl must be"):
        selective_quantized_step(*args, impl="triton")
