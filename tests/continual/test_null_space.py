"""Old outputs stay: for every optimiser, for shared weights, over several tasks; and what is
frozen."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from longstate.continual import NullSpace
from longstate.errors import InputError
from longstate.layers import S4D, Elman, Mamba, Mamba2
from longstate.models import LanguageModel, LanguageSpec, Stack

OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
}
MODELS = {
    "mlp": lambda: nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 5)),
    "mamba": lambda: Stack([Mamba(24, d_state=4), Mamba(24, d_state=4)]),
    "mamba2": lambda: Stack([Mamba2(24, d_state=4, d_head=8)], norm="rms"),
    "s4d": lambda: Stack([S4D(24, d_state=4), S4D(24, d_state=4)]),
    "elman": lambda: Stack([Elman(24, d_state=30)]),
    "batch-norm": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(96, 40), nn.BatchNorm1d(40), nn.Dropout(0.5), nn.Linear(40, 3)
    ),
}


def data(seed: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 4, 24, generator=torch.Generator().manual_seed(seed)).double()


@torch.no_grad()
def outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = model.eval()(x)
    return y[0] if isinstance(y, tuple) else y


def learn(model: nn.Module, optimiser: torch.optim.Optimizer, x: torch.Tensor, steps: int = 20):
    """Towards random outputs."""
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        y = model(x)
        y = y[0] if isinstance(y, tuple) else y
        target = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
        (y - target).square().mean().backward()
        optimiser.step()


def keep(space: NullSpace, *parts: torch.Tensor, **options):
    with space.watch():
        for x in parts:
            space.model(x)
    return {row.name: row for row in space.keep(**options)}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("name", MODELS)
def test_outputs_on_old_data_stay_and_others_change(name, optimiser):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    steps = OPTIMISERS[optimiser](model.parameters())
    space = NullSpace(model)
    space.attach(steps)
    first, second = data(1), data(2)
    learn(model, steps, first)  # nothing is kept yet
    keep(space, first)
    before, other = outputs(model, first), outputs(model, second)
    learn(model, steps, second)
    torch.testing.assert_close(outputs(model, first), before)
    assert float((outputs(model, second) - other).abs().max()) > 1e-4


@pytest.mark.parametrize("name", ["mlp", "mamba"])
def test_several_tasks(name):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    steps = OPTIMISERS["adam"](model.parameters())
    space = NullSpace(model)
    space.attach(steps)
    tasks, before = [data(i, 1) for i in range(4)], []
    for x in tasks:
        learn(model, steps, x)
        kept = keep(space, x)
        before.append(outputs(model, x))
    assert all(row.kept <= 16 for row in kept.values() if row.how == "projected")
    for x, y in zip(tasks, before, strict=True):
        torch.testing.assert_close(outputs(model, x), y)


def test_the_old_features_are_those_of_all_parts_of_the_data():
    """More samples than a factor adds at once, in directions that come late."""
    torch.manual_seed(0)
    model, parts = nn.Linear(24, 3).double(), torch.eye(24).double()[:6, None]
    space = NullSpace(model)
    many = parts[0].repeat(9000, 1)
    kept, bias = keep(space, many, *parts[1:]), model.bias.clone()
    assert kept["weight"].kept == 6
    assert kept["bias"].how == "projected"
    before = outputs(model, parts)
    nn.init.normal_(model.weight)
    nn.init.normal_(model.bias)
    space.project()
    torch.testing.assert_close(outputs(model, parts), before)
    assert not torch.allclose(model.bias, bias)


class Shared(nn.Module):
    """A weight read by an embedding, by two matrices with biases of their own, and by a function
    that no module calls."""

    def __init__(self, functional: bool):
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 24), nn.Linear(24, 30)
        self.again = nn.Linear(24, 30)
        self.head.weight = self.again.weight = self.embed.weight
        self.functional = functional

    def forward(self, tokens):
        x = self.embed(tokens)
        y = self.head(x) + self.again(x.flip(1))
        return y + torch.sin(x @ self.embed.weight.T) if self.functional else y


@pytest.mark.parametrize("functional", [False, True])
def test_shared_weights(functional):
    torch.manual_seed(0)
    model = Shared(functional).double()
    steps = OPTIMISERS["adamw"](model.parameters())
    space = NullSpace(model)
    space.attach(steps)
    old, new = torch.tensor([[1, 2, 3], [2, 2, 5]]), torch.tensor([[7, 8, 1]])
    kept = keep(space, old)
    assert kept["embed.weight"].how == ("frozen" if functional else "projected")
    assert kept["head.bias"].how == kept["again.bias"].how == "frozen"
    before, other = outputs(model, old), outputs(model, new)
    learn(model, steps, new)
    torch.testing.assert_close(outputs(model, old), before)
    assert torch.equal(outputs(model, new), other) == functional


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model(tied):
    torch.manual_seed(0)
    spec = LanguageSpec(40, 24, ["mamba"], tie=tied)
    model = LanguageModel(spec).double()
    steps = OPTIMISERS["adam"](model.parameters())
    space = NullSpace(model)
    space.attach(steps)
    old, new = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[7, 8, 2, 9]])
    kept = keep(space, old)
    assert kept["embedding.weight"].how == ("projected" if tied else "rows")
    before, other = outputs(model, old), outputs(model, new)
    learn(model, steps, new)
    torch.testing.assert_close(outputs(model, old), before)
    assert not torch.allclose(outputs(model, new), other)


def test_a_bias_moves_with_its_own_matrix_only():
    """One bias of two matrices; a bias whose matrix is frozen."""
    model = nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3), "c": nn.Linear(4, 3)})
    model["b"].bias = model["a"].bias
    space = NullSpace(model.double())
    x = torch.ones(1, 4).double()
    with space.watch():
        model["a"](x), model["b"](x), model["c"](x), model["c"].weight.exp()
        assert model["a"].weight.to(x.dtype).shape  # reads no value
    kept = {row.name: row for row in space.keep()}
    assert [kept[name].how for name in ("a.weight", "b.weight")] == ["projected"] * 2
    assert kept["a.bias"].how == kept["c.weight"].how == kept["c.bias"].how == "frozen"
    assert "exp" in kept["c.weight"].why
    before = [model[name](x).detach() for name in "abc"]
    for p in model.parameters():
        nn.init.normal_(p)
    space.project()
    torch.testing.assert_close([model[name](x) for name in "abc"], before)


def test_a_parameter_that_is_an_input_is_frozen():
    model = nn.ParameterDict({"query": torch.randn(2, 4), "weight": torch.randn(3, 4)})
    space = NullSpace(model)
    with space.watch():
        F.linear(model["query"], model["weight"])
    assert {row.name: row.how for row in space.keep()} == {"query": "frozen", "weight": "projected"}


def test_what_the_data_never_reads_is_frozen_unless_it_is_named():
    model = nn.ModuleDict({"one": nn.Linear(4, 2), "two": nn.Linear(4, 2), "new": nn.Linear(4, 2)})
    space = NullSpace(model)
    with space.watch():
        model["one"](torch.ones(1, 4))
    kept = {row.name: (row.how, row.why) for row in space.keep(free=["new"])}
    assert kept["two.weight"] == kept["two.bias"] == ("frozen", "not seen")
    assert kept["new.weight"] == kept["new.bias"] == ("free", "")
    old = model["two"].weight.clone()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(3.0)
    space.project()
    assert torch.equal(model["two"].weight, old)
    assert bool((model["new"].weight == 3).all() & (model["new"].bias == 3).all())
    with space.watch():
        model["one"](torch.ones(1, 4))
    kept = {row.name: row.how for row in space.keep(free=["two"])}
    assert kept["two.weight"] == kept["new.weight"] == "free"
    model["later"] = nn.Linear(4, 2)
    nn.init.ones_(model["later"].weight)
    space.project()
    assert bool((model["later"].weight == 1).all())


def test_lost_leaves_small_directions_free_and_says_how_much():
    torch.manual_seed(0)
    sizes = torch.tensor([10.0, 5.0, 1.0, 0.1]).double()
    model, x = nn.Linear(4, 3, bias=False).double(), torch.diag(sizes)
    energy, space = sizes.square(), NullSpace(model)
    assert keep(NullSpace(model), x, lost=0.008)["weight"].kept == 3  # 1.01 of 126.01 are more
    row = keep(space, x, lost=0.01)["weight"]
    assert (row.kept, row.size) == (2, 4)
    assert row.lost == pytest.approx(float(energy[2:].sum() / energy.sum()))
    before = outputs(model, x)
    nn.init.normal_(model.weight)
    space.project()
    torch.testing.assert_close(model(x)[:2], before[:2])
    assert bool((model(x)[2:] != before[2:]).all())


def test_float32_keeps_rank_and_outputs_to_rounding():
    torch.manual_seed(0)
    model = MODELS["mamba"]()
    steps = OPTIMISERS["adam"](model.parameters())
    space = NullSpace(model)
    space.attach(steps)
    x, other = data(1).float(), data(2).float()
    kept = keep(space, x)
    assert kept["blocks.1.mixer.in_proj.weight"].kept == 12
    before = outputs(model, x)
    learn(model, steps, other)
    torch.testing.assert_close(outputs(model, x), before)


def test_watching_leaves_modes_and_removes_itself():
    model = MODELS["batch-norm"]().double().train()
    space = NullSpace(model)
    mean = model[2].running_mean.clone()
    keep(space, data(0))
    assert all(module.training for module in model.modules())
    assert torch.equal(model[2].running_mean, mean)
    steps = torch.optim.SGD(model.parameters(), 0.1)
    handle = space.attach(steps)
    handle.remove()
    learn(model, steps, data(0))
    assert not torch.equal(model[2].running_mean, mean)


def test_wrong_use_is_one_sentence():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    space = NullSpace(model)
    with pytest.raises(InputError, match="keep\\(\\) needs data"):
        space.keep()
    with (
        pytest.raises(InputError, match=r"'0.weight' has values that are not finite"),
        space.watch(),
    ):
        model(torch.full((1, 3), torch.nan))
    with space.watch():
        model(torch.ones(1, 3))
    for lost in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="lost must be a share"):
            space.keep(lost)
    with pytest.raises(InputError, match="no parameter or module 'head'"):
        space.keep(free=["head"])
    with pytest.raises(InputError, match=r"'1.weight' was read by the watched data"):
        space.keep(free=["1"])
    space.keep()
    model[1] = nn.Linear(3, 4)
    with pytest.raises(InputError, match=r"'1.weight' has shape \(4, 3\), and had \(2, 3\)"):
        space.project()
