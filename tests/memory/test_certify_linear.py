"""Certificates of linear layers against the layer itself: impulses, sinusoids, powers.

Nothing here looks at how a bound was come by. Each is attacked by running the layer, and each must
be near what the attack reaches: a bound that is too low, and a search that is too weak, both fail.
"""

import math

import pytest
import torch
from torch import nn

from longstate.layers import DSS, S4, S4D, S5, LinOSS
from longstate.memory import certify, gains
from longstate.systems import DenseSystem, DiagonalSystem, TwoSidedSystem

FAST = {"dt_min": 0.02, "dt_max": 0.2}
LAYERS = {
    "S4": lambda **k: S4(2, d_state=8, **FAST, **k),
    "S4 legt": lambda **k: S4(2, d_state=6, init="legt", **FAST, **k),
    "S4D": lambda **k: S4D(3, d_state=8, **FAST, **k),
    "S4D bilinear": lambda **k: S4D(2, d_state=8, variant="bilinear", **FAST, **k),
    "S4D signed": lambda **k: S4D(2, d_state=5, init="signed", **FAST, **k),
    "S4D real": lambda **k: S4D(2, d_state=5, init="real", **FAST, **k),
    "DSS": lambda **k: DSS(2, d_state=8, **FAST, **k),
    "S5": lambda **k: S5(3, d_state=8, **FAST, **k),
}
HALF = 1 << 12


def claim(result, words):
    return next(c for c in result.claims if words in c.what)


def response(layer):
    """The effect of a sample on all outputs, earlier ones too: (2 HALF, o, i), from the layer."""
    d = layer.d_model
    u = torch.zeros(d, 2 * HALF, d, dtype=torch.float64)
    u[range(d), HALF, range(d)] = 1
    with torch.no_grad():
        return layer(u)[0].permute(1, 2, 0)


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_gains_are_those_of_the_whole_layer(name, both_ways):
    """Of both directions together: their peaks may meet at one frequency."""
    torch.manual_seed(3)
    layer = LAYERS[name](bidirectional=both_ways).double()
    found, K = certify(layer), response(layer)
    G = torch.fft.rfft(K, n=8 * HALF, dim=0)
    energy = float(torch.linalg.matrix_norm(G, 2).max())
    certified = claim(found, "H-infinity")
    assert energy <= certified.certified * (1 + 1e-9)
    assert energy >= 0.995 * certified.certified
    assert certified.attacked <= certified.certified <= 1.003 * certified.attacked
    assert energy >= 0.995 * certified.attacked
    amplitude = float(K.abs().sum((0, 2)).max())
    certified = claim(found, "l1")
    assert certified.attacked <= certified.certified * (1 + 1e-12)
    torch.testing.assert_close(torch.tensor(certified.certified), torch.tensor(amplitude))
    torch.testing.assert_close(torch.tensor(certified.attacked), torch.tensor(amplitude))


def test_the_worst_signs_reach_the_l1_gain():
    """An input of 1 and -1 that the layer answers with its l1 gain, as the attack says."""
    torch.manual_seed(0)
    layer = S4D(1, d_state=8, bidirectional=True, **FAST).double()
    K = response(layer)[:, 0, 0]  # of an impulse at HALF
    u = torch.cat([K[1:], K[:1]]).flip(0).sign()
    with torch.no_grad():
        y = layer(u[None, :, None])[0][0, :, 0]
    found = claim(certify(layer), "l1").attacked
    torch.testing.assert_close(y.abs().max(), torch.tensor(found, dtype=torch.float64))


@pytest.mark.parametrize("name", ["S4", "S4D", "S5"])
def test_a_sinusoid_at_the_peak_is_amplified_as_the_attack_says(name):
    torch.manual_seed(1)
    layer = LAYERS[name](bidirectional=True).double()
    found = gains(layer.two_sided())
    worst = int(found.h_infinity_below.flatten().argmax())
    w = float(found.peak.flatten()[worst])
    K = response(layer)
    turn = torch.polar(torch.ones(2 * HALF).double(), -w * (torch.arange(2 * HALF) - HALF).double())
    G = (K * turn[:, None, None]).sum(0)
    there = torch.linalg.matrix_norm(G, 2) if name == "S5" else G.diagonal().abs()[worst]
    torch.testing.assert_close(there, found.h_infinity_below.flatten()[worst])


def powers(A, steps):
    """|A^k|, the largest over channels, for k = 0 .. steps, one by one."""
    A = A.reshape(-1, *A.shape[-2:])
    now, norms = torch.eye(A.shape[-1]).double().expand_as(A), []
    for _ in range(steps + 1):
        norms.append(float(torch.linalg.matrix_norm(now, 2).max()))
        now = A @ now
    return torch.tensor(norms, dtype=torch.float64)


FADING = {
    "LinOSS": (lambda: LinOSS(4, d_state=8), 1),
    "LinOSS, more": (lambda: LinOSS(2, d_state=12), 5),
    "S4": (lambda: S4(2, d_state=16, **FAST), 0),
    "S4 fout": (lambda: S4(1, d_state=8, init="fout", dt_min=0.3, dt_max=0.5), 2),
    "S4D": (lambda: S4D(2, d_state=8, **FAST), 0),
}


@pytest.mark.parametrize("name", FADING)
def test_the_retention_of_a_state_is_a_norm_and_not_an_eigenvalue(name):
    make, seed = FADING[name]
    torch.manual_seed(seed)
    layer = make().double()
    found = certify(layer)
    steps, growth = claim(found, "until 1 %"), claim(found, "growth")
    with torch.no_grad():
        norms = powers(layer.system().to_dense().A, 2 * int(steps.certified))
    assert float(norms[int(steps.certified) :].max()) <= 0.01 * (1 + 1e-9)
    above = (norms > 0.01).nonzero()[-1].item() + 1  # the first step from which on it is less
    assert steps.attacked <= above <= steps.certified
    assert steps.certified <= 2 * above
    assert float(norms.max()) <= growth.certified * (1 + 1e-9)
    assert growth.attacked <= float(norms.max()) * (1 + 1e-9)
    assert growth.certified <= 2 * float(norms.max())


def test_a_state_that_grows_first_is_reported_as_growing():
    torch.manual_seed(1)
    found = certify(LinOSS(4, d_state=8))
    assert found.passed
    assert "grow" in found.sentence
    assert claim(found, "growth").attacked > 7.9
    torch.manual_seed(0)
    found = certify(S4(2, d_state=8))
    assert "No layer (of 1) can expand" in found.sentence
    assert "2-norm" in found.sentence


@pytest.mark.parametrize("seed", range(40))
def test_an_oscillator_that_keeps_its_energy_fails_and_raises_nothing(seed):
    torch.manual_seed(seed)
    found = certify(LinOSS(2, d_state=4, variant="imex"))
    assert not found.passed
    assert found.claims[0].certified == 1
    assert claim(found, "until 1 %").certified == math.inf


def test_a_decay_that_rounds_to_one_where_it_runs_fails():
    """exp(-5e-14) is 1 in float32, in which the layer runs, and less than 1 in float64."""
    torch.manual_seed(0)
    layer = S4D(2, d_state=4)
    layer.log_dt.data.fill_(-30)
    found = certify(layer)
    assert not found.passed
    assert "float32" in found.claims[0].note
    found = certify(layer.double())
    assert found.passed
    assert 1e13 < claim(found, "until 1 %").certified < math.inf
    assert claim(found, "l1").holds is None
    assert "no practical bound" in claim(found, "l1").note
    assert "no practical bound" in found.sentence


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["S4", "S4D", "S5"])
def test_narrow_weights(name, dtype):
    """The certificate is of the weights as they are, in exact arithmetic."""
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    found = certify(layer)
    K = response(layer.double())
    energy = float(torch.linalg.matrix_norm(torch.fft.rfft(K, n=8 * HALF, dim=0), 2).max())
    assert 0.995 * claim(found, "H-infinity").certified <= energy
    assert energy <= claim(found, "H-infinity").certified * (1 + 1e-9)


class Given(nn.Module):
    """A system, as a layer."""

    def __init__(self, system, dtype=torch.float64):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=dtype))
        self.given = system

    def system(self):
        return self.given


def ill_conditioned(seed):
    """Stable, with eigenvectors that are nearly dependent: a Jordan block, disturbed and turned."""
    g = torch.Generator().manual_seed(seed)
    n = 4 + seed % 5
    poles = 0.3 + 0.6 * torch.rand(1, generator=g).double() + 1e-6 * torch.randn(n, generator=g)
    A = torch.diag(poles) + torch.diag((0.2 + torch.rand(n - 1, generator=g)).double(), 1)
    Q = torch.linalg.qr(torch.randn(n, n, generator=g).double()).Q
    B, C, D = (torch.randn(*s, generator=g).double() for s in ((n, 1), (1, n), (1, 1)))
    return DenseSystem(Q @ A @ Q.mT, B, C, D, discrete=True)


@pytest.mark.parametrize("seed", range(30))
def test_ill_conditioned_systems_are_enclosed(seed):
    """Against mpmath: the response at 60 digits, at frequencies around the peak, and summed."""
    from mpmath import matrix, mp, mpf

    system = ill_conditioned(seed)
    assert float(torch.linalg.cond(torch.linalg.eig(system.A).eigenvectors)) > 1e7
    found = gains(system)
    with mp.workdps(60):
        A, B, C, D = (matrix([[mpf(float(x)) for x in r] for r in v]) for v in
                      (system.A, system.B, system.C, system.D))  # fmt: skip

        def size(w):
            z = mp.expj(-w)
            return abs((C * mp.lu_solve(mp.eye(A.rows) - A * z, B) + D)[0])

        peak = float(found.peak)
        values = [size(mpf(peak) + mpf(k) / 2000) for k in range(-20, 21)]
        assert max(values) <= mpf(float(found.h_infinity))
        assert size(mpf(peak)) >= mpf(float(found.h_infinity_below))
        x, total = B, mpf(0)
        for lag in range(1500):
            row = C * x + (D if lag == 0 else 0 * D)
            total += sum(abs(v) for v in row)
            x = A * x
        assert total <= mpf(float(found.l1))
        assert total >= mpf(float(found.l1_below)) * (1 - mpf(10) ** -12)
    # where no proof near the peak succeeds, the l1 gain is what is proved
    assert float(found.h_infinity) <= max(1.01 * float(found.h_infinity_below), float(found.l1))


def test_the_proof_near_the_peak_is_the_rule():
    found = [gains(ill_conditioned(seed)) for seed in range(30)]
    near = [float(g.h_infinity) <= 1.01 * float(g.h_infinity_below) for g in found]
    assert sum(near) >= 25
    near = [float(g.l1) <= 1.001 * float(g.l1_below) for g in found]
    assert sum(near) >= 25


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_bound_that_its_format_cannot_hold_is_no_practical_bound(dtype):
    one = torch.ones(1, 1, dtype=torch.float64)
    large = Given(DiagonalSystem(0.5 * one[0], 50_000 * one, one, 0 * one, discrete=True), dtype)
    found = claim(certify(large), "l1")
    assert found.certified == pytest.approx(100_000)
    assert found.holds is (None if dtype == torch.float16 else True)
    assert ("65,504" in found.note) == (dtype == torch.float16)
    assert ("no practical bound" in certify(large).table()) == (dtype == torch.float16)


def test_two_sided_systems_of_dense_matrices():
    """Different systems in the two directions, against their sum on a grid."""
    torch.manual_seed(0)
    parts = []
    for n in (3, 5):
        A = torch.randn(n, n).double()
        A = 0.9 * A / torch.linalg.eigvals(A).abs().max()
        parts.append(
            DenseSystem(
                A, torch.randn(n, 2).double(), torch.randn(2, n).double(),
                torch.randn(2, 2).double() if n == 3 else torch.zeros(2, 2).double(), discrete=True,
            )
        )  # fmt: skip
    found = gains(TwoSidedSystem(*parts))
    w = torch.linspace(-math.pi, math.pi, 20001).double()
    ahead, behind = parts[0].frequency_response(w), parts[1].frequency_response(-w)
    G = ahead + torch.polar(torch.ones_like(w), w)[:, None, None] * behind
    grid = float(torch.linalg.matrix_norm(G, 2).max())
    assert grid <= float(found.h_infinity) * (1 + 1e-12)
    assert float(found.h_infinity) <= 1.005 * grid


def test_a_direct_path_belongs_to_one_direction():
    one = torch.ones(1, 1).double()
    part = DenseSystem(0.5 * one, one, one, one, discrete=True)
    with pytest.raises(ValueError, match="behind"):
        TwoSidedSystem(part, part)
    with pytest.raises(ValueError, match="one direction"):
        S4D(2).two_sided()
    with pytest.raises(ValueError, match="one direction"):
        S5(2).two_sided()
