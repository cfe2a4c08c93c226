"""S5 against the paper's code, against its own system, and over irregular time."""

import pytest
import torch
from torch.testing import assert_close

from longstate.layers import S5
from longstate.systems import legs
from longstate.testing import assert_within_reference_error
from tests.golden import assert_parity, golden

DOUBLE = torch.float64


def make(d_model=3, seed=0, **options):
    torch.manual_seed(seed)
    return S5(d_model, **{"d_state": 8} | options).double()


def noise(*shape, seed=1):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def uneven(*shape, seed=2):
    return 3 * torch.rand(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


# The paper's numbers


@pytest.mark.parametrize("way", ["", "_bi"])
@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_is_the_papers_code(rule, way):
    g = golden(f"s5_{rule}{way}")
    n, d = g["B"].shape
    layer = S5(d, d_state=2 * n, variant=rule, bidirectional=bool(way))
    with torch.no_grad():
        layer.log_dt.copy_(g["dt"].log())
        layer.log_decay.copy_((-g["Lambda"].real).log())
        layer.frequency.copy_(g["Lambda"].imag)
        layer.B.copy_(torch.view_as_real(g["B"]))
        C = torch.stack(g["C"].chunk(2, dim=1)) if way else g["C"]
        layer.C.copy_(torch.view_as_real(C))
        layer.D.zero_()
    y, _ = layer(g["u"][None].float())
    assert_parity(y[0], g["y"])
    system = layer.system()
    assert_parity(system.A, g["Lambda_bar"])
    assert_parity(system.B, g["B_bar"])


def test_the_irregular_path_is_the_papers_code_too():
    g = golden("s5_zoh")
    layer = S5(4, d_state=12)
    with torch.no_grad():
        layer.log_dt.copy_(g["dt"].log())
        layer.log_decay.copy_((-g["Lambda"].real).log())
        layer.frequency.copy_(g["Lambda"].imag)
        layer.B.copy_(torch.view_as_real(g["B"]))
        layer.C.copy_(torch.view_as_real(g["C"]))
        layer.D.zero_()
    u = g["u"][None].float()
    y, _ = layer(u, dt=torch.ones(u.shape[:2]))
    assert_parity(y[0], g["y"])


# The contract


def test_compiles_over_irregular_time_in_one_graph():
    layer, u, dt = make(), noise(2, 9, 3), uneven(2, 9)
    mask, reset = uneven(2, 9, seed=3) < 2.5, uneven(2, 9, seed=4) < 0.5
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    flags = {"dt": dt, "mask": mask, "reset": reset}
    for a, b in zip(compiled(u, **flags), layer(u, **flags), strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("options", [{}, {"variant": "bilinear"}, {"bidirectional": True}])
def test_autocast_narrows_nothing(options):
    layer = S5(3, d_state=8, **options)
    u, dt = noise(2, 9, 3).float(), uneven(2, 9).float()
    for flags in ({}, {"dt": dt}):
        expected, state = layer(u, **flags)
        with torch.autocast("cpu", torch.bfloat16):
            y, again = layer(u, **flags)
        assert torch.equal(y, expected)
        assert options.get("bidirectional") or torch.equal(again, state)


# One system, many views


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_impulses_give_the_systems_response(rule, rate):
    layer = make(variant=rule)
    u = torch.eye(3, dtype=DOUBLE)[:, None] * torch.eye(20, 1, dtype=DOUBLE)
    y, state = layer(u, rate=rate)  # row i: an impulse in channel i
    system = layer.system(rate)
    assert_close(y.permute(1, 2, 0), system.impulse_response(20))
    assert_close(system.to_dense().impulse_response(20), system.impulse_response(20))
    silence, _ = layer(0 * u, state, rate=rate)
    assert_close(silence, system.state_response(state, 20))


def test_twice_the_rate_is_every_other_sample_of_a_held_signal():
    layer, u = make(), noise(2, 10, 3)
    half, _ = layer(u, rate=2.0)
    full, _ = layer(u.repeat_interleave(2, dim=1))
    assert_close(half, full[:, 1::2])


def test_starts_from_the_normal_part_of_legs():
    layer = make(d_state=12, n_blocks=3)
    A = layer.continuous_system().A
    hippo = legs(4)
    expected = torch.linalg.eigvals(hippo.A + hippo.P @ hippo.P.T)
    expected = expected[expected.imag > 0]
    expected = expected.imag.sort().values  # parameters begin in float32
    assert_within_reference_error(A[:2].imag.float(), expected, expected.float())
    assert_close(A, A[:2].repeat(3), rtol=0, atol=0)


@pytest.mark.parametrize("n_blocks", [1, 4])
def test_initial_variances(n_blocks):
    """B and C have variance 1 / d_state in real coordinates; the eigenvectors are unitary."""
    torch.manual_seed(0)
    layer = S5(400, d_state=64, n_blocks=n_blocks)
    B, C = torch.view_as_complex(layer.B.detach()), torch.view_as_complex(layer.C.detach())
    # half of the unitary coordinates: half of the energy of B, which is real
    assert abs(B.abs().square().sum() / (400 * 64 / 64 / 2) - 1) < 0.05
    assert abs(C.abs().square().sum() / (400 * 32 * 2 / 64) - 1) < 0.05
    dt = layer.log_dt.exp()
    assert dt.min() >= 1e-3
    assert dt.max() <= 1e-1


# Irregular time


def test_cutting_an_interval_leaves_the_state():
    layer, u, dt = make(), noise(2, 12, 3), uneven(2, 12)
    y, state = layer(u, dt=dt)
    cut = (dt[..., None] * torch.tensor([0.25, 0.75], dtype=DOUBLE)).flatten(1)
    z, after = layer(u.repeat_interleave(2, dim=1), dt=cut)
    assert_close(after, state)
    assert_close(z[:, 1::2], y)


def test_cutting_an_interval_changes_a_bilinear_state():
    layer, u = make(variant="bilinear"), noise(2, 12, 3)
    _, state = layer(u, dt=torch.ones(2, 12, dtype=DOUBLE))
    _, after = layer(u.repeat_interleave(2, dim=1), dt=torch.full((2, 24), 0.5, dtype=DOUBLE))
    assert (after - state).abs().max() > 1e-3 * state.abs().max()


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_every_parameter_learns_from_irregular_time(rule):
    layer, u = make(d_model=2, d_state=4, variant=rule), noise(1, 4, 2)
    dt = uneven(1, 4).requires_grad_()
    names = list(dict(layer.named_parameters()))
    values = [p.detach().requires_grad_() for p in layer.parameters()]

    def run(dt, *values):
        with_values = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, with_values, (u,), {"dt": dt})

    torch.autograd.gradcheck(run, (dt, *values))


# Both ways


def by_hand(layer, u, dt):
    """The two scans as loops over one sequence (t, d)."""
    s = layer.continuous_system()
    ahead, back = [], []
    h = torch.zeros_like(s.A)
    for t in range(len(u)):
        A, scale = layer._rule().diagonal(s.A, layer.log_dt.exp() * dt[t])
        h = A * h + scale * (s.B @ u[t].to(s.B.dtype))
        ahead.append(h)
    h = torch.zeros_like(s.A)
    for t in reversed(range(len(u))):
        to_next = dt[t + 1] if t + 1 < len(u) else 1.0
        A, scale = layer._rule().diagonal(s.A, layer.log_dt.exp() * to_next)
        h = A * h + scale * (s.B @ u[t].to(s.B.dtype))
        back.insert(0, h)
    y = torch.stack(ahead) @ s.C[0].mT + torch.stack(back) @ s.C[1].mT
    return 2 * y.real + layer.D * u


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_both_ways_by_hand(rule):
    layer = make(bidirectional=True, variant=rule)
    u, dt = noise(1, 11, 3), uneven(1, 11)
    y, state = layer(u, dt=dt)
    assert_close(y[0], by_hand(layer, u[0], dt[0]))
    assert_close(layer(u)[0][0], by_hand(layer, u[0], torch.ones(11, dtype=DOUBLE)))
    assert state == ()
    with pytest.raises(ValueError, match="bidirectional=False to stream"):
        layer.step(u[:, 0], state)
    with pytest.raises(ValueError, match="state"):
        layer(u, torch.zeros(1, 4, dtype=torch.complex128))


@pytest.mark.parametrize("irregular", [False, True])
def test_both_ways_with_padding_and_packing(irregular):
    layer = make(bidirectional=True)
    u, dt = noise(2, 15, 3), uneven(2, 15)
    mask = torch.ones(2, 15, dtype=torch.bool)
    mask[0, 9:] = False
    mask[1, [0, 1, 6]] = False
    reset = torch.zeros(2, 15, dtype=torch.bool)
    reset[:, 5] = True
    hostile = torch.where(mask[..., None], u, torch.nan)
    y, _ = layer(hostile, dt=dt if irregular else None, mask=mask, reset=reset)
    assert not y[~mask].any()
    for row in range(2):
        for piece in (slice(0, 5), slice(5, 15)):
            keep = mask[row, piece]
            alone = u[row : row + 1, piece][:, keep]
            times = dt[row : row + 1, piece][:, keep] if irregular else None
            assert_close(y[row : row + 1, piece][:, keep], layer(alone, dt=times)[0])


def test_masked_samples_may_be_nonfinite():
    layer, u, dt = make(), noise(2, 9, 3), uneven(2, 9)
    mask = uneven(2, 9, seed=3) < 2
    hostile = torch.where(mask[..., None], u, torch.nan).requires_grad_()
    y, _ = layer(hostile, dt=dt, mask=mask)
    assert_close(y, layer(torch.where(mask[..., None], u, 0), dt=dt, mask=mask)[0])
    assert torch.autograd.grad(y.sum(), hostile)[0].isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "euler"}, "'zoh' or 'bilinear'"),
        ({"d_state": 7}, "even multiple of n_blocks"),
        ({"d_state": 8, "n_blocks": 3}, "even multiple of n_blocks"),
        ({"dt_min": 0.0}, "0 < dt_min"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        S5(3, **options)
