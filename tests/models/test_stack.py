from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.layers import S4, S4D, S5, Attention, Longhorn, Mamba, Mamba2
from longstate.models import (
    Block,
    LanguageModel,
    LanguageSpec,
    Stack,
    generate,
    layer_class,
    repeat,
)
from longstate.testing import check_layer


def stack(layer, layers=2, **options):
    return Stack([layer(3, d_state=4) for _ in range(layers)], **options)


def hybrid(window, **options):
    pattern = (
        partial(Mamba, d_state=3),
        partial(S4D, d_state=4),
        partial(Attention, n_heads=2, window=window),
    )
    return Stack(repeat(pattern, 4, 4), **options)


def test_a_stack_of_layers_is_a_layer():
    check_layer(partial(stack, S4D), time=15)


def test_a_stack_refuses_what_its_layers_refuse():
    check_layer(partial(stack, S4), takes_dt=False, time=15)


@pytest.mark.parametrize("window", [5, None])
@pytest.mark.parametrize(("norm", "gate"), [("rms", "auto"), ("layer", "mlp")])
def test_a_hybrid_is_a_layer(window, norm, gate):
    check_layer(partial(hybrid, window, norm=norm, gate=gate), takes_dt=False, time=15)


def test_a_pattern_repeats():
    names = [type(block.mixer).__name__ for block in hybrid(4).blocks]
    assert names == ["Mamba", "S4D", "Attention", "Mamba"]
    assert [hybrid(w).grows for w in (4, None)] == [False, True]
    with pytest.raises(InputError, match="a pattern and at least 1 layer; got 0 kinds"):
        repeat([], 4, 2)
    with pytest.raises(InputError, match="n_layers=0"):
        repeat([S4D], 4, 0)


def test_layers_with_a_projection_of_their_own_get_no_gate():
    gates = [Block(make(4)).gate for make in (Mamba, partial(Mamba2, d_head=4), Longhorn, S4D, S5)]
    assert gates[:3] == [None] * 3
    assert all(isinstance(gate, nn.Linear) for gate in gates[3:])
    assert isinstance(Block(Mamba(4), gate="glu").gate, nn.Linear)
    assert Block(S4D(4), gate="none").gate is None


def test_blocks_are_their_equations():
    torch.manual_seed(0)
    u = torch.randn(2, 7, 4, dtype=torch.float64)
    for norm in ("layer", "rms"):
        make = partial(Block, S4D(4, d_state=4).double(), norm=norm)
        plain, glu, mlp = (make(gate=gate).double() for gate in ("none", "glu", "mlp"))
        mixed = plain.mixer(plain.norm(u))[0]
        assert_close(plain(u)[0], u + mixed)
        value, gate = glu.gate(F.gelu(mixed)).chunk(2, dim=-1)
        assert_close(glu(u)[0], u + value * gate.sigmoid())
        x = u + mixed
        inner = F.gelu(mlp.gate.into(mlp.gate.norm(x)))
        assert_close(mlp(u)[0], x + mlp.gate.out(inner))


@pytest.mark.parametrize("gate", ["none", "glu", "mlp"])
def test_dropout_only_in_training(gate):
    torch.manual_seed(0)
    stack = Stack([S4D(4, d_state=4)], dropout=0.5, gate=gate)
    u = torch.randn(2, 9, 4)
    assert not torch.equal(stack(u)[0], stack(u)[0])
    stack.eval()
    assert torch.equal(stack(u)[0], stack(u)[0])


def test_dropout_applies_only_to_what_a_block_adds():
    torch.manual_seed(0)
    u = torch.randn(1, 400, 4)
    for gate, most in (("none", 1), ("glu", 1), ("mlp", 2)):
        block = Block(S4D(4, d_state=4), dropout=0.5, gate=gate)
        kept = (block(u)[0] != u).double().mean().item()
        expected, n = 1 - 0.5**most, u.numel()
        assert abs(kept - expected) < 3 * (expected * (1 - expected) / n) ** 0.5
        assert torch.equal(Block(block.mixer, dropout=1.0, gate=gate)(u)[0], u)


def test_wrong_arguments_are_named():
    with pytest.raises(InputError, match=r"one d_model, at least one; got \[3, 4\]"):
        Stack([S4D(3), S4D(4)])
    with pytest.raises(InputError, match="at least one; got none"):
        Stack([])
    with pytest.raises(InputError, match="gate must be"):
        Stack([S4D(4)], gate="swiglu")
    with pytest.raises(InputError, match="norm must be"):
        Stack([S4D(4)], norm="batch")
    two = stack(S4D).float()
    with pytest.raises(ValueError, match="Stack expects state to be a list of 2 for a batch of 1"):
        two(torch.zeros(1, 2, 3), two.init_state(1)[:1])
    bad = [two.init_state(1)[0], two.init_state(1)[1].to(torch.complex128)]
    with pytest.raises(ValueError, match=r"expects state\[1\] to be complex64 \(1, 3, 2\)"):
        two(torch.zeros(1, 2, 3), bad)


def test_text_from_a_hybrid_whose_state_grows():
    """Each row as if alone, although prompts give states of different lengths."""
    torch.manual_seed(0)
    options = {"mamba": {"d_state": 3}, "attention": {"n_heads": 2}}
    model = LanguageModel(LanguageSpec(11, 8, ("mamba", "attention"), options)).eval()
    nn.init.normal_(model.embedding.weight)
    for linear in (model.blocks[1].mixer.in_proj, model.blocks[1].mixer.out_proj):
        nn.init.normal_(linear.weight)  # so large that attention decides what is drawn
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
    together = generate(model, prompts, max_tokens=20, temperature=1.0, seed=[1, 2, 3])
    alone = [
        generate(model, [prompt], max_tokens=20, temperature=1.0, seed=[seed])[0]
        for seed, prompt in enumerate(prompts, start=1)
    ]
    assert together == alone


def test_layers_by_name():
    assert layer_class("s4d") is S4D
    assert layer_class("S4") is S4
    with pytest.raises(InputError, match=r"no layer 's4x'; did you mean '.*'\?"):
        layer_class("s4x")
    with pytest.raises(InputError, match="no layer 'layer'"):
        layer_class("layer")
