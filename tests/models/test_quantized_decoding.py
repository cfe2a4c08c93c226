"""States in few bits while decoding: the same integers as `quantize_state`, in less memory."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from longstate import TextModel
from longstate.compress import quantize_state
from longstate.errors import InputError
from longstate.layers import FalconMamba, Longhorn, Mamba, Mamba2, Mamba3
from longstate.models import LanguageModel, LanguageSpec, generate, prepare_for_decoding
from longstate.models._decoding._quantized import QuantizedLayer
from longstate.ops.quantized_step import ROUNDINGS, Digits

LAYERS = {
    "mamba": lambda: Mamba(6, d_state=5),
    "mamba with limits": lambda: Mamba(6, d_state=5, dt_limit=(0.01, 0.1)),
    "mamba2": lambda: Mamba2(8, d_state=6, d_head=4, n_groups=2),
    "mamba3": lambda: Mamba3(8, d_state=6, d_head=4),
    "longhorn": lambda: Longhorn(6, d_state=3),
    "falconmamba": lambda: FalconMamba(6, d_state=4),
}


def made(name):
    torch.manual_seed(3)
    return LAYERS[name]().double().eval().requires_grad_(False)


def language(*layers):
    torch.manual_seed(0)
    sizes = {"mamba2": {"d_head": 8, "d_state": 6}}
    options = {name: sizes[name] for name in layers if name in sizes}
    return LanguageModel(LanguageSpec(256, 16, layers, options=options)).eval()


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_the_integers_are_those_of_quantize_state(name, bits, rounding):
    layer = made(name)
    one = QuantizedLayer(layer, Digits(bits, rounding))
    other = quantize_state(layer, bits=bits, rounding=rounding, scale="row")
    u = torch.randn(3, 20, layer.d_model).double()
    outputs, states = [], []
    for quantized in (one, other):
        torch.manual_seed(9)
        state, ys = quantized.init_state(3), []
        for t in range(20):
            y, state = quantized.step(u[:, t], state)
            ys.append(y)
        outputs.append(torch.stack(ys))
        states.append(state)
    torch.testing.assert_close(*outputs)
    found, wanted = one._exact(states[0])["ssm"], other._whole(states[1])["ssm"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_options_of_a_step(name):
    """dt in the kernel and masks around it are those of `quantize_state`."""
    layer = made(name)
    one = QuantizedLayer(layer, Digits(8))
    other = quantize_state(layer, bits=8, scale="row")
    u, dt = torch.randn(3, 12, layer.d_model).double(), torch.rand(3, 12).double()
    mask, reset = torch.rand(3, 12) < 0.7, torch.rand(3, 12) < 0.2
    for kinds in ({"dt": dt}, {"mask": mask}, {"dt": dt, "mask": mask, "reset": reset}):
        a, b = one.init_state(3), other.init_state(3)
        for t in range(12):
            now = {k: v[:, t] for k, v in kinds.items()}
            y, a = one.step(u[:, t], a, **now)
            z, b = other.step(u[:, t], b, **now)
            torch.testing.assert_close(y, z)
        torch.testing.assert_close(one._exact(a)["ssm"], b["ssm"], rtol=0, atol=0)
    a = one.init_state(3)
    torch.testing.assert_close(
        one.step(u[:, 0], a, rate=2.0)[0],
        one.step(u[:, 0], a, dt=torch.full((3,), 2.0).double())[0],
    )


def test_a_model_in_few_bits():
    model = language("mamba", "s4d", "mamba2")
    tokens = torch.randint(0, 256, (3, 30))
    with torch.no_grad():
        exact = model(tokens)[0]
        errors = {}
        for bits in (8, 4):
            fast = prepare_for_decoding(model, state_bits=bits)
            state, outputs = fast.init_state(3), []
            for t in range(30):
                y, state = fast.step(tokens[:, t], state)
                outputs.append(y)
            errors[bits] = float((torch.stack(outputs, 1) - exact).norm() / exact.norm())
    assert errors[8] < errors[4] < 0.1
    assert errors[4] > 1e-5
    plain = prepare_for_decoding(model).init_state(3)
    few = prepare_for_decoding(model, state_bits=8).init_state(3)
    assert few[0]["numbers"].nbytes * 4 == plain[0]["ssm"].nbytes
    assert torch.equal(few[1], plain[1])
    assert [v.dtype for v in tree_leaves(few[2])] == [torch.float32, torch.int8, torch.int8]


def test_text_is_generated_and_a_prompt_is_read():
    model = language("mamba", "mamba2")
    fast = prepare_for_decoding(model, state_bits=8, state_rounding="feedback")
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    done = generate(fast, prompts, max_tokens=6)
    assert [len(g.tokens) for g in done] == [6, 6]
    text = TextModel.of(model)
    options = {"max_tokens": 5, "temperature": 0.0}
    assert text.generate("ab", state_bits=8, **options) is not None
    assert text.generate("ab", **options) == text.generate("ab", state_bits=None, **options)


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_the_kernel_is_used_and_gradients_are_not_lost(name, monkeypatch):
    import longstate.models._decoding._quantized as here

    layer = made(name)
    quantized = QuantizedLayer(layer, Digits(8))
    called = []
    form = here._STEPS[type(layer)]
    monkeypatch.setitem(here._STEPS, type(layer), lambda *a: called.append(1) or form(*a))
    u = torch.randn(2, layer.d_model).double()
    quantized.step(u, quantized.init_state(2))
    assert called
    called.clear()
    v = u.clone().requires_grad_(True)
    y, _ = quantized.step(v, quantized.init_state(2))
    y.sum().backward()
    assert v.grad is not None
    assert not called


def test_what_has_no_such_state_is_said():
    for call, sentence in (
        (lambda: prepare_for_decoding(language("s4d"), state_bits=8), "none"),
        (lambda: prepare_for_decoding(language("mamba"), state_bits=6), "must be 8 or 4; got 6"),
        (
            lambda: prepare_for_decoding(language("mamba"), state_bits=8, state_rounding="up"),
            "rounding must be one of",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
    with pytest.raises(InputError, match="must be 8 or 4; got 5"):
        TextModel.of(language("mamba")).generate("a", state_bits=5)
    one, other = (QuantizedLayer(made("mamba"), Digits(bits)) for bits in (8, 4))
    with pytest.raises(ValueError, match="numbers"):
        one.step(torch.randn(2, 6).double(), other.init_state(2))
