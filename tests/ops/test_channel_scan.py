import pytest
import torch
from torch.testing import assert_close

from longstate.ops.channel_scan import dense_channel_scan, diagonal_channel_scan
from longstate.testing import assert_within_reference_error

SIZES = [1, 63, 64, 65, 128, 300]


def diagonal_case(t, *, dtype=torch.complex128, b=3, d=5, n=4, seed=0):
    torch.manual_seed(seed)
    real = torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32
    u = torch.randn(b, t, d, dtype=real)
    if dtype.is_complex:
        A = torch.polar(torch.rand(d, n, dtype=u.dtype), torch.randn(d, n, dtype=u.dtype))
    else:
        A = 2 * torch.rand(d, n, dtype=dtype) - 1
    B, C = torch.randn(2, d, n, dtype=dtype)
    return u, A, B, C, torch.randn(b, d, n, dtype=dtype)


def gradients(run, case, weights):
    case = [x.detach().clone().requires_grad_() for x in case]
    outputs = run(*case)
    return outputs, torch.autograd.grad(outputs, case, weights)


def test_known_values():
    # A = 1/2: h = 3, 1.5 + 1 = 2.5, ...
    u = torch.tensor([[[3.0], [1.0], [0.0]]], dtype=torch.float64)
    A, B, C = (torch.tensor([[v]], dtype=torch.float64) for v in (0.5, 1.0, 2.0))
    for impl in ("reference", "cpu", "chunks"):
        y, last = diagonal_channel_scan(u, A, B, C, impl=impl)
        assert_close(y[0, :, 0], torch.tensor([6.0, 5.0, 2.5], dtype=torch.float64))
        assert last.item() == 1.25


@pytest.mark.parametrize("t", SIZES)
@pytest.mark.parametrize("impl", ["cpu", "chunks"])
@pytest.mark.parametrize("dtype", [torch.complex128, torch.float64])
def test_diagonal_is_reference(t, impl, dtype):
    case = diagonal_case(t, dtype=dtype)
    lengths = torch.tensor([t, t // 2, 0])
    for padded in (None, lengths):

        def run(*args, impl=impl, padded=padded):
            y, last = diagonal_channel_scan(*args, lengths=padded, impl=impl)
            if padded is not None:  # outputs at padding are without meaning
                y = y * (torch.arange(t) < lengths[:, None])[..., None]
            return y, last

        weights = [torch.randn_like(x) for x in run(*case)]
        expected = gradients(lambda *a: run(*a, impl="reference"), case, weights)
        assert_close(gradients(run, case, weights), expected)


@pytest.mark.parametrize("t", SIZES)
def test_dense_is_reference(t):
    u, _, B, C, h0 = diagonal_case(t, dtype=torch.float64)
    A = torch.randn(5, 4, 4, dtype=torch.float64) * 0.3
    lengths = torch.tensor([t, t // 2, 0])
    for padded in (None, lengths):

        def run(*args, impl="auto", padded=padded):
            y, last = dense_channel_scan(*args, lengths=padded, impl=impl)
            if padded is not None:
                y = y * (torch.arange(t) < lengths[:, None])[..., None]
            return y, last

        case = (u, A, B, C, h0)
        weights = [torch.randn_like(x) for x in run(*case)]
        expected = gradients(lambda *a: run(*a, impl="reference"), case, weights)
        assert_close(gradients(run, case, weights), expected)


@pytest.mark.parametrize("d", [1, 64, 70, 130])
def test_any_number_of_channels(d):
    case = diagonal_case(70, d=d, n=2)

    def reference(*inputs):
        return diagonal_channel_scan(*inputs, impl="reference")

    expected = reference(*case)
    assert_close(diagonal_channel_scan(*case), expected)
    weights = [torch.randn_like(x) for x in expected]
    actual = gradients(diagonal_channel_scan, case, weights)
    assert_close(actual, gradients(reference, case, weights))


def test_unstable_zero_and_unit_decays():
    u, A, B, C, h0 = diagonal_case(130)
    A = A.clone()
    A[:, 0], A[:, 1], A[:, 2] = 0, 1, -1.01
    expected = diagonal_channel_scan(u, A, B, C, h0, impl="reference")
    for impl in ("cpu", "chunks"):
        assert_close(diagonal_channel_scan(u, A, B, C, h0, impl=impl), expected)


def test_gradcheck_and_opcheck():
    case = [x.requires_grad_() for x in diagonal_case(5, b=2, d=2, n=2)]
    for impl in ("cpu", "chunks"):
        assert torch.autograd.gradcheck(
            lambda *a, impl=impl: diagonal_channel_scan(*a, impl=impl), case
        )
    lengths = torch.tensor([5, 3])
    torch.library.opcheck(torch.ops.longstate.channel_scan, (*case, lengths))


@pytest.mark.parametrize("impl", ["cpu", "chunks"])
def test_float32_is_as_accurate_as_the_loop(impl):
    exact = diagonal_case(300)
    u, *rest = exact
    narrow = [u.float(), *(x.to(torch.complex64) for x in rest)]
    # the error budget is about arithmetic, not about rounding the parameters
    exact = [x.to(e.dtype) for x, e in zip(narrow, exact, strict=True)]
    wanted = diagonal_channel_scan(*exact, impl="reference")
    plain = diagonal_channel_scan(*narrow, impl="reference")
    actual = diagonal_channel_scan(*narrow, impl=impl)
    for a, e, p in zip(actual, wanted, plain, strict=True):
        assert_within_reference_error(a, e, p)


def test_same_bits_for_any_number_of_threads():
    case = diagonal_case(500, b=4, d=130, n=8)
    weights = [torch.randn_like(x) for x in diagonal_channel_scan(*case)]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs, grads = gradients(diagonal_channel_scan, case, weights)
            results.append([*outputs, *grads])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_nan_affects_only_later_samples():
    u, *rest = diagonal_case(20)
    u[0, 7, 2] = torch.nan
    y, _ = diagonal_channel_scan(u, *rest, impl="cpu")
    hit = torch.zeros_like(y, dtype=torch.bool)
    hit[0, 7:, 2] = True
    assert torch.equal(y.isnan(), hit)


def test_there_is_no_triton_kernel(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    u, A, B, C, _ = diagonal_case(4)
    with pytest.raises(ValueError, match="no Triton kernel"):
        diagonal_channel_scan(u, A, B, C, impl="triton")


@pytest.mark.parametrize("impl", ["reference", "cpu", "chunks"])
def test_a_real_state_before_a_complex_system(impl):
    u, A, B, C, h0 = diagonal_case(70)
    expected = diagonal_channel_scan(u, A, B, C, h0.real.to(h0.dtype), impl="reference")
    assert_close(diagonal_channel_scan(u, A, B, C, h0.real, impl=impl), expected)


@pytest.mark.parametrize("impl", ["reference", "cpu", "chunks"])
def test_refuses_what_would_lose_an_imaginary_part(impl):
    u, A, B, C, h0 = diagonal_case(4)
    with pytest.raises(ValueError, match=r"u must be .* real; got"):
        diagonal_channel_scan(u.to(A.dtype), A, B, C, impl=impl)
    with pytest.raises(ValueError, match="complex only if A is"):
        diagonal_channel_scan(u, A.real, B.real, C.real, h0, impl=impl)
    with pytest.raises(ValueError, match="A must be real"):
        dense_channel_scan(u, A.new_zeros(5, 4, 4), B, C, impl="auto")


def test_refusals():
    u, A, B, C, h0 = diagonal_case(4)
    with pytest.raises(ValueError, match="channels"):
        diagonal_channel_scan(u[..., :3], A, B, C)
    with pytest.raises(ValueError, match="h0 must be"):
        diagonal_channel_scan(u, A, B, C, h0[:1])
    with pytest.raises(ValueError, match="impl must be"):
        diagonal_channel_scan(u, A, B, C, impl="magic")
    with pytest.raises(ValueError, match="impl='triton'"):
        diagonal_channel_scan(u, A, B, C, impl="triton")
    with pytest.raises(ValueError, match="differ"):
        diagonal_channel_scan(u, A, B.real, C)
