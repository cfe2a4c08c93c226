"""`generate` of transformers on longstate's models: batches, beams, sampling, and errors."""

import pytest
import torch

from longstate.errors import InputError
from longstate.models import generate, prepare_for_decoding
from tests.interop.samples import alone, draw, make, padded

pytest.importorskip("transformers", reason="needs the extra 'hf'")
from longstate.interop import LongstateForCausalLM, LongstateModel

SIDES = pytest.mark.parametrize("side", ["left", "right"])
wrap = LongstateForCausalLM.from_longstate


@pytest.fixture
def model():
    return wrap(make("mamba"))


@pytest.mark.parametrize("ends", [(), (2,), (2, 3)])
def test_generation_ends_where_the_spec_says(ends):
    model = wrap(make("mamba", eos_tokens=ends))
    assert model.generation_config.eos_token_id == {0: None, 1: 2, 2: [2, 3]}[len(ends)]
    assert model.config.spec() == model.to_longstate().spec


@SIDES
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_generation(side, use_cache):
    model = wrap(make("mamba", eos_tokens=()))
    tokens, mask = padded(side)
    new = model.generate(
        tokens, attention_mask=mask, max_new_tokens=12, do_sample=False, use_cache=use_cache
    )[:, 9:]
    assert new.tolist() == [
        row.tokens for row in generate(model.to_longstate(), alone(tokens, mask), max_tokens=12)
    ]


def test_a_prompt_is_read_once_and_then_token_by_token(model, monkeypatch):
    calls = []
    for name in ("_run", "_step"):
        inner = getattr(LongstateModel, name)

        def counted(self, x, *rest, inner=inner, name=name, **options):
            calls.append((name, tuple(x.shape)))
            return inner(self, x, *rest, **options)

        monkeypatch.setattr(LongstateModel, name, counted)
    model.generate(draw(), max_new_tokens=4, do_sample=False)
    assert calls == [("_run", (2, 37, 24)), *[("_step", (2, 24))] * 3]


def test_a_row_that_has_ended_is_padded():
    model = wrap(make("mamba", eos_tokens=(), pad_token=49))
    tokens, mask = padded("left")
    free = generate(model.to_longstate(), alone(tokens, mask), max_tokens=12)
    end = free[0].tokens[3]
    ended = generate(model.to_longstate(), alone(tokens, mask), max_tokens=12, stop_tokens=[end])
    new = model.generate(
        tokens, attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=end
    )[:, 9:].tolist()
    for row, expected in zip(new, ended, strict=True):
        assert row[: len(expected.tokens)] == expected.tokens
        assert set(row[len(expected.tokens) :]) <= {end, 49}
    assert new[0][-1] == 49


@SIDES
def test_beam_search(side):
    """Every beam continues from its own state: same as without states, and as each row alone."""
    model = wrap(make("mamba", eos_tokens=()))
    tokens, mask = padded(side)
    settings = {"max_new_tokens": 8, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
    new = model.generate(tokens, attention_mask=mask, **settings)[:, 9:]
    slow = model.generate(tokens, attention_mask=mask, use_cache=False, **settings)[:, 9:]
    assert torch.equal(new, slow)
    for row, text in enumerate(alone(tokens, mask)):
        one = model.generate(text[None], **settings)[:, len(text) :]
        assert torch.equal(new[2 * row : 2 * row + 2], one)
    greedy = model.generate(tokens, attention_mask=mask, max_new_tokens=8, do_sample=False)[:, 9:]
    assert not torch.equal(new[::2], greedy)


def test_sampling_draws_from_the_models_probabilities(model):
    def sample(**options):
        torch.manual_seed(0)
        return model.generate(draw(), max_new_tokens=12, do_sample=True, top_k=10, **options)

    assert torch.equal(sample(), sample(use_cache=False))


def test_generation_continues_from_a_past(model):
    tokens = draw()
    settings = {"do_sample": False, "eos_token_id": None}
    whole = model.generate(tokens, max_new_tokens=12, **settings)
    first = model.generate(tokens, max_new_tokens=5, return_dict_in_generate=True, **settings)
    for _ in range(2):
        rest = model.generate(
            first.sequences, past_key_values=first.past_key_values, max_new_tokens=7, **settings
        )
        assert torch.equal(rest, whole)


def test_a_prepared_model_generates():
    model = make("mamba", eos_tokens=())
    fast = wrap(prepare_for_decoding(model))
    new = fast.generate(draw(1), max_new_tokens=8, do_sample=False)[0, 37:].tolist()
    assert new == generate(model, draw(1), max_tokens=8)[0].tokens


@pytest.mark.parametrize("use_cache", [True, False])
def test_nothing_follows_an_empty_prompt(model, use_cache):
    tokens, mask = padded("left")
    mask[1] = 0
    with pytest.raises(InputError, match="row 1 of attention_mask"):
        model.generate(tokens, attention_mask=mask, max_new_tokens=2, use_cache=use_cache)
    with pytest.raises(ValueError, match="no tokens"):
        model.generate(tokens[:1, :0], max_new_tokens=2, use_cache=use_cache)


def test_unsupported_generation_modes_are_refused(model):
    with pytest.raises(ValueError, match="assisted generation is not supported"):
        model.generate(draw(1), prompt_lookup_num_tokens=3, max_new_tokens=4)
