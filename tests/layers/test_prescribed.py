"""Prescriptions hold after any training: certified, and measured on the layer itself."""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

import longstate
from longstate.errors import InputError
from longstate.layers import (
    DSS,
    S4,
    S4D,
    S5,
    GatedSSM,
    LinOSS,
    Longhorn,
    Mamba,
    Mamba2,
    _prescribed,
    prescribe,
    prescription,
    release,
)
from longstate.memory import certify
from longstate.models import LanguageModel, LanguageSpec
from longstate.testing import check_layer
from longstate.train._optim import make_optimiser
from longstate.train._settings import Training

HORIZON, GAIN = 150, 1.5
LINEAR = {
    "s4d": lambda: S4D(4, d_state=8),
    "s4d signed": lambda: S4D(4, d_state=4, init="signed"),
    "s4d real": lambda: S4D(4, d_state=4, init="real"),
    "s5": lambda: S5(4, d_state=8),
    "dss": lambda: DSS(4, d_state=8),
}
SELECTIVE = {
    "mamba": lambda: Mamba(4, d_state=3),
    "mamba, a smallest step": lambda: Mamba(4, d_state=3, dt_limit=(0.01, 0.5)),
    "mamba2": lambda: Mamba2(4, d_state=3, d_head=4),
    "gated": lambda: GatedSSM(4, d_state=6),
    "gated, hard": lambda: GatedSSM(4, d_state=6, top_k=2, floor=0.3),
}
LAYERS = LINEAR | SELECTIVE


def made(name):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    return prescribe(layer, horizon=HORIZON, gain=GAIN if name in LINEAR else None)


def pushed(layer, steps=25):
    """After steps that make outputs large: slow decays and large weights."""
    optimiser = torch.optim.Adam(layer.parameters(), lr=1.0)
    for _ in range(steps):
        optimiser.zero_grad()
        (-layer(torch.ones(2, 30, 4))[0].square().mean().log()).backward()
        optimiser.step()
    return layer


def worst(layer, words):
    found = certify(layer, radius=2.0).claims
    return max([c.certified for c in found if words in c.what], default=math.inf)


def keeps(layer, linear):
    held = [worst(layer, "until 1 %") <= HORIZON]  # infinite where it never forgets
    if linear:
        held += [worst(layer, words) <= GAIN for words in ("H-infinity", "l1")]
    return all(held)


@pytest.mark.parametrize("name", LAYERS)
def test_no_training_leaves_a_prescription(name):
    layer = made(name)
    assert keeps(layer, name in LINEAR)
    pushed(layer)
    assert keeps(layer, name in LINEAR)
    for seed in range(3):
        torch.manual_seed(seed)
        for p in layer.parameters():
            p.data = (2 + seed) * torch.randn_like(p)
        assert keeps(layer, name in LINEAR)
    torch.manual_seed(0)
    free = LAYERS[name]()
    assert not keeps(pushed(free, 8), name in LINEAR)  # what the same steps do without it


@pytest.mark.parametrize("name", LAYERS)
def test_a_prescription_that_is_not_kept_is_seen(name, monkeypatch):
    layer = pushed(made(name))
    for form in (_prescribed._Damped, _prescribed._AtLeast):
        monkeypatch.setattr(form, "forward", lambda self, free: free)
    assert worst(layer, "until 1 %") > HORIZON


@pytest.mark.parametrize("name", LAYERS)
def test_a_state_is_gone_after_the_horizon(name):
    """By running the layer, for zero input and for random ones: 1 % of the distance is left."""
    layer = pushed(made(name)).double()
    for scale in (0.0, 1.0):
        u = scale * torch.randn(3, HORIZON, 4).double()
        ends = []
        for seed in range(2):
            g = torch.Generator().manual_seed(seed)
            state = layer.init_state(3)
            whole = isinstance(state, dict)
            h = torch.randn((state["ssm"] if whole else state).shape, generator=g).double()
            h = h.to((state["ssm"] if whole else state).dtype)
            after = layer(u, {**state, "ssm": h} if whole else h)[1]
            ends.append((h, after["ssm"] if whole else after))
        (a, end_a), (b, end_b) = ends
        assert bool(((end_a - end_b).abs() <= 0.01 * (a - b).abs() * (1 + 1e-9) + 1e-12).all())


@pytest.mark.parametrize("name", LINEAR)
def test_no_input_is_amplified_more(name):
    """The worst signs of an input follow from impulse responses; and energy, on random input."""
    layer = pushed(made(name)).double()
    with torch.no_grad():
        impulses = torch.zeros(4, 400, 4).double()
        impulses[range(4), 0, range(4)] = 1
        kernel = layer(impulses)[0]  # (input, lag, output)
        for out in range(4):
            u = kernel[:, :, out].sign().flip(1).T
            assert float(layer(u[None])[0][0, -1, out].abs()) <= GAIN
        u = torch.randn(8, 400, 4).double()
        y = layer(u)[0]
        assert bool((y.square().sum((1, 2)) <= GAIN**2 * u.square().sum((1, 2))).all())
        assert float(kernel.abs().sum((0, 1)).max()) > 0.2 * GAIN  # and it is used


@pytest.mark.parametrize("name", ["s4d", "s5", "dss", "mamba2"])
def test_what_fits_already_does_not_change(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    if name == "mamba2":
        layer.dt_bias.data.fill_(0.0)
    u = torch.randn(2, 20, 4).double()
    expected = layer(u)[0]
    prescribe(layer, horizon=1e5, gain=1e4 if name in LINEAR else None)
    assert_close(layer(u)[0], expected)
    assert_close(release(layer)(u)[0], expected)


@pytest.mark.parametrize("name", LAYERS)
def test_is_a_layer_like_any_other(name):
    takes_dt = name != "s4d signed"
    check_layer(lambda: made(name), takes_dt=takes_dt, compiles=name in ("s4d", "mamba"))


@pytest.mark.parametrize("name", LAYERS)
def test_is_saved_and_loaded(name, tmp_path):
    layer = pushed(made(name), 3).eval()
    longstate.save(layer, tmp_path / "layer.safetensors")
    loaded = longstate.load(tmp_path / "layer.safetensors")
    assert prescription(loaded) == prescription(layer)
    u = torch.randn(2, 12, 4)
    assert torch.equal(loaded(u)[0], layer(u)[0])
    pushed(loaded)
    assert keeps(loaded, name in LINEAR)
    release(layer)
    longstate.save(layer, tmp_path / "free.safetensors")
    free = longstate.load(tmp_path / "free.safetensors")
    assert prescription(free) is None
    assert torch.equal(free(u)[0], layer(u)[0])


def test_a_model_has_it_in_its_options(tmp_path):
    options = {"mamba": {"d_state": 4, "prescribed": {"horizon": 80}}, "1": {"d_state": 4}}
    spec = LanguageSpec(20, 8, ("mamba", "s4d"), options=options)
    torch.manual_seed(0)
    model = LanguageModel(spec).eval()
    model.save(tmp_path / "model.safetensors")
    loaded = longstate.load(tmp_path / "model.safetensors")
    assert prescription(loaded.blocks[0].mixer).horizon == 80
    tokens = torch.randint(0, 20, (2, 9))
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])
    found = [c for c in certify(loaded).claims if "until 1 %" in c.what]
    assert found[0].certified <= 80
    with pytest.raises(InputError, match="no option 'horizons'"):
        LanguageSpec(20, 8, ("mamba",), options={"mamba": {"prescribed": {"horizons": 3}}})


def test_a_copy_is_by_itself():
    layer = made("s4d")
    other = copy.deepcopy(layer)
    before = layer.log_decay.detach().clone(), layer.C.detach().clone()
    for p in other.parameters():
        p.data = torch.randn_like(p)
    assert torch.equal(layer.log_decay, before[0])
    assert torch.equal(layer.C, before[1])


def test_its_decays_are_trained_as_decays():
    layer = made("mamba")
    free = layer.parametrizations.A_log.original
    group = next(
        g
        for g in make_optimiser(layer, Training()).param_groups
        if any(p is free for p in g["params"])
    )
    assert group["weight_decay"] == 0
    assert group["base_rate"] == Training().dynamics_rate
    assert layer.to(torch.bfloat16).parametrizations.A_log.original.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: S4(4), {"horizon": 9.0}, "a horizon can be prescribed for .*; got S4"),
        (lambda: LinOSS(4), {"horizon": 9.0}, "got LinOSS"),
        (lambda: Longhorn(4), {"horizon": 9.0}, "got Longhorn"),
        (lambda: S4D(4, variant="bilinear"), {"horizon": 9.0}, "got S4D bilinear"),
        (lambda: Mamba(4), {"gain": 2.0}, "a gain can be prescribed for .*; got Mamba"),
        (lambda: S4D(4, bidirectional=True), {"gain": 2.0}, "in one direction"),
        (lambda: S4D(4), {}, "needs horizon= or gain="),
        (lambda: S4D(4), {"gain": -1.0}, "gain must be a finite number above 0; got -1"),
        (lambda: S4D(4), {"horizon": math.inf}, "horizon must be a finite number above 0"),
        (lambda: Mamba(4, dt_limit=(0.0, 0.01)), {"horizon": 10.0}, "above dt_limit's 0.01"),
        (lambda: made("s4d"), {"horizon": 9.0}, "has a prescription already"),
    ],
)
def test_refuses(make, options, message):
    with pytest.raises(InputError, match=message):
        prescribe(make(), **options)


def test_a_bidirectional_layer_keeps_a_horizon():
    layer = prescribe(S5(4, d_state=8, bidirectional=True), horizon=HORIZON)
    assert worst(pushed(layer), "until 1 %") <= HORIZON


def test_a_reduction_asks_to_release_it_first():
    with pytest.raises(InputError, match=r"has a prescription, .*release\(layer\)"):
        longstate.reduce(made("s4d"), keep=0.5)
    assert longstate.reduce(release(made("s4d")), keep=0.5)[0].d_state < 8
