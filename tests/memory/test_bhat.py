"""Statements reported of Bhat (2024) that are not true, and the ones that are: docs/memory.md.

Each counterexample is run, and the library must say what holds for it, not what was reported.
"""

import math

import pytest
import torch

from longstate.memory import (
    average_contraction,
    effective_state,
    fano,
    gaussian_rd,
    known_bits,
    memory_curve,
    timescales,
)
from longstate.systems import DiagonalSystem, Trace


def scalar(decay):
    """One state of one channel, with input 1."""
    t = len(decay)
    one, wide = torch.ones(1, t, 1).double(), torch.ones(1, t, 1, 1).double()
    start = torch.zeros(1, 1, 1).double()
    return Trace(one, decay.reshape(1, t, 1, 1).double(), one, wide, wide, start, one[0, 0])


def integrator(a, b=1.0):
    one = torch.ones(1, 1).double()
    A = torch.tensor([a]).double()
    return DiagonalSystem(A, b * one, one, 0 * one, discrete=True)


# E1. Information is necessary for a small error, not sufficient.


def test_many_bits_and_a_large_error():
    """The remainder of X by 0.05 says 13.6 bits about X, and nothing about where X is."""
    period, noise = 0.05, 1e-6
    bits = math.log2(period) - 0.5 * math.log2(2 * math.pi * math.e * noise**2)
    assert round(bits, 2) == 13.56
    r = torch.linspace(0, period, 101).double()[:-1]
    x = r[:, None] + period * torch.arange(-200, 200).double()
    weight = torch.softmax(-0.5 * x.square(), dim=1)  # given the remainder
    error = float(((weight * x.square()).sum(1) - (weight * x).sum(1).square()).mean())
    assert error > 0.99
    # what is true: no error below D(I), whatever the code
    least = 2.0 ** (-2 * bits)
    assert least < 1e-8 < error
    assert gaussian_rd(torch.ones(1), least).bits == pytest.approx(bits)


@pytest.mark.parametrize("seed", range(5))
def test_jointly_gaussian_the_error_is_bounded_by_the_information(seed):
    """D <= tr S - (smallest eigenvalue of S) (1 - exp(-2 I)), for the conditional mean."""
    g = torch.Generator().manual_seed(seed)
    L, H = (torch.randn(3, 3, generator=g).double() for _ in range(2))
    S = L @ L.mT
    cross = S @ H.mT
    seen = H @ cross + 0.3 * torch.eye(3).double()
    rest = S - cross @ torch.linalg.solve(seen, cross.mT)
    nats = 0.5 * float(torch.logdet(S) - torch.logdet(rest))
    smallest = float(torch.linalg.eigvalsh(S)[0])
    assert float(rest.trace()) <= float(S.trace()) - smallest * (1 - math.exp(-2 * nats))
    assert gaussian_rd(torch.linalg.eigvalsh(S), float(rest.trace())).bits <= nats / math.log(2)


# E2. Fano's inequality with the alphabet of a token put for that of a sequence.


def test_a_probability_beyond_one_and_its_repair():
    """100 fair bits, 24 of them held."""
    length, held = 100, 24
    quoted = (length - held - 1) / math.log2(2)
    assert quoted == 75
    least = fano((length - held) / length, 2).error  # of each bit, on average
    assert round(least, 4) == 0.2199
    guessing = 0.5 * (length - held) / length  # keep 24, guess the others
    assert least <= guessing
    assert length * known_bits(1 - guessing, 2).bits <= held


@pytest.mark.parametrize("alphabet", [2, 3, 50_000])
def test_no_error_rate_exceeds_guessing(alphabet):
    for share in (0.0, 0.3, 1.0):
        assert fano(share * math.log2(alphabet), alphabet).error <= 1 - 1 / alphabet


# E3. Over the real numbers one of them holds everything: dimension is not a size.

DEPTHS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


@pytest.mark.parametrize("dtype", DEPTHS, ids=str)
def test_one_number_holds_as_many_bits_as_its_format(dtype):
    """h <- h / 2 + u / 2 writes each bit on top of the others; reading it back digit by digit."""
    g = torch.Generator().manual_seed(0)
    bits = torch.randint(2, (400, 80), generator=g)
    h = torch.zeros(400, dtype=dtype)
    for u in bits.mT:
        h = (h + u.to(dtype)) / 2
    left, right = h.double(), torch.ones(400, dtype=torch.bool)
    depth = torch.zeros(400)
    for u in bits.flip(1).mT:
        digit = (left >= 0.5).long()
        right &= digit == u
        depth += right
        left = 2 * left - digit
    mantissa = DEPTHS[dtype]
    assert mantissa - 1 <= float(depth.median()) <= mantissa + 3


def test_without_a_floor_the_library_says_infinite():
    system = integrator(0.5, 0.5)
    assert float(memory_curve(system, 4, noise=0.0).total) == math.inf
    sizes = [float(memory_curve(system, 4, noise=f).total) for f in ("bf16", "fp16", "fp32")]
    assert sizes == sorted(sizes)
    assert math.isfinite(sizes[-1])
    with pytest.raises(TypeError, match="noise"):
        memory_curve(system, 4)


# E4. A product of Lipschitz constants below one, and a state without end.


def test_a_constant_gate_is_lipschitz_and_the_state_diverges():
    """G = 1 has Lipschitz constant 0, so rho L_G = 0 < 1 for A = 1.5."""
    h = 0.0
    for _ in range(60):
        h = 1.0 * (1.5 * h + 0.1)
    assert h > 1e9
    trace = scalar(torch.full((60,), 1.5))
    assert average_contraction(trace).exponent == pytest.approx(math.log(1.5))
    assert float(timescales(trace).steps.max()) == math.inf
    assert float(trace.states().max()) > 1e9


def test_the_law_converges_and_the_variable_does_not():
    """A true contraction by 0.5: successive states stay 2 (1 - a) / (1 - a^2) apart for ever."""
    a = 0.5
    u = torch.randn(4, 50_000, generator=torch.Generator().manual_seed(0)).double()
    h, states = torch.zeros(4).double(), []
    for v in u.mT:
        h = a * h + v
        states.append(h)
    late = torch.stack(states)[25_000:]
    apart = 2 * (1 - a) / (1 - a * a)
    for squares, truth in ((late[1:] - late[:-1], apart), (late[1:], 1 / (1 - a * a))):
        pieces = squares.square()[: 999 * 25].reshape(-1, 999).mean(1)  # of 999 samples each
        error = float(pieces.std()) / len(pieces) ** 0.5
        assert abs(float(pieces.mean()) - truth) < 3 * error < 0.03 * truth
    assert average_contraction(scalar(torch.full((60,), a))).coupled == pytest.approx(math.log(a))


def test_a_decaying_state_may_have_infinite_variance():
    """2.2 with probability 0.3, else 0.4: E log a < 0 < log E a^2."""
    assert 0.3 * math.log(2.2) + 0.7 * math.log(0.4) < 0 < math.log(0.3 * 2.2**2 + 0.7 * 0.4**2)
    a = torch.where(torch.rand(20_000, generator=torch.Generator().manual_seed(0)) < 0.3, 2.2, 0.4)
    found = average_contraction(scalar(a))
    assert found.high < 0
    assert "variance" not in found.sentence


# E5. A sum of gates is not a dimension: an open gate means that the past is let go.


@pytest.mark.parametrize(("keeps", "gates", "effective"), [(0.99, 0.08, 6.0), (0.0, 8.0, 1.5)])
def test_the_sum_of_the_gates_is_not_the_size_of_the_state(keeps, gates, effective):
    """Eight states: with small gates they are in use, with open ones only the newest input is."""
    t, n = 200, 8
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, t, 1, generator=g).double()
    write, read = (torch.randn(1, t, 1, n, generator=g).double() for _ in range(2))
    one, start = torch.ones(1, t, 1).double(), torch.zeros(1, 1, n).double()
    decay = torch.full((1, t, 1, n), keeps).double()
    assert float((1 - decay).sum(-1).mean()) == pytest.approx(gates)
    size = effective_state(Trace(x, decay, one, write, read, start, torch.ones(1).double()))
    middle = float(size.along[0, len(size.positions) // 2])
    assert (middle > effective) == (keeps > 0.5)
