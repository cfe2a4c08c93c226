"""prepare_for_decoding: any module, the same numbers, nothing changed."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._pytree import tree_map

from longstate.layers import S4D, Longhorn, Mamba, Mamba2, Mamba3
from longstate.memory import certify
from longstate.models import LanguageModel, LanguageSpec, Stack, prepare_for_decoding
from longstate.models._decoding import PanelLinear
from longstate.ops.matvec import quantise_rows
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import run_python

FORMATS = ("float32", "bfloat16", "int8")
LAYERS = {
    "Mamba": lambda: Mamba(40, d_state=5),
    "Mamba, 16 states": lambda: Mamba(64),
    "Mamba, limits": lambda: Mamba(40, d_state=5, dt_limit=(0.01, 0.02)),
    "Mamba, one tap": lambda: Mamba(8, d_conv=1, d_state=1),
    "Longhorn": lambda: Longhorn(40, d_state=5),
    "Longhorn, exact": lambda: Longhorn(40, variant="exact"),
    "Mamba2": lambda: Mamba2(40, d_state=7, d_head=20, n_groups=2),
    "Mamba3": lambda: Mamba3(40, d_state=8, d_head=20),
    "S4D": lambda: S4D(40),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


class Tied(nn.Module):
    """A language model's outline: `embedding`, `head`."""

    def __init__(self, head: str):
        super().__init__()
        self.embedding = nn.Embedding(70, 24)
        self.mixer = Mamba(24)
        self.head = None if head == "none" else nn.Linear(24, 70, bias=False)
        if head == "shared":
            self.head.weight = self.embedding.weight

    def forward(self, tokens, state=None):
        x, state = self.mixer(self.embedding(tokens), state)
        if self.head is None:
            return nn.functional.linear(x, self.embedding.weight), state
        return self.head(x), state


def rounded(weight, kind):
    if kind == "int8":
        q, scale = quantise_rows(weight.detach().float())
        return q.double() * scale.double()[:, None]
    return weight.detach().to(getattr(torch, kind)).double()


def steps(layer, u, state):
    outputs = []
    for t in range(u.shape[1]):
        y, state = layer.step(u[:, t], state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


@pytest.mark.parametrize("gate", ["glu", "mlp"])
def test_a_prepared_step_includes_the_gate(gate):
    torch.manual_seed(0)
    spec = LanguageSpec(11, 16, ("mamba",) * 2, {"mamba": {"d_state": 3}}, gate=gate)
    model = LanguageModel(spec).eval()
    tokens = torch.tensor([1, 5])
    with torch.no_grad():
        expected, _ = model.step(tokens, model.init_state(2))
        actual, _ = prepare_for_decoding(model).step(tokens, model.init_state(2))
    assert_close(actual, expected)


@every_layer
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("b", [0, 1, 3, 9])
def test_steps_are_a_pass(name, kind, b):
    torch.manual_seed(0)
    layer = prepare_for_decoding(LAYERS[name]().double(), kind)
    u = torch.randn(b, 9, layer.d_model, dtype=torch.float64)
    first = layer(u, None)[1]
    kept = copy.deepcopy(first)
    assert_close(steps(layer, u, first), layer(u, first))
    tree_map(lambda a, b: assert_close(a, b, rtol=0, atol=0), first, kept)


@every_layer
def test_steps_in_float32_are_as_good_as_a_pass(name):
    torch.manual_seed(0)
    model = LAYERS[name]()
    fast = prepare_for_decoding(model)
    u = torch.randn(4, 40, model.d_model)
    exact = model.double()(u.double())[0]
    assert_within_reference_error(steps(fast, u, fast.init_state(4))[0], exact, fast(u)[0])


@every_layer
def test_a_prepared_step_accepts_all_arguments_of_a_step(name):
    torch.manual_seed(0)
    model = LAYERS[name]().double()
    fast, u = prepare_for_decoding(model), torch.randn(3, model.d_model, dtype=torch.float64)
    fast.load_state_dict(fast.state_dict())
    state = fast(torch.randn(3, 4, model.d_model, dtype=torch.float64))[1]
    flags = {"mask": torch.tensor([True, False, True]), "reset": torch.tensor([False, True, True])}
    expected = fast(u[:, None], state, **{k: v[:, None] for k, v in flags.items()})
    y, after = fast.step(u, state, **flags)
    assert_close((y[:, None], after), expected)
    with pytest.raises(ValueError, match="state"):
        fast.step(u, fast.init_state(2))
    with pytest.raises(ValueError, match="u of shape"):
        fast.step(u[:, 1:], state)
    if name == "Mamba":
        dt = torch.rand(3, dtype=torch.float64)
        y, after = fast.step(u, state, dt=dt)
        assert_close((y[:, None], after), fast(u[:, None], state, dt=dt[:, None]))
    wanted = u.clone().requires_grad_()
    (found,) = torch.autograd.grad(fast.step(wanted, state)[0].sum(), wanted)
    (plain,) = torch.autograd.grad(fast(wanted[:, None], state)[0].sum(), wanted)
    assert_close(found, plain)


def test_mamba_is_one_call(monkeypatch):
    from longstate.layers import mamba

    monkeypatch.setattr(mamba, "short_conv", None)  # the way through the ops one by one
    model, wide = (prepare_for_decoding(Mamba(d)) for d in (16, 520))
    state, u = model.init_state(1), torch.randn(1, 16)
    y, _ = model.step(u.bfloat16(), state)
    assert y.dtype == torch.bfloat16
    model.step(u, state)
    model(torch.randn(2, 16, 16))
    with pytest.raises(TypeError):
        model(torch.randn(3, 11, 16))
    with pytest.raises(TypeError):
        model(torch.randn(2, 3, 16), mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeError):
        model.step(u, state, dt=torch.ones(1))
    with pytest.raises(TypeError):
        Mamba(16).step(u, state)

    class Other(Mamba):
        pass

    with pytest.raises(TypeError):
        prepare_for_decoding(Other(16)).step(u, state)
    before = torch.get_num_threads()
    monkeypatch.setattr("longstate.models._decoding._mamba._ALONE", 2**20)
    try:
        torch.set_num_threads(1)
        wide.step(torch.randn(1, 520), wide.init_state(1))
        wide(torch.randn(1, 9, 520))
        torch.set_num_threads(2)
        with pytest.raises(TypeError):
            wide(torch.randn(1, 9, 520))
        with pytest.raises(TypeError):
            wide.step(torch.randn(1, 520), wide.init_state(1))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("head", ["none", "shared", "own"])
def test_heads(kind, head):
    torch.manual_seed(0)
    model = Tied(head).double()
    before = copy.deepcopy(model.state_dict())
    fast = prepare_for_decoding(model, kind)
    assert type(fast) is Tied
    assert isinstance(fast.head, PanelLinear)
    assert torch.equal(fast.embedding.weight, model.embedding.weight)
    tokens = torch.randint(70, (2, 5))
    x = fast.mixer(model.embedding(tokens))[0]
    weight = model.embedding.weight if model.head is None else model.head.weight
    assert_close(fast.double()(tokens)[0], x @ rounded(weight, kind).T)
    with torch.no_grad():
        fast.embedding.weight.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in fast.parameters())
    assert model.training
    assert not fast.training


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("b", [1, 12])
def test_a_language_model(tie, b):
    torch.manual_seed(0)
    spec = LanguageSpec(70, 32, ("mamba", "mamba2", "s4d"), tie=tie)
    fast = prepare_for_decoding(LanguageModel(spec).double())
    assert isinstance(fast.head, PanelLinear)
    tokens = torch.randint(70, (b, 6))
    assert_close(steps(fast, tokens, fast.init_state(b)), fast(tokens))


def test_any_module():
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    for model in (nn.Linear(6, 6), nn.Sequential(shared, nn.ReLU(), shared), Stack([S4D(6)])):
        fast = prepare_for_decoding(model.double())
        x = torch.randn(2, 4, 6, dtype=torch.float64)
        first = fast(x)[0] if isinstance(fast, Stack) else fast(x)
        plain = prepare_for_decoding(model, "float32").double()
        other = plain(x)[0] if isinstance(plain, Stack) else plain(x)
        assert_close(first, other)
        assert not any(type(m) is nn.Linear for m in fast.modules())
    fast = prepare_for_decoding(nn.Sequential(shared, nn.ReLU(), shared))
    assert fast[0] is fast[2]
    assert isinstance(prepare_for_decoding(nn.ReLU()), nn.ReLU)


def test_refuses():
    with pytest.raises(ValueError, match="float32, bfloat16 or int8; got 'int4'"):
        prepare_for_decoding(nn.ReLU(), "int4")  # type: ignore[arg-type]
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"^1: .*not finite"):
        prepare_for_decoding(model, "int8")


def test_copies_of_a_prepared_model():
    torch.manual_seed(0)
    fast = prepare_for_decoding(Mamba(16), "int8")
    again, u = copy.deepcopy(fast), torch.randn(1, 16)
    assert_close(again.step(u, again.init_state(1)), fast.step(u, fast.init_state(1)))
    again.load_state_dict(prepare_for_decoding(Mamba(16), "int8").state_dict())
    assert not torch.equal(again.in_proj.panels, fast.in_proj.panels)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_what_was_prepared_can_be_certified(kind):
    """The weights are those that it computes with, rounded as they are."""
    torch.manual_seed(0)
    model = LanguageModel(LanguageSpec(70, 32, ("mamba", "longhorn", "mamba2")))
    fast = prepare_for_decoding(model, kind)
    ours, theirs = (m.blocks[0].mixer.in_proj.weight for m in (fast, model))
    assert torch.equal(ours, theirs) == (kind == "float32")
    x = torch.randn(2, 32)
    assert_close(x @ ours.T, fast.blocks[0].mixer.in_proj(x))
    assert certify(fast, torch.randint(70, (2, 40))).passed


def test_a_bound_step_sees_its_weights_change():
    torch.manual_seed(0)
    fast, other = (prepare_for_decoding(Mamba(16)) for _ in range(2))
    u, state = torch.randn(1, 16), fast.init_state(1)
    first = fast.step(u, state)[0]
    with torch.no_grad():
        fast.A_log.add_(1)  # in place
        fast.in_proj.panels.mul_(2)
    state = fast(torch.randn(1, 4, 16))[1]
    assert_close(fast.step(u, state)[0], fast(u[:, None], state)[0][:, 0])
    fast.load_state_dict(other.state_dict())
    assert torch.equal(fast.step(u, state)[0], other.step(u, state)[0])
    for name, change in (("D", 3.0), ("A_log", 0.1)):  # another tensor
        setattr(fast, name, nn.Parameter(getattr(other, name) + change, requires_grad=False))
        assert not torch.equal(fast.step(u, state)[0], other.step(u, state)[0])
        assert_close(fast.step(u, state)[0], fast(u[:, None], state)[0][:, 0])
    fast.double()
    u, state = u.double(), tree_map(Tensor.double, state)
    assert_close(fast.step(u, state)[0], fast(u[:, None], state)[0][:, 0])
    assert not torch.equal(fast.step(u, state)[0].float(), first)
    saved = pickle.loads(pickle.dumps(fast))
    assert_close(saved.step(u, state), fast.step(u, state))


def test_refuses_projections_that_do_not_fit():
    fast, wider = prepare_for_decoding(Mamba(16)), prepare_for_decoding(Mamba(16, d_state=40))
    fast.x_proj = wider.x_proj
    with pytest.raises(ValueError, match="x_proj must be a map from 32 channels to 33"):
        fast.step(torch.randn(1, 16), fast.init_state(1))


def test_preparing_loads_no_numba():
    code = (
        "import sys; from longstate.models import prepare_for_decoding; import torch;"
        "before = 'numba' in sys.modules; prepare_for_decoding(torch.nn.Linear(3, 4));"
        "print('numba' in sys.modules and not before)"
    )
    assert run_python(code).strip() == "False"
