"""A language model is a layer over tokens: pieces, steps, padding and packing give one answer."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves, tree_map

from longstate.models import LanguageModel, LanguageSpec

SIZES = {
    "mamba": {"d_state": 3},
    "falconmamba": {"d_state": 3, "dt_rank": 2},
    "mamba2": {"d_state": 3, "d_head": 4, "n_groups": 2},
    "mamba3": {"d_state": 4, "d_head": 4},
    "longhorn": {"d_state": 3},
    "s4": {"d_state": 4},
    "s4d": {"d_state": 4},
    "dss": {"d_state": 4},
    "s5": {"d_state": 4},
    "linoss": {"d_state": 4},
    "attention": {"n_heads": 2, "window": 5},
}
PATTERNS = [(name,) for name in SIZES] + [("mamba", "attention", "s4d"), ("mamba2", "linoss")]


def make_spec(*layers, **changes):
    options = {name: SIZES[name] for name in layers}
    return replace(LanguageSpec(11, 8, layers, options), **changes)


def make(*layers, **changes):
    torch.manual_seed(0)
    model = LanguageModel(make_spec(*layers, **changes)).double().eval()
    for p in model.parameters():  # away from ones, zeros, and an embedding that is nearly nothing
        nn.init.normal_(p, p.mean().item(), 0.3)
    return model


def draw(b=3, t=17):
    return torch.randint(11, (b, t), generator=torch.Generator().manual_seed(1))


close = partial(assert_close, check_stride=False)


@pytest.mark.parametrize("layers", PATTERNS, ids="-".join)
def test_pieces_and_steps_are_one_pass(layers):
    model, tokens = make(*layers), draw()
    logits, state = model(tokens)
    assert logits.shape == (3, 17, 11)
    for cuts in ([1], [5, 6, 13]):
        carried, outputs = None, []
        for piece in tokens.tensor_split(cuts, dim=1):
            y, carried = model(piece, carried)
            outputs.append(y)
        close((torch.cat(outputs, 1), carried), (logits, state))
    stepped, outputs = model.init_state(3), []
    for t in range(17):
        y, stepped = model.step(tokens[:, t], stepped)
        outputs.append(y)
    close((torch.stack(outputs, 1), stepped), (logits, state))
    close(model.prefill(tokens), (logits[:, -1], state))


@pytest.mark.parametrize("layers", PATTERNS, ids="-".join)
def test_padding_at_any_place_has_no_effect(layers):
    model, tokens = make(*layers), draw()
    place = torch.arange(17)
    mask = torch.stack([place >= 4, place < 12, (place < 3) | (place > 9)])
    hostile = torch.where(mask, tokens, -100)
    logits, state = model(hostile, mask=mask)
    assert not logits[~mask].any()
    last, prefilled = model.prefill(hostile, mask=mask)
    stepped, outputs = model.init_state(3), []
    for t in range(17):
        y, stepped = model.step(hostile[:, t], stepped, mask=mask[:, t])
        outputs.append(y)
    close((torch.stack(outputs, 1), stepped), (logits, state))
    close(prefilled, state)
    for row in range(3):
        alone, after = model(tokens[row : row + 1, mask[row]])
        close(logits[row, mask[row]], alone[0])
        close(last[row], alone[0, -1])
        close(tree_map(lambda s, r=row: s[r : r + 1], state), after)


@pytest.mark.parametrize("layers", PATTERNS, ids="-".join)
def test_packed_texts_are_separate(layers):
    model, tokens = make(*layers), draw(1)
    reset = torch.zeros(1, 17, dtype=torch.bool)
    reset[0, [0, 6]] = True
    _, left_over = model(draw(1, 5))
    logits, state = model(tokens, left_over, reset=reset)
    first, _ = model(tokens[:, :6])
    second, after = model(tokens[:, 6:])
    close((logits, state), (torch.cat([first, second], 1), after))
    stepped, outputs = left_over, []
    for t in range(17):
        y, stepped = model.step(tokens[:, t], stepped, reset=reset[:, t])
        outputs.append(y)
    close((torch.stack(outputs, 1), stepped), (logits, state))


def test_a_row_without_tokens_keeps_its_state():
    model, tokens = make("mamba", "s4d"), draw(2)
    _, first = model(draw(2, 5))
    mask = torch.ones(2, 17, dtype=torch.bool)
    mask[1] = False
    last, state = model.prefill(tokens, first, mask=mask)
    close(tree_map(lambda s: s[1], state), tree_map(lambda s: s[1], first))
    assert not last[1].any()
    assert last[0].any()


def by_the_equations(model, tokens):
    """One layer at a time, from the published definition of a block."""

    def norm(v, weight):
        return v / (v.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    x = model.embedding.weight[tokens]
    for block in model.blocks:
        x = x + block.mixer(norm(x, block.norm.weight))[0]
    return norm(x, model.norm.weight) @ model.embedding.weight.T


def test_forward_is_the_published_block():
    model, tokens = make("mamba", "mamba2"), draw()
    close(model(tokens)[0], by_the_equations(model, tokens))


def test_layers_without_a_gate_get_one():
    model, tokens = make("s4d"), draw()
    x, block = model.embedding(tokens), model.blocks[0]
    value, gate = block.gate(F.gelu(block.mixer(block.norm(x))[0])).chunk(2, -1)
    x = x + value * gate.sigmoid()
    close(model(tokens)[0], model.norm(x) @ model.embedding.weight.T)
    assert make("mamba").blocks[0].gate is None


def test_a_gate_of_any_form_on_any_layer():
    model, tokens = make("mamba", gate="glu"), draw()
    x, block = model.embedding(tokens), model.blocks[0]
    value, gate = block.gate(F.gelu(block.mixer(block.norm(x))[0])).chunk(2, -1)
    close(model(tokens)[0], model.norm(x + value * gate.sigmoid()) @ model.embedding.weight.T)
    assert make("s4d", gate="none").blocks[0].gate is None
    model = make("attention", gate="mlp", norm="layer")
    x, block = model.embedding(tokens), model.blocks[0]
    x = x + block.mixer(block.norm(x))[0]
    x = x + block.gate.out(F.gelu(block.gate.into(block.gate.norm(x))))
    close(model(tokens)[0], model.norm(x) @ model.embedding.weight.T)


def test_a_head_of_its_own():
    model, tokens = make("mamba", tie=False), draw()
    tied = make("mamba")
    assert "head.weight" not in tied.state_dict()
    tied.load_state_dict({k: v for k, v in model.state_dict().items() if k != "head.weight"})
    model.head.weight.data.copy_(-2 * tied.embedding.weight)
    close(model(tokens)[0], -2 * tied(tokens)[0])


def test_padding_rows_of_the_vocabulary_are_no_tokens():
    model = make("mamba", vocab_multiple=8)
    assert model.embedding.weight.shape == (16, 8)
    assert model(draw())[0].shape == (3, 17, 11)
    with pytest.raises(ValueError, match="below 11"):
        model(torch.tensor([[3, 11]]))


def test_biases_and_norms_inside_layers_follow_the_spec():
    keys = set(make("mamba2", bias=True, conv_bias=False).state_dict())
    assert {"blocks.0.mixer.in_proj.bias", "blocks.0.mixer.out_proj.bias"} <= keys
    assert "blocks.0.mixer.conv1d.bias" not in keys
    keys = set(make("mamba2").state_dict())
    assert "blocks.0.mixer.conv1d.bias" in keys
    assert not {"blocks.0.mixer.in_proj.bias", "blocks.0.mixer.out_proj.bias"} & keys
    model, tokens = make("mamba2", norm_eps=0.3), draw()
    assert model.blocks[0].mixer.norm.eps == 0.3
    assert not torch.allclose(model(tokens)[0], make("mamba2")(tokens)[0])


def test_layer_norm():
    model, tokens = make("mamba", norm="layer"), draw()
    assert isinstance(model.norm, nn.LayerNorm)
    x = model.embedding(tokens)
    x = x + model.blocks[0].mixer(F.layer_norm(x, (8,), *model.blocks[0].norm.parameters()))[0]
    x = F.layer_norm(x, (8,), *model.norm.parameters())
    close(model(tokens)[0], x @ model.embedding.weight.T)


@pytest.mark.parametrize("layers", [("mamba", "s4d"), ("mamba2",)], ids="-".join)
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_narrow_weights_have_wide_states_and_logits(layers, norm):
    tokens = draw()
    wide = make(*layers, norm=norm)
    expected, _ = wide(tokens)
    model = wide.bfloat16()
    logits, state = model(tokens)
    stepped, _ = model.step(tokens[:, 0], model.init_state(3))
    assert logits.dtype == stepped.dtype == torch.float32
    assert all(torch.finfo(s.dtype).bits >= 32 for s in tree_leaves(state))
    assert (logits - expected).abs().max() < 0.1 * expected.abs().max()


def test_the_residual_keeps_small_terms_in_float32():
    """With a large embedding and small blocks, a bfloat16 residual swallows what blocks add."""
    tokens, spec = draw(), make_spec(*["mamba"] * 4)
    torch.manual_seed(0)
    models = [LanguageModel(replace(spec, residual_in_float32=wide)) for wide in (True, False)]
    models[1].load_state_dict(models[0].state_dict())
    nn.init.normal_(models[0].embedding.weight, std=10)
    models[1].embedding.weight.data.copy_(models[0].embedding.weight)
    exact, _ = models[0].double()(tokens)
    errors = [(m.bfloat16()(tokens)[0] - exact).abs().mean() for m in models]
    assert errors[0] < errors[1]


def test_initial_values():
    torch.manual_seed(0)
    n = 16
    spec = LanguageSpec(1000, 64, ("mamba",) * n, {"mamba": {"d_state": 2}})
    model = LanguageModel(spec)
    weight = model.embedding.weight  # the standard error of the deviation of n normal numbers
    assert abs(weight.std().item() / 0.02 - 1) < 3 * (2 * weight.numel()) ** -0.5
    bound = 1 / (128 * n) ** 0.5  # Kaiming uniform over 128 inputs, then over sqrt(n)
    largest = max(b.mixer.out_proj.weight.abs().max().item() for b in model.blocks)
    assert 0.99 * bound < largest <= bound
    gate = LanguageModel(LanguageSpec(9, 64, ("s4d",) * n)).blocks[0].gate
    assert 0.99 / (64 * n) ** 0.5 < gate.weight.abs().max().item() <= 1 / (64 * n) ** 0.5


def test_maps_that_end_in_the_residual_begin_smaller_the_deeper_the_model():
    torch.manual_seed(0)
    n, options = 8, {"attention": {"n_heads": 2}}
    spec = LanguageSpec(9, 64, ("attention",) * n, options, gate="mlp")
    for block in LanguageModel(spec).blocks:
        for weight in (block.mixer.out_proj.weight, block.gate.out.weight):
            bound = 1 / (weight.shape[1] * 2 * n) ** 0.5  # two maps in each block
            assert 0.9 * bound < weight.abs().max().item() <= bound


def test_gradients_reach_every_parameter_through_the_state():
    model, tokens = make("mamba", "s4d", "mamba2"), draw()
    whole, _ = model(tokens)
    weight = torch.randn_like(whole)
    expected = torch.autograd.grad((whole * weight).sum(), list(model.parameters()))
    first, state = model(tokens[:, :6])
    second, _ = model(tokens[:, 6:], state)
    pieces = (torch.cat([first, second], 1) * weight).sum()
    close(torch.autograd.grad(pieces, list(model.parameters())), expected)


def test_wrong_calls_are_refused():
    model, tokens = make("mamba", "s4d"), draw()
    state = model.init_state(3)
    flag = torch.ones(3, 17, dtype=torch.bool)
    wrong = {
        r"tokens of shape \(batch, time\)": lambda: model(tokens[0]),
        r"tokens of shape \(batch,\)": lambda: model.step(tokens, state),
        "tokens of type int64": lambda: model(tokens.float()),
        "no tokens": lambda: model(tokens[:, :0]),
        "below 11": lambda: model(tokens + 11),
        "at least 0": lambda: model(tokens - 11),
        "got 11$": lambda: model.step(tokens[:, 0] * 0 + 11, state),
        "mask to be a bool tensor": lambda: model(tokens, mask=flag[:, :-1]),
        "reset to be a bool tensor": lambda: model.prefill(tokens, reset=flag.long()),
        "2 blocks; got a state for 1 block": lambda: model(tokens, state[:1]),
        "a list of 2 states, one for each block; got 3": lambda: model(tokens, 3),
        r"state\['taps'\] to be .* for a batch of 3": lambda: model(tokens, model.init_state(2)),
        "state to be a dict of taps, ssm": lambda: model.step(tokens[:, 0], state[::-1]),
    }
    for message, call in wrong.items():
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("layers", [("mamba", "s4d"), ("mamba2", "attention")])
def test_no_texts_have_no_logits(layers):
    model, mask = make(*layers), torch.ones(0, 5, dtype=torch.bool)
    tokens = torch.zeros(0, 5, dtype=torch.long)
    logits, state = model(tokens)
    assert logits.shape == (0, 5, 11)
    assert all(len(s) == 0 for s in tree_leaves(state))
    assert model.prefill(tokens, mask=mask)[0].shape == (0, 11)
    assert model.step(tokens[:, 0], state)[0].shape == (0, 11)


def test_it_compiles():
    torch.compiler.reset()  # what other tests compiled counts towards a limit
    model, tokens = make("mamba", "mamba2"), draw()
    mask = torch.arange(17).expand(3, -1) > 2
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close(compiled(tokens), model(tokens))
    close(compiled(tokens, mask=mask), model(tokens, mask=mask))
