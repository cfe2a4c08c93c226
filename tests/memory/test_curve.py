import math

import pytest
import torch

from longstate.errors import InputError
from longstate.layers import S4D
from longstate.memory import memory_curve
from longstate.systems import DenseSystem, DiagonalSystem
from tests.memory.test_gramians import pairs


def test_leaky_integrator():
    """m_k = (1 - a^2) a^2k."""
    a, one = 0.9, torch.ones(1, 1).double()
    system = DiagonalSystem(torch.tensor([a]).double(), one, one, 0 * one, discrete=True)
    curve = memory_curve(system, 50, noise=0.0)
    k = torch.arange(50).double()
    torch.testing.assert_close(curve.bits, -0.5 * torch.log2(1 - (1 - a * a) * a ** (2 * k)))
    assert math.isinf(float(curve.total))


def test_delay_line():
    """Knows the last 8 inputs as well as the noise allows, and nothing else."""
    A, B = torch.diag(torch.ones(7), -1).double(), torch.eye(8)[:, :1].double()
    system = DenseSystem(A, B, torch.ones(1, 8).double(), torch.zeros(1, 1).double(), discrete=True)
    curve = memory_curve(system, 12, noise=0.1)
    expected = torch.zeros(12).double()
    expected[:8] = 0.5 * math.log2(1 + 1 / 0.01)
    torch.testing.assert_close(curve.bits, expected)
    torch.testing.assert_close(float(curve.total), 8 * 0.5 * math.log2(101))
    assert int(curve.horizon(1.0)) == 7
    assert int(curve.horizon(4.0)) == -1


def test_without_noise_capacity_is_the_size_of_the_state():
    """Jaeger's sum rule, whatever the system."""
    system = pairs(n=8, i=1, o=1)
    curve = memory_curve(system, 3000, noise=0.0)
    sixteen = torch.full((2,), 16.0).double()
    torch.testing.assert_close(curve.capacity - sixteen, 0 * sixteen)
    assert curve.rank.tolist() == [16, 16]


def test_agrees_with_brute_force():
    """Plug-in covariances of a long simulation, within three standard errors."""
    torch.manual_seed(0)
    system = pairs(n=3, i=1, o=1, batch=())
    dense = system.to_dense()
    steps, lags, noise = 200_000, 12, 0.1
    u = torch.randn(steps, dtype=torch.float64)
    kernels = DenseSystem(
        dense.A, dense.B, torch.eye(6).double(), torch.zeros(6, 1).double(), discrete=True
    ).impulse_response(400)[..., 0]
    x = torch.nn.functional.conv1d(
        torch.nn.functional.pad(u, (399, 0))[None, None], kernels.T[:, None].flip(-1)
    )[0].T
    y = (x + noise * torch.randn_like(x))[1000:]
    expected = memory_curve(system, lags, noise=noise).bits
    for k in range(lags):
        past = u[1000 - k : steps - k]
        left = 1 - _explained(past, y)
        # of -1/2 log(1 - R^2): the sample's correlation has variance about 4 R^2 / steps there
        spread = math.sqrt(max(1 - left, 6 / len(y)) / len(y)) / math.log(2)
        bias = 6 / (2 * len(y) * math.log(2))
        assert abs(-0.5 * math.log2(left) - bias - float(expected[k])) < 3 * spread, k


def _explained(target, x):
    beta = torch.linalg.lstsq(x, target[:, None]).solution
    return float(1 - (target - (x @ beta)[:, 0]).square().mean() / target.square().mean())


def test_two_inputs_share_the_state():
    """Beside each other, two delay lines of two inputs know each of both."""
    A = torch.block_diag(*[torch.diag(torch.ones(2), -1)] * 2).double()
    B = torch.zeros(6, 2).double()
    B[0, 0] = B[3, 1] = 1
    system = DenseSystem(A, B, torch.ones(1, 6).double(), torch.zeros(1, 2).double(), discrete=True)
    each = 2 * 0.5 * math.log2(101)
    curve = memory_curve(system, 4, noise=0.1)
    torch.testing.assert_close(curve.bits, torch.tensor([each, each, each, 0.0]).double())


def test_a_coarser_format_has_less_information():
    torch.manual_seed(0)
    system = S4D(4, d_state=8).system()
    fine, coarse = (memory_curve(system, 30, noise=f) for f in ("fp16", "fp8_e4m3"))
    assert fine.kind == "estimate"
    assert bool((fine.total > coarse.total).all())
    assert bool((fine.bits >= coarse.bits - 1e-9).all())


def test_a_mode_stored_twice_is_counted_once():
    """A real eigenvalue among conjugate pairs comes with itself as its conjugate."""
    A = torch.tensor([0.5], dtype=torch.complex128)
    one = torch.ones(1, 1, dtype=torch.complex128)
    system = DiagonalSystem(A, one, one, torch.zeros(1, 1).double(), conjugate=True, discrete=True)
    curve = memory_curve(system, 200, noise=0.0)
    assert int(curve.rank) == 1
    torch.testing.assert_close(float(curve.capacity), 1.0)


def test_refuses():
    system = pairs()
    for wrong in ({"lags": 0, "noise": 1.0}, {"lags": 5, "noise": -1.0}):
        with pytest.raises(InputError, match="must be at least"):
            memory_curve(system, **wrong)
    with pytest.raises(InputError, match="bf16"):
        memory_curve(system, 5, noise="bfloat")
    endless = DenseSystem(*(torch.ones(1, 1),) * 4, discrete=True)
    with pytest.raises(InputError, match="modulus 1"):
        memory_curve(endless, 5, noise=0.1)
