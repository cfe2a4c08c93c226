"""Chimera: its recurrence site by site, its order of variates, and its bounds."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.layers import Chimera
from longstate.testing import assert_within_reference_error

P, N = 2, 3


def made(variates: int = 4) -> Chimera:
    torch.manual_seed(0)
    return Chimera(variates * P, variates=variates, d_state=N).double()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def site_by_site(layer: Chimera, x: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y, and the last h and g, from the equations of the docstring, one site (t, v) at a time."""
    b, t, variates, p = x.shape
    a = torch.complex(-layer.log_decay.exp(), layer.frequency)
    c = layer.log_across.exp()
    k, l = layer.coupling.tanh()
    total = torch.zeros_like(x)
    last = []
    for head in range(4):
        order = list(range(variates)) if head < 2 else list(reversed(range(variates)))
        zero = torch.zeros(b, p, N, dtype=a.dtype)
        h, g = {}, {}
        for time in range(t):
            for place, v in enumerate(order):
                site = x[:, time, v]
                steps = F.softplus(layer.steps(site)).view(b, 2, 4, p)
                s, r = steps[:, 0, head], steps[:, 1, head]
                parts = (layer.select(site).view(b, 4, 6, N) / N**0.5)[:, head]
                C1 = torch.complex(parts[:, 2], parts[:, 3])
                C2 = torch.complex(parts[:, 4], parts[:, 5])
                A1 = ((s * dt[:, time, None])[..., None] * a[head]).exp()
                length = (-(s * dt[:, time, None])[..., None] * layer.log_decay[head].exp()).exp()
                A4 = (-r[..., None] * c[head]).exp()
                B1x = (A1 - 1) / a[head] * parts[:, 0, None] * site[..., None]
                B2x = (1 - A4) / c[head] * parts[:, 1, None] * site[..., None]
                before = h.get((time - 1, place), zero), g.get((time - 1, place), zero)
                h[time, place] = A1 * before[0] + (1 - length) * k[head] * before[1] + B1x
                beside = h.get((time, place - 1), zero), g.get((time, place - 1), zero)
                g[time, place] = (1 - A4) * l[head] * beside[0] + A4 * beside[1] + B2x
                read = C1[:, None] * h[time, place] + C2[:, None] * g[time, place]
                total[:, time, v] += read.sum(-1).real
        last.append([torch.stack([f[t - 1, v] for v in range(variates)], 1) for f in (h, g)])
    y = layer.out_proj(F.silu(layer.gate(x)) * (total + layer.D * x))
    return y, *(torch.stack([state[i] for state in last], 2) for i in (0, 1))


@pytest.mark.parametrize("variates", [1, 4, 9])
@pytest.mark.parametrize("uneven", [False, True])
def test_a_pass_is_the_recurrence_site_by_site(variates, uneven):
    layer, x = made(variates), noise(2, 6, variates, P)
    dt = 2 * torch.rand(2, 6, generator=torch.Generator().manual_seed(2)).double()
    dt = dt if uneven else torch.ones_like(dt)
    y, state = layer(x.flatten(2), dt=dt if uneven else None)
    wanted, h, g = site_by_site(layer, x, dt)
    assert_close(y.unflatten(2, x.shape[2:]), wanted)
    assert_close(state, {"h": h, "g": g})


def test_packed_and_masked_rows_are_their_separate_sequences():
    layer, u = made(), noise(1, 14, 4 * P)
    mask = torch.ones(1, 14, dtype=torch.bool)
    mask[0, [2, 6, 7, 12]] = False
    reset = torch.zeros_like(mask)
    reset[0, 7] = True  # at a masked sample, behind another
    dt = torch.linspace(0.5, 2, 14).double()[None]
    y, state = layer(u, dt=dt, mask=mask, reset=reset)
    ahead, behind = mask[0].clone(), mask[0].clone()
    ahead[7:], behind[:7] = False, False
    assert_close(y[:, ahead], layer(u[:, ahead], dt=dt[:, ahead])[0])
    assert_close((y[:, behind], state), layer(u[:, behind], dt=dt[:, behind]))


def test_variates_in_reversed_order_are_the_other_heads():
    layer, x = made(), noise(2, 6, 4, P)
    with torch.no_grad():
        y, _ = layer(x.flatten(2))
        for q in (layer.log_decay, layer.frequency, layer.log_across):
            q.copy_(q.roll(2, 0))
        layer.coupling.copy_(layer.coupling.roll(2, 1))
        for linear, parts in ((layer.steps, 2), (layer.select, 1)):
            for q in linear.parameters():
                q.copy_(q.unflatten(0, (parts, 4, -1)).roll(2, 1).flatten(0, 2))
        turned, _ = layer(x.flip(2).flatten(2))
    assert_close(turned.unflatten(2, x.shape[2:]).flip(2), y.unflatten(2, x.shape[2:]))


@pytest.mark.parametrize(("coupling", "alone"), [(0.0, True), (0.5, False)])
def test_without_coupling_and_reading_across_variates_are_separate(coupling, alone):
    layer, x = made(), noise(1, 6, 4, P)
    with torch.no_grad():
        layer.coupling.fill_(coupling)
        layer.select.weight.unflatten(0, (4, 6, -1))[:, 4:] = 0  # C2
        other = x.clone()
        other[:, :, 1] = noise(1, 6, P) + 1
        y, changed = (layer(v.flatten(2))[0].unflatten(2, x.shape[2:]) for v in (x, other))
    kept = [0, 2, 3]
    assert torch.allclose(y[:, :, kept], changed[:, :, kept]) == alone
    assert not torch.allclose(y[:, :, 1], changed[:, :, 1])


def test_no_state_grows_without_input_for_any_parameters():
    layer = made(9)
    with torch.no_grad():
        for q in (layer.log_decay, layer.frequency, layer.log_across, layer.coupling):
            q.copy_(3 * torch.randn_like(q))
        layer.steps.bias.copy_(3 * torch.randn_like(layer.steps.bias))
        state = {k: torch.randn_like(s) for k, s in layer.init_state(2).items()}
        lengths = [max(float(s.abs().max()) for s in state.values())]
        for _ in range(30):
            _, state = layer(torch.zeros(2, 1, layer.d_model, dtype=torch.float64), state)
            lengths.append(max(float(s.abs().max()) for s in state.values()))
    assert all(b <= a for a, b in itertools.pairwise(lengths))


def test_gradients():
    torch.manual_seed(0)
    layer = Chimera(2, variates=2, d_state=1).double()
    for time in (1, 3):  # over time, and over variates
        u, dt = noise(1, time, 2), torch.linspace(0.5, 2, time)[None].double()
        inputs = (u.requires_grad_(), dt.requires_grad_(), *layer.parameters())
        names = list(dict(layer.named_parameters()))

        def run(u, dt, *values, names=names):
            given = dict(zip(names, values, strict=True))
            y, state = torch.func.functional_call(layer, given, (u,), {"dt": dt})
            return y, *state.values()

        assert torch.autograd.gradcheck(run, inputs)


def test_float32_is_as_exact_as_the_sites_in_float32():
    layer, x = made().float(), noise(2, 30, 4, P).float()
    with torch.no_grad():
        y, state = layer(x.flatten(2))
        plain = site_by_site(layer, x, torch.ones(2, 30))
        layer.double()
        exact = site_by_site(layer, x.double(), torch.ones(2, 30).double())
    found = (y.unflatten(2, x.shape[2:]), state["h"], state["g"])
    for one, right, usual in zip(found, exact, plain, strict=True):
        assert_within_reference_error(one, right, usual)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variates": 3}, "a multiple of variates; got 8 with 3 variates"),
        ({"variates": 0}, "got 8 with 0 variates"),
        ({"d_state": 0}, "d_state must be at least 1; got 0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Chimera(8, **options)
