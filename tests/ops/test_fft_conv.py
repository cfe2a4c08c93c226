"""FFT convolution against the sum it stands for, and the authors' own bidirectional layer."""

from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from longstate.ops.fft_conv import _fast_size, fft_conv, reference
from longstate.testing import assert_within_reference_error

GOLDEN = Path(__file__).parents[1] / "golden"


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


@settings(max_examples=40, deadline=None)
@given(
    b=st.integers(1, 3),
    t=st.sampled_from([1, 2, 3, 7, 63, 128, 300]),
    d=st.integers(1, 4),
    lags=st.sampled_from([1, 2, 5, 63, 200, 400]),
    ahead=st.sampled_from([None, 1, 2, 63, 400]),
)
def test_is_the_sum(b, t, d, lags, ahead):
    u, k = draw(b, t, d), draw(d, lags)
    k_reverse = None if ahead is None else draw(d, ahead)
    expected = reference.fft_conv(u, k, k_reverse=k_reverse)
    assert_close(fft_conv(u, k, k_reverse=k_reverse), expected)


def test_reference_by_hand():
    u = torch.tensor([1.0, 2.0, 4.0])[None, :, None]
    k, k_reverse = torch.tensor([[10.0, 1.0]]), torch.tensor([[100.0, 1000.0]])
    causal = torch.tensor([10.0, 21.0, 42.0])
    assert_close(reference.fft_conv(u, k).flatten(), causal, rtol=0, atol=0)
    ahead = torch.tensor([100.0 * 2 + 1000 * 4, 100.0 * 4, 0.0])
    both = reference.fft_conv(u, k, k_reverse=k_reverse).flatten()
    assert_close(both, causal + ahead, rtol=0, atol=0)


def test_reference_is_scipy():
    u, k, k_reverse = draw(1, 20, 1), draw(1, 9), draw(1, 12)
    whole = np.concatenate([k_reverse[0].flip(0).numpy(), k[0].numpy()])
    expected = scipy.signal.convolve(u[0, :, 0].numpy(), whole)[12:32]
    actual = reference.fft_conv(u, k, k_reverse=k_reverse)[0, :, 0]
    assert_close(actual, torch.from_numpy(expected))


def test_an_impulse_shows_both_kernels():
    u = torch.zeros(1, 12, 1, dtype=torch.float64)
    u[0, 5] = 1
    k, k_reverse = draw(1, 12), draw(1, 12)
    y = fft_conv(u, k, k_reverse=k_reverse)[0, :, 0]
    assert_close(y[5:], k[0, :7])
    assert_close(y[:5], k_reverse[0, :5].flip(0))
    y = fft_conv(u, 0 * k, k_reverse=k_reverse)[0, :, 0]
    assert_close(y[4], k_reverse[0, 0])
    assert_close(y[5], torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize(("lags", "ahead"), [(5, 4), (9, 12), (1, 1)])
def test_gradients(lags, ahead):
    u, k, k_reverse = (x.requires_grad_() for x in (draw(2, 6, 3), draw(3, lags), draw(3, ahead)))
    assert torch.autograd.gradcheck(fft_conv, (u, k))
    assert torch.autograd.gradcheck(
        lambda *x: fft_conv(x[0], x[1], k_reverse=x[2]), (u, k, k_reverse)
    )


def test_non_contiguous_inputs():
    u, k = draw(3, 40, 4).transpose(0, 2), draw(30, 4).T[:3].T.T
    u = u[:, ::2, :3]
    assert not u.is_contiguous()
    assert_close(fft_conv(u, k), reference.fft_conv(u, k))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    u, k = draw(2, 50, 3, dtype=dtype), draw(3, 50, dtype=dtype)
    y = fft_conv(u, k)
    assert y.dtype == dtype
    assert torch.equal(y, fft_conv(u.float(), k.float()).to(dtype))


def test_a_wider_kernel_keeps_its_precision():
    u, k = draw(1, 20, 2), draw(2, 20)
    assert fft_conv(u.bfloat16(), k.float()).dtype == torch.float32
    assert fft_conv(u.float(), k).dtype == torch.float64


def test_transform_sizes():
    def smooth(n):
        for p in (2, 3, 5):
            while n % p == 0:
                n //= p
        return n == 1

    for size in range(1, 3000):
        expected = next(n for n in range(size + size % 2, 2 * size + 2, 2) if smooth(n))
        assert _fast_size(size) == expected


def test_traces_without_breaks():
    u, k = draw(1, 16, 2), draw(2, 16)
    compiled = torch.compile(fft_conv, fullgraph=True, backend="eager")
    assert_close(compiled(u, k), fft_conv(u, k))


@pytest.mark.parametrize(
    "name", ["dplr_legs_bilinear", "diag_legs_zoh", "diag_diag-lin_bilinear", "diag_diag-inv_zoh"]
)
@pytest.mark.parametrize("sides", ["", "_bi"])
def test_authors_convolution(name, sides):
    path = GOLDEN / f"s4_{name}{sides}.npz"
    if not path.exists():
        pytest.skip(f"needs {path.name} of the shared golden files beside the repository")
    golden = {k: torch.from_numpy(v) for k, v in np.load(path).items()}
    u, K = golden["x"].mT, golden["K"]
    y = fft_conv(u, K[0], k_reverse=K[1] if sides else None) + golden["D"] * u
    error = (y.mT - golden["y"]).abs().max() / golden["y"].abs().max()
    assert error < 1e-5


def test_refusals():
    u, k = torch.zeros(2, 5, 3), torch.zeros(3, 4)
    for wrong, message in [
        (lambda: fft_conv(u[0], k), r"u must be \(batch, time, channels\); got \(5, 3\) float32"),
        (lambda: fft_conv(u[:, :0], k), "no time steps"),
        (lambda: fft_conv(u, k.T), r"k must be \(3, lags\), at least one lag; got \(4, 3\)"),
        (lambda: fft_conv(u, k[:, :0]), "at least one lag"),
        (lambda: fft_conv(u, k, k_reverse=k[:2]), r"k_reverse must be \(3, lags\)"),
        (lambda: fft_conv(u, k * 1j), "must be real"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()


@pytest.mark.parametrize("t", [63, 300])
def test_float32_error_budget(t):
    u, k, k_reverse = draw(2, t, 3).float(), draw(3, t).float(), draw(3, t).float()
    wide = reference.fft_conv(u.double(), k.double(), k_reverse=k_reverse.double())
    plain = reference.fft_conv(u, k, k_reverse=k_reverse)
    assert_within_reference_error(fft_conv(u, k, k_reverse=k_reverse), wide, plain)
