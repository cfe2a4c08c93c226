"""Longstate's models in transformers: registered, saved and loaded, called with padding."""

import copy
import dataclasses
import json
import logging

import pytest
import safetensors.torch
import torch
from torch.utils._pytree import tree_leaves

from longstate.errors import InputError
from longstate.models import LanguageModel, LanguageSpec
from tests.interop.samples import alone, draw, make, padded, same

transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from longstate.interop import (  # noqa: E402
    LongstateConfig,
    LongstateForCausalLM,
    register_transformers,
)

register_transformers()
register_transformers()  # harmless twice

LAYERS = (
    *("s4", "s4d", "dss", "s5", "linoss"),
    *("mamba", "mamba2", "falconmamba", "mamba3", "longhorn", "gatedssm"),
)
SIDES = pytest.mark.parametrize("side", ["left", "right"])
wrap = LongstateForCausalLM.from_longstate


@pytest.fixture
def model():
    return wrap(make("mamba"))


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path)
    return tmp_path


def test_config_has_the_fields_and_the_defaults_of_the_spec():
    ours = {f.name: f for f in dataclasses.fields(LanguageSpec)}
    theirs = {f.name: f for f in dataclasses.fields(LongstateConfig)}
    tokens = {
        "bos_token": "bos_token_id",
        "eos_tokens": "eos_token_id",
        "pad_token": "pad_token_id",
    }
    for name, field in ours.items():
        twin = theirs[tokens.get(name, name)]
        assert name == "eos_tokens" or (twin.default, twin.default_factory) == (
            field.default,
            field.default_factory,
        )
    spec = LanguageSpec(50, 8, ("s4d",), tie=False, bos_token=1, eos_tokens=(2, 3), pad_token=4)
    assert LongstateConfig.from_spec(spec).spec() == spec


def test_from_config():
    config = AutoConfig.for_model("longstate", vocab_size=20, d_model=8, layers=["mamba", "s4d"])
    assert (config.hidden_size, config.tie_word_embeddings) == (8, True)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    torch.manual_seed(3)
    same(model.to_longstate(), LanguageModel(LanguageSpec(20, 8, ("mamba", "s4d"))))


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_saved_and_loaded(layer, tie, tmp_path):
    spec = LanguageSpec(50, 32, (layer, "mamba"), tie=tie, vocab_multiple=8, eos_tokens=(2, 5))
    model = LanguageModel(spec)
    wrap(model).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is LongstateForCausalLM
    assert not loaded.training
    assert loaded.to_longstate().spec == spec
    same(loaded.to_longstate(), model)


@pytest.mark.parametrize("tie", [True, False])
def test_wrapping_shares_the_model(tie):
    model = make("mamba", tie=tie)
    inner = wrap(model).to_longstate()
    assert (inner.embedding, inner.blocks, inner.norm) == (
        model.embedding,
        model.blocks,
        model.norm,
    )
    assert inner.head is model.head
    assert wrap(model).get_input_embeddings() is model.embedding
    head = wrap(model).get_output_embeddings()
    assert head.weight is (model.embedding.weight if tie else model.head.weight)
    assert not wrap(model).training
    assert wrap(model.train()).training


def test_missing_weights_are_named_and_initialised(folder, caplog):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    name = "model.blocks.1.mixer.A_log"
    lost = tensors.pop(name)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    logger = logging.getLogger("transformers")
    before = logger.level  # other tests may have made it quiet
    logger.setLevel(logging.WARNING)
    logger.addHandler(caplog.handler)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(folder)
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(before)
    assert name in caplog.text
    found = loaded.state_dict()
    assert not torch.equal(found[name], lost)
    torch.testing.assert_close(found[name][0], torch.arange(1.0, 6).log())
    for other, value in tensors.items():
        assert torch.equal(found[other], value)


@pytest.mark.parametrize("layer", LAYERS)
def test_narrow_weights(layer, tmp_path):
    """What sets decays and steps stays in float32, however a model gets its type."""
    model = LanguageModel(LanguageSpec(50, 32, (layer,)))
    wrap(model).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    made = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.bfloat16)
    wide = {*model.blocks[0].mixer.dynamics, "D"}
    for name, p in loaded.named_parameters():
        expected = torch.float32 if name.rsplit(".", 1)[1] in wide else torch.bfloat16
        assert p.dtype == made.get_parameter(name).dtype == expected, name
    assert loaded.dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32
    logits = loaded(draw()).logits
    error = (logits - model(draw())[0]).abs().max()
    assert error < 0.05 * logits.abs().max()
    loaded.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    same(again.to_longstate(), loaded.to_longstate())


@SIDES
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_a_padded_batch_gives_what_each_row_gives_alone(side, dtype):
    model = wrap(make("mamba").double())
    tokens, mask = padded(side)
    strange = tokens.masked_fill(mask == 0, -7)  # padding may be any number
    whole = model(strange, mask.to(dtype))
    losses, weights = [], []
    for row, text in enumerate(alone(tokens, mask)):
        one = model(text[None], labels=text[None])
        torch.testing.assert_close(whole.logits[row][mask[row].bool()], one.logits[0])
        for all_rows, own in zip(
            *map(tree_leaves, (whole.past_key_values.states, one.past_key_values.states)),
            strict=True,
        ):
            torch.testing.assert_close(all_rows[row], own[0])
        if len(text) > 1:
            losses.append(one.loss)
            weights.append(len(text) - 1)
    mean = sum(x * w for x, w in zip(losses, weights, strict=True)) / sum(weights)
    torch.testing.assert_close(model(tokens, mask, labels=tokens).loss, mean)
    summed = model(tokens, mask, labels=tokens, num_items_in_batch=7).loss
    torch.testing.assert_close(summed, mean * sum(weights) / 7)


@SIDES
@torch.no_grad()
def test_a_past_is_continued_and_not_changed(side):
    model = wrap(make("mamba").double())
    tokens, mask = padded(side)
    whole = model(tokens, mask).logits
    first = model(tokens[:, :5], mask[:, :5])
    kept = copy.deepcopy(first.past_key_values)
    for columns in (mask[:, 5:], mask):
        rest = model(tokens[:, 5:], columns, past_key_values=first.past_key_values)
        torch.testing.assert_close(rest.logits, whole[:, 5:])
    past = first.past_key_values
    for t in range(5, 9):
        out = model(tokens[:, t : t + 1], mask[:, : t + 1], past_key_values=past)
        torch.testing.assert_close(out.logits[:, 0], whole[:, t])
        past = out.past_key_values
    assert past.get_seq_length() == 9
    for a, b in zip(
        tree_leaves(first.past_key_values.states), tree_leaves(kept.states), strict=True
    ):
        assert torch.equal(a, b)


def test_kept_logits(model):
    tokens = draw()
    logits = model(tokens).logits
    assert torch.equal(model(tokens, logits_to_keep=3).logits, logits[:, -3:])
    which = torch.tensor([0, 5, -1])
    assert torch.equal(model(tokens, logits_to_keep=which).logits, logits[:, which])
    torch.testing.assert_close(model(tokens, logits_to_keep=1).logits, logits[:, -1:])
    assert model(tokens, labels=tokens, logits_to_keep=1).loss == model(tokens, labels=tokens).loss


def test_what_is_returned(model):
    tokens = draw()
    assert model(tokens, use_cache=False).past_key_values is None
    assert model.train()(tokens).past_key_values is None
    whole = model(tokens, labels=tokens, use_cache=True, return_dict=False)
    assert type(whole) is tuple
    assert len(whole) == 3


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("below 50", {"input_ids": torch.tensor([[1, 50]])}),
        ("below 50", {"input_ids": torch.tensor([[-1]])}),
        ("no tokens", {"input_ids": torch.zeros(1, 0, dtype=torch.int64)}),
        (r"\(batch, time\)", {"input_ids": torch.tensor([1, 2])}),
        ("int64", {"input_ids": torch.ones(1, 2)}),
        ("input_ids", {}),
        (r"\(batch, time, 24\); got \(1, 2, 23\)", {"inputs_embeds": torch.ones(1, 2, 23)}),
        ("inputs_embeds", {"input_ids": draw(), "inputs_embeds": torch.ones(2, 37, 24)}),
        ("no attentions", {"output_attentions": True}),
        ("9 after 1", {"position_ids": torch.tensor([[0, 1, 9] + [10] * 34] * 2)}),
        (r"shape \(2, 37\)", {"position_ids": torch.arange(36)[None]}),
        (r"\(2, 37\); got \(2, 36\)", {"attention_mask": torch.ones(2, 36)}),
        (r"got \(2, 1, 37, 37\)", {"attention_mask": torch.ones(2, 1, 37, 37)}),
        ("0 and 1 only", {"attention_mask": torch.full((2, 37), -1e9)}),
        ("0 and 1 only", {"attention_mask": torch.full((2, 37), torch.nan)}),
        ("labels", {"labels": torch.ones(2, 36, dtype=torch.int64)}),
        ("past_key_values", {"past_key_values": transformers.DynamicCache()}),
    ],
)
def test_bad_inputs_are_refused(model, what, arguments):
    if arguments and not {"input_ids", "inputs_embeds"} & set(arguments):
        arguments = {"input_ids": draw(), **arguments}
    with pytest.raises(ValueError, match=what):
        model(**arguments)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("no layer 'mamba9'; did you mean 'mamba", {"layers": ["mamba9"]}),
        ("format 2", {"format": 2}),
        ("d_model", {"d_model": 0}),
        ("d_sate", {"options": {"mamba": {"d_sate": 3}}}),
        ("eos_tokens", {"eos_token_id": ["a"]}),
    ],
)
def test_a_config_that_cannot_be_read_is_refused_with_a_reason(folder, what, changes):
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, **changes}))
    for auto in (AutoConfig, AutoModelForCausalLM):
        with pytest.raises(InputError, match=what):
            auto.from_pretrained(folder)
