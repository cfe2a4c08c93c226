"""S4, S4D and DSS against the papers' code, and each against its other views."""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

from longstate.layers import DSS, S4, S4D
from tests.golden import assert_parity, golden
from tests.layers.s4_oracle import dplr_kernel, fft_conv


def load_s4d(g, variant, bidirectional):
    d, m = g["kernel__A_real"].shape
    layer = S4D(d, d_state=2 * m, variant=variant, bidirectional=bidirectional)
    with torch.no_grad():
        layer.log_dt.copy_(g["kernel__inv_dt"][:, 0])
        layer.log_decay.copy_(g["kernel__A_real"])
        layer.frequency.copy_(-g["kernel__A_imag"])
        layer.B.copy_(g["kernel__B"][0])
        layer.C.copy_(g["kernel__C"] if bidirectional else g["kernel__C"][0])
        layer.D.copy_(g["D"][0])
    return layer


S4D_FILES = [
    (f"s4_diag_{init}{way}", rule, bool(way))
    for init, rule in (
        ("legs_zoh", "zoh"),
        ("diag-inv_zoh", "zoh"),
        ("diag-lin_bilinear", "bilinear"),
    )
    for way in ("", "_bi")
]


@pytest.mark.parametrize(("name", "rule", "bidirectional"), S4D_FILES)
def test_s4d_is_the_papers_code(name, rule, bidirectional):
    g = golden(name)
    layer = load_s4d(g, rule, bidirectional)
    y, _ = layer(g["x"].mT)
    assert_parity(y, g["y"].mT)
    kernel = layer.system().impulse_response(50)[..., 0, 0].clone()  # D is in lag 0
    kernel[..., 0] -= layer.D
    assert_parity(kernel.reshape(g["K"].shape), g["K"])


@pytest.mark.parametrize("way", ["", "_bi"])
def test_s4_is_the_papers_code(way):
    g = golden(f"s4_dplr_legs_bilinear{way}")
    d, m = g["kernel__A_real"].shape
    layer = S4(d, d_state=2 * m, bidirectional=bool(way))
    with torch.no_grad():
        layer.log_dt.copy_(g["kernel__inv_dt"][:, 0])
        layer.log_decay.copy_(g["kernel__A_real"])
        layer.frequency.copy_(-g["kernel__A_imag"])
        layer.B.copy_(g["kernel__B"][0])
        layer.P.copy_(g["kernel__P"][0][:, :, None])
        layer.D.copy_(g["D"][0])
        # their parameter is C (I - A_bar^L); ours is C
        length = int(g["kernel__l_kernel"])
        tilde = torch.view_as_complex(g["kernel__C"])
        layer.C.copy_(torch.view_as_real(untilde(layer, tilde, length)).reshape(layer.C.shape))
    y, _ = layer(g["x"].mT)
    assert_parity(y, g["y"].mT)


def untilde(layer, tilde, length):
    A = layer.double().system().A
    layer.float()
    whole = torch.eye(A.shape[-1], dtype=A.dtype) - torch.linalg.matrix_power(A, length)
    real = 2 * torch.cat([tilde.real, -tilde.imag], -1).double()
    C = torch.linalg.solve(whole.mT, real[..., None])[..., 0]
    re, im = (C / 2).chunk(2, dim=-1)
    return torch.complex(re, -im).to(torch.complex64)


@pytest.mark.parametrize("init", ["legs", "legt", "fout"])
@pytest.mark.parametrize("length", [64, 101])
def test_s4_recurrence_is_its_cauchy_kernel_and_fourier_transform(init, length):
    torch.manual_seed(0)
    layer = S4(3, d_state=8, init=init).double()
    s = layer.continuous_system()
    kernel = dplr_kernel(s.A, s.P, s.Q, s.B[..., 0], s.C[..., 0, :], layer.log_dt.exp(), length)
    u = torch.randn(2, length, 3, dtype=torch.float64)
    y, _ = layer(u)
    assert_close(y, fft_conv(u, kernel) + layer.D * u)


@pytest.mark.parametrize("make", [S4, S4D, DSS])
def test_both_ways_is_two_kernels(make):
    torch.manual_seed(0)
    layer = make(3, d_state=4, bidirectional=True).double()
    u = torch.zeros(1, 12, 3, dtype=torch.float64)
    u[:, 5] = 1
    y, state = layer(u)
    ahead, back = layer.system().impulse_response(12)[..., 0, 0]
    assert_close(y[0, 5:], ahead.mT[:7])
    assert_close(
        y[0, :5].flip(0), (back.mT - torch.eye(12, dtype=u.dtype)[0][:, None] * layer.D)[:5]
    )
    assert state == ()
    with pytest.raises(ValueError, match="bidirectional=False to stream"):
        layer.step(u[:, 0], state)


@pytest.mark.parametrize("make", [S4, S4D, DSS])
def test_both_ways_with_padding_and_packing(make):
    torch.manual_seed(0)
    layer = make(3, d_state=4, bidirectional=True).double()
    u = torch.randn(2, 15, 3, dtype=torch.float64)
    mask = torch.ones(2, 15, dtype=torch.bool)
    mask[0, 9:] = False
    mask[1, :4] = False
    y, _ = layer(u, mask=mask)
    for row in range(2):
        assert_close(y[row : row + 1, mask[row]], layer(u[row : row + 1, mask[row]])[0])
    reset = torch.zeros(2, 15, dtype=torch.bool)
    reset[:, 6] = True
    y, _ = layer(u, reset=reset)
    assert_close(y, torch.cat([layer(u[:, :6])[0], layer(u[:, 6:])[0]], dim=1))


def test_rate_is_exact_for_held_input():
    # half the samples, each standing for two: the outputs at odd times
    torch.manual_seed(0)
    layer = S4D(3, d_state=8).double()
    layer.D.data.zero_()
    u = torch.randn(2, 20, 3, dtype=torch.float64)
    whole, _ = layer(u.repeat_interleave(2, dim=1))
    half, _ = layer(u, rate=2.0)
    assert_close(half, whole[:, 1::2])


def test_splitting_an_interval_changes_nothing():
    torch.manual_seed(0)
    layer = S4D(3, d_state=8).double()
    u = torch.randn(2, 6, 3, dtype=torch.float64)
    dt = torch.rand(2, 6, dtype=torch.float64) + 0.5
    _, state = layer(u, dt=dt)
    _, split = layer(u.repeat_interleave(2, 1), dt=(dt / 2).repeat_interleave(2, 1))
    assert_close(split, state)


def test_s4_refuses_irregular_time_and_names_s4d():
    with pytest.raises(ValueError, match="S4D takes irregular time"):
        S4(2, d_state=4)(torch.zeros(1, 3, 2), dt=torch.ones(1, 3))


def test_dss_exp_is_s4d():
    torch.manual_seed(0)
    dss, s4d = DSS(3, d_state=8), S4D(3, d_state=8, init="legs")
    with torch.no_grad():
        s4d.B.copy_(torch.view_as_real(torch.ones(3, 4, dtype=torch.complex64)))
        for to, source in ((s4d.C, dss.w), (s4d.D, dss.D), (s4d.log_dt, dss.log_dt)):
            to.copy_(source)
    u = torch.randn(2, 30, 3)
    assert_close(dss.double()(u.double()), s4d.double()(u.double()))


def known_dss(sign=1.0, dt=0.1, length=5):
    layer = DSS(1, d_state=4, variant="softmax", length=length).double()
    with torch.no_grad():
        layer.log_dt.fill_(math.log(dt))
        layer.decay.fill_(-0.5 * sign)
        layer.frequency.copy_(torch.tensor([[0, math.pi]], dtype=torch.float64))
        layer.w.copy_(torch.tensor([[[1.0, 0], [1.0, 0]]]))
        layer.D.zero_()
    return layer


def test_dss_softmax_known_values(monkeypatch):
    monkeypatch.setattr("longstate.layers.dss._SMALLEST", 0.0)  # the paper's guard is not in them
    expected = [-0.98678695, -0.90091496, -0.81529917, -0.73428111, -0.66153592]
    kernel = known_dss().system().impulse_response(5)[0, :, 0, 0]
    assert [round(x, 8) for x in kernel.tolist()] == expected


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_dss_softmax_is_a_softmax(sign):
    layer = known_dss(sign, length=50)
    system = layer.continuous_system()
    z = system.A[0] * 0.1
    weight = (z[:, None] * torch.arange(50)).exp()
    weight = weight / weight.sum(1, keepdim=True)
    expected = 2 * (weight / system.A[0][:, None]).real.sum(0)
    kernel = layer.system().impulse_response(50)[0, :, 0, 0]
    assert_parity(kernel, expected, relative=1e-6)  # the guard is 1e-7


def test_options_are_checked():
    with pytest.raises(ValueError, match="init must be one of"):
        S4D(2, init="nope")
    with pytest.raises(ValueError, match="even"):
        S4D(2, d_state=3)
    with pytest.raises(ValueError, match="variant"):
        S4D(2, variant="euler")
    with pytest.raises(ValueError, match="needs length"):
        DSS(2, variant="softmax")
    with pytest.raises(ValueError, match="dt_min"):
        S4(2, d_state=4, dt_min=0.1, dt_max=0.01)
    with pytest.raises(ValueError, match="rate"):
        S4D(2, d_state=4)(torch.zeros(1, 3, 2), rate=0)


@pytest.mark.parametrize("make", [S4, S4D, DSS])
def test_narrow_parameters_do_not_make_a_narrow_step(make):
    # exp(log_dt) rounded to bfloat16 is a system with other time constants
    narrow = make(3, d_state=8).bfloat16()
    wide = copy.deepcopy(narrow).float()
    for name in ("A", "B", "C"):
        assert_close(getattr(narrow.system(), name), getattr(wide.system(), name), rtol=0, atol=0)
    u = torch.randn(2, 1, 3)
    dt = None if make is S4 else torch.rand(2, 1)
    assert_close(narrow(u, dt=dt)[0], wide(u, dt=dt)[0])
