"""A description of a language model: errors, and its JSON."""

import json

import pytest

from longstate.errors import InputError
from longstate.models import LanguageModel, LanguageSpec


def test_spec_round_trip():
    options = {"mamba": {"d_state": 3}, "mamba2": {"d_head": 4}}
    spec = LanguageSpec(
        11, 8, ("mamba", "mamba2"), options,
        norm="layer", norm_eps=1e-6, tie=False, residual_in_float32=False,
        bias=True, conv_bias=False, vocab_multiple=8, bos_token=1, eos_tokens=(2, 3), pad_token=0,
    )  # fmt: skip
    assert LanguageSpec.from_json(spec.to_json()) == spec
    assert json.loads(spec.to_json())["format"] == 1
    assert LanguageSpec(5, 4, ["Mamba", "S4D"]).layers == ("mamba", "s4d")
    limited = LanguageSpec(5, 4, ("mamba2",), {"mamba2": {"dt_limit": (0.1, None)}})
    assert LanguageSpec.from_json(limited.to_json()) == limited


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number of at least 1; got 0"),
        ({"d_model": 2.5}, "d_model must be a whole number"),
        ({"vocab_multiple": True}, "vocab_multiple must be"),
        ({"layers": ()}, "one name per block"),
        ({"layers": "mamba"}, "one name per block"),
        ({"layers": 3}, "one name per block"),
        ({"layers": ("mamab",)}, "there is no layer 'mamab'; did you mean 'mamba'"),
        ({"options": {"s4d": {}}}, "options are for 's4d', which is not a layer of this model"),
        ({"options": {"mamba": {"dstate": 3}}}, "no option 'dstate'; did you mean 'd_state'"),
        ({"options": {"mamba": 3}}, "options of 'mamba' must be a mapping"),
        ({"options": 3}, "options must map"),
        ({"options": {"mamba": {"dt_min": float("inf")}}}, "what JSON can hold"),
        ({"norm": "batch"}, "norm must be 'rms' or 'layer'; got 'batch'"),
        ({"norm_eps": 0}, "norm_eps must be a number above 0"),
        ({"norm_eps": "1e-5"}, "norm_eps must be a number above 0"),
        ({"tie": 1}, "tie must be true or false; got 1"),
        ({"eos_tokens": 3}, "eos_tokens must be a sequence of whole numbers; got 3"),
        ({"eos_tokens": (1.5,)}, "eos_tokens must be a sequence"),
        ({"bos_token": "a"}, "bos_token must be a whole number or None"),
    ],
)
def test_specs_that_cannot_be_are_refused(change, message):
    facts = {"vocab_size": 11, "d_model": 8, "layers": ("mamba",)}
    with pytest.raises(InputError, match=message):
        LanguageSpec(**{**facts, **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "must be a JSON object"),
        ("{}", "another format version"),
        ('{"format": 2}', "reads version 1"),
        ('{"format": 1, "vocab_size": 3, "d_model": 4}', "lacks 'layers'"),
        ('{"format": 1, "vocab_sise": 3}', "no 'vocab_sise'; did you mean 'vocab_size'"),
    ],
)
def test_descriptions_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        LanguageSpec.from_json(text)


def test_layers_that_cannot_be_made_are_refused():
    for options, message in (
        ({"s4d": {"bidirectional": True}}, "must not see the future"),
        ({"s4d": {"d_state": 3}}, "the layer 's4d' does not accept these options"),
        ({"s4d": {"d_state": "many"}}, "d_state must be a whole number; got 'many'"),
    ):
        with pytest.raises(InputError, match=message):
            LanguageModel(LanguageSpec(11, 8, ("s4d",), options))
