"""A watch names the layer and the token, and does not change the model."""

import json

import pytest
import torch
from torch import nn

from longstate.layers import S4D, Longhorn, Mamba, Mamba2
from longstate.memory import watch
from longstate.models import LanguageModel, LanguageSpec


def make(names=("mamba", "s4d", "longhorn")):
    torch.manual_seed(0)
    return LanguageModel(LanguageSpec(vocab_size=20, d_model=8, layers=names))


def hooks(model):
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in model.modules()
    ) + sum(len(p._backward_hooks or ()) for p in model.parameters())


def tokens(b=2, t=24):
    return torch.randint(0, 20, (b, t), generator=torch.Generator().manual_seed(1))


def test_reports_nothing_if_all_is_finite():
    model = make()
    with watch(model) as seen:
        model(tokens())[0].sum().backward()
        model(tokens())
    result = seen.result()
    assert result.finite
    assert result.calls == 2
    assert "finite in 2 calls" in result.sentence
    assert hooks(model) == 0
    assert {v.layer for v in result.layers} == {f"blocks.{i}.mixer" for i in range(3)}
    facts = json.loads(result.to_json())
    assert facts["finite"] is True
    assert facts["layers"][0]["layer"] == "blocks.0.mixer"


@pytest.mark.parametrize("token", [0, 7, 23])
def test_names_the_layer_and_the_token(token):
    """A token whose embedding overflows in the first norm's layer, and only there."""
    model = make()
    text = tokens()
    text[text == 19] = 0
    text[1, token] = 19
    bad = nn.Embedding.from_pretrained(model.embedding.weight.clone())
    bad.weight[19] = float("inf")
    model.embedding = bad
    with watch(model) as seen:
        model(text)
    trouble = seen.result().forward
    assert (trouble.layer, trouble.row, trouble.token) == ("embedding", 1, token)
    assert "its parameter weight is not finite" in trouble.where


def test_an_overflow_inside_a_layer_names_the_layer():
    """Rates that overflow: the scan produces NaN and passes it to out_proj."""
    model = make(("mamba", "mamba"))
    with torch.no_grad():
        model.blocks[1].mixer.D.fill_(3e38)
        model.blocks[1].mixer.D[0] = float("inf")
    with watch(model) as seen:
        model(tokens())
    trouble = seen.result().forward
    assert (trouble.layer, trouble.type, trouble.token) == ("blocks.1.mixer", "Mamba", 0)
    assert "passed to blocks.1.mixer.out_proj" in trouble.where
    assert "parameter D" in trouble.where


def test_nonfinite_input_is_reported_as_such():
    layer = Mamba(8)
    u = torch.randn(2, 9, 8)
    u[1, 4] = float("nan")
    with watch(layer) as seen:
        layer(u)
    trouble = seen.result().forward
    assert (trouble.value, trouble.row, trouble.token) == ("NaN", 1, 4)
    assert "in its input" in trouble.where


def test_masked_samples_may_be_nonfinite():
    layer = Mamba(8)
    u = torch.randn(2, 20, 8)
    u[1, :4] = float("nan")
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[1, :4] = False
    with watch(layer) as seen:
        layer(u, mask=mask)
    result = seen.result()
    assert result.finite
    alone = Mamba(8)
    alone.load_state_dict(layer.state_dict())
    with watch(alone) as seen:
        alone(u[:1])
    assert seen.result().layers[0].decay[0] >= result.layers[0].decay[0]


class Root(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, u):
        return self.second((self.first(u) * 0).abs().sqrt())  # its slope at 0 is infinite


def test_gradients_are_watched():
    torch.manual_seed(0)
    model = Root()
    with watch(model) as seen:
        model(torch.randn(2, 5, 3)).sum().backward()
    result = seen.result()
    assert result.forward is None
    assert not result.finite
    assert result.gradient.layer == "first"
    assert result.gradient.value == "NaN"
    assert "second" in result.gradient.where


def test_hooks_are_removed_also_after_an_error():
    model = make()
    with pytest.raises(ValueError, match="vocabulary"), watch(model) as seen:
        model(tokens() + 100)
    assert hooks(model) == 0
    assert seen.result().calls == 1
    with watch(model) as seen, pytest.raises(ValueError, match="expects u"):
        model.blocks[0].mixer(torch.randn(1, 2, 3))
    assert hooks(model) == 0


def test_outputs_and_gradients_are_those_of_the_model_alone():
    model = make()
    y, _ = model(tokens())
    (alone,) = torch.autograd.grad(y.square().sum(), model.embedding.weight)
    with watch(model):
        z, _ = model(tokens())
        (watched,) = torch.autograd.grad(z.square().sum(), model.embedding.weight)
    assert torch.equal(y, z)
    assert torch.equal(alone, watched)


def test_ranges_are_those_of_the_trace():
    torch.manual_seed(0)
    layer = Mamba2(8, d_state=4, d_head=4).double()
    u = torch.randn(3, 20, 8).double()
    with watch(layer) as seen:
        layer(u[:, :10])
        layer(u[:, 10:])
    (found,) = seen.result().layers
    with torch.no_grad():
        trace = torch.cat([layer.trace(u[:, :10]).decay, layer.trace(u[:, 10:]).decay], 1)
    assert found.decay[0] <= float(trace.min()) + 1e-12
    assert found.decay[1] >= float(trace.max()) - 1e-12
    assert found.saturated() == ""


@pytest.mark.parametrize(("shift", "said"), [(-30.0, "never forgets"), (9.0, "never remembers")])
def test_saturated_states_are_named(shift, said):
    torch.manual_seed(0)
    layer = Mamba(8)
    with torch.no_grad():
        layer.dt_proj.bias.fill_(shift)
    with watch(layer) as seen:
        layer(torch.randn(2, 32, 8))
    result = seen.result()
    assert said in result.layers[0].saturated()
    assert said in result.sentence


def test_a_state_that_grows_is_named():
    """A step of nothing but input: a sum without end."""
    mamba = Mamba(4)
    with torch.no_grad():
        mamba.A_log.fill_(-40.0)
        mamba.dt_proj.weight.zero_()
        mamba.dt_proj.bias.fill_(0.5)
    u = torch.ones(1, 400, 4)
    with watch(mamba) as seen:
        mamba(u)
    assert "grows" in seen.result().layers[0].saturated()


@pytest.mark.parametrize("update", ["diagonal", "exact"])
def test_a_regression_is_not_saturated(update):
    torch.manual_seed(0)
    layer = Longhorn(4, d_state=2, variant=update)
    with watch(layer) as seen:
        layer(torch.randn(1, 400, 4))
    assert seen.result().layers[0].saturated() == ""


def test_starts_from_a_state_and_traces_only_on_request():
    layer = Mamba(8)
    u = torch.randn(2, 20, 8)
    _, state = layer(u)
    with watch(layer) as seen:
        layer(u, state)
    assert seen.result().layers[0].size > 0
    with watch(layer, ranges=False) as seen:
        layer(u, state)
    assert seen.result().layers == ()


def test_any_module_can_be_watched():
    model = nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 2))
    with watch(model) as seen:
        model(torch.randn(5, 2, 3))
    assert seen.result().finite
    with watch(S4D(4)) as seen:
        pass
    assert seen.result().layers[0].step is None
