"""Whole models: allocation, descriptions, saving, generating, converting."""

import pytest
import torch

from longstate import LanguageModel, TextModel, generate, load, reduce
from longstate.compress._allocate import spend
from longstate.compress._plan import Plan
from longstate.errors import InputError
from longstate.interop import load_language_model, save_language_model
from longstate.layers import S4D, Mamba
from longstate.memory import certify
from longstate.models import LanguageSpec, Stack, prepare_for_decoding
from longstate.stream import load_state, save_state
from tests.compress.helpers import language, tokens

MIXED = ("mamba", "mamba2", "s4d", "longhorn")


@pytest.fixture(scope="module")
def mixed():
    model, data = language(*MIXED), tokens()
    return model, data, *reduce(model, data, keep=0.5)


def test_the_budget_is_met(mixed):
    model, _, small, report = mixed
    sizes = [bytes_of(m.init_state(1)) for m in (model, small)]
    assert [report.bytes_before, report.bytes_after] == sizes
    shrinks = sum(row.bytes_before for row in report.layers) - fixed(model)
    assert sizes[1] - fixed(model) <= 0.5 * shrinks


def bytes_of(state):
    return sum(v.numel() * v.element_size() for v in torch.utils._pytree.tree_leaves(state))


def fixed(model):
    """Bytes that do not shrink: the taps of convolutions."""
    states = [s for s in model.init_state(1) if isinstance(s, dict)]
    return sum(s["taps"].numel() * s["taps"].element_size() for s in states)


def test_a_budget_in_bytes_is_met(mixed):
    model, data, _, _ = mixed
    report = reduce(model, data, budget=3000).report
    assert report.bytes_after <= 3000


def test_the_small_model_is_saved_and_generates(mixed, tmp_path):
    _, data, small, _ = mixed
    small.save(tmp_path / "small.safetensors")
    again = load(tmp_path / "small.safetensors")
    assert again.spec == small.spec
    torch.testing.assert_close(again(data)[0], small(data)[0], rtol=0, atol=0)
    assert generate(again, [[1, 2, 3]], max_tokens=6) == generate(small, [[1, 2, 3]], max_tokens=6)
    _, state = small(data)
    save_state(tmp_path / "state.safetensors", small, state)
    torch.testing.assert_close(load_state(tmp_path / "state.safetensors", again), state)


def test_it_streams_certifies_and_decodes(mixed):
    _, data, small, _ = mixed
    whole = small(data)[0]
    state, steps = small.init_state(len(data)), []
    for t in range(data.shape[1]):
        y, state = small.step(data[:, t], state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), whole)
    assert certify(small, data).passed
    fast = prepare_for_decoding(small)
    torch.testing.assert_close(fast(data)[0], whole)
    with pytest.raises(InputError, match="before prepare_for_decoding"):
        reduce(prepare_for_decoding(language("mamba")), data, keep=0.5)


def test_it_is_reduced_again(mixed):
    _, data, small, report = mixed
    again = reduce(small, data, keep=0.5).report
    assert again.bytes_before == report.bytes_after
    assert again.bytes_after < again.bytes_before


def test_the_given_model_is_not_changed(mixed):
    model, data, _, _ = mixed
    torch.testing.assert_close(model(data)[0], language(*MIXED)(data)[0], rtol=0, atol=0)
    assert model.spec == language(*MIXED).spec


def test_sizes_of_blocks_are_in_the_description():
    model = language("mamba", "mamba", "s4d")
    same = reduce(model, tokens(), keep=0.5, allocation="uniform").model
    assert same.spec.options == {"mamba": {"d_state": 3}, "s4d": {"d_state": 4}}
    spec = LanguageSpec(32, 8, ("mamba", "mamba"), {"mamba": {"d_state": 6}, "1": {"d_state": 2}})
    assert [b.mixer.d_state for b in LanguageModel(spec).each_block()] == [6, 2]
    assert LanguageSpec.from_json(spec.to_json()) == spec
    with pytest.raises(InputError, match="options are for '2'"):
        LanguageSpec(32, 8, ("mamba", "mamba"), {"2": {"d_state": 2}})
    with pytest.raises(InputError, match="'mamba' has no option"):
        LanguageSpec(32, 8, ("mamba", "mamba"), {"1": {"d_stat": 2}})


def test_a_layer_with_more_effect_on_the_output_keeps_more():
    """One of two equal layers is all but switched off behind it."""
    model = language("mamba", "mamba", seed=4)
    with torch.no_grad():
        model.blocks[0].mixer.out_proj.weight *= 1e-4
        model.blocks[1].mixer.out_proj.weight *= 30
    small = reduce(model, tokens(), keep=0.6).model
    first, second = (b.mixer.d_state for b in small.each_block())
    assert first < second


def test_the_units_with_the_least_error_per_byte_are_removed_first():
    class Fake(Plan):
        def __init__(self, tails, unit):
            self.tails, self.full, self.unit = tails, len(tails) - 1, unit

        def tail(self, r):
            return self.tails[r]

    cheap, dear = Fake([1, 0.02, 0.01, 0], 10), Fake([1, 0.5, 0.2, 0], 10)
    assert spend([cheap, dear], [1, 1], 40) == [1, 3]
    assert spend([cheap, dear], [100, 1], 40) == [3, 1]
    assert spend([cheap, dear], [1, 1], 0) == [1, 1]


def test_a_uniformly_reduced_model_can_be_converted(tmp_path):
    model = language("mamba", "mamba", d_model=16)
    small = reduce(model, tokens(), keep=0.5, allocation="uniform").model
    for dialect in ("transformers", "mamba-ssm"):
        save_language_model(small, tmp_path / dialect, dialect)
        again = load_language_model(tmp_path / dialect)
        torch.testing.assert_close(again(tokens())[0], small(tokens())[0], rtol=0, atol=0)
        checkpoint = reduce(again, tokens(), keep=0.7).model
        assert sum(b.mixer.d_state for b in checkpoint.each_block()) == 4
    odd = LanguageModel(
        LanguageSpec(32, 16, ("mamba", "mamba"), {"mamba": {"d_state": 6}, "1": {"d_state": 2}})
    )
    with pytest.raises(InputError, match="no models whose layers differ"):
        save_language_model(odd, tmp_path / "odd", "transformers")
    turned = reduce(language("mamba2"), tokens(), keep=0.5).model
    with pytest.raises(InputError, match="no layers with a projected state"):
        save_language_model(turned, tmp_path / "turned", "mamba-ssm")


def test_layers_that_cannot_be_reduced_are_left():
    model = language("attention", "s4d")
    report = reduce(model, tokens(), keep=0.5).report
    assert [row.type for row in report.layers] == ["S4D"]
    with pytest.raises(InputError, match="no layer whose state"):
        reduce(language("attention"), tokens(), keep=0.5)


def test_a_stack_can_be_reduced():
    torch.manual_seed(0)
    stack = Stack([Mamba(8, d_state=4), S4D(8, d_state=8)])
    u = torch.randn(2, 30, 8)
    small, report = reduce(stack, u, keep=0.5)
    assert len(report.layers) == 2
    assert report.changed is not None
    y, z = (m.eval()(u)[0].double() for m in (stack, small))
    assert report.changed == pytest.approx(float(((y - z).norm() / y.norm()).detach()), rel=1e-4)


def test_the_report_is_a_table_and_json(mixed):
    report = mixed[3]
    text = str(report)
    assert "The state of one sequence goes from" in report.sentence
    assert all(row.layer in text for row in report.layers)
    assert report.to_dict()["layers"][0]["layer"] == "blocks.0.mixer"
    assert "nats" in report.sentence
    report.to_json()


def test_reducing_a_text_model_gives_a_text_model(tmp_path):
    model = TextModel.of(
        LanguageModel(LanguageSpec(256, 8, ("mamba2", "s4d"), {"mamba2": {"d_head": 4}}))
    )
    data = tokens(vocabulary=256)
    small = reduce(model, data, keep=0.25).model
    assert isinstance(small, TextModel)
    small.save(tmp_path / "model.safetensors")
    again = load(tmp_path)
    torch.testing.assert_close(again.model(data)[0], small.model(data)[0], rtol=0, atol=0)
    assert again.generate("ab", max_tokens=4) == small.generate("ab", max_tokens=4)
