"""What transformers' own suites (ModelTesterMixin, GenerationTesterMixin) ask of every model.

Those classes are not in its package, so that each check stands here, under its name there where it
has one. Not asked: what needs attention, several GPUs, or a state that can be cut (assisted and
contrastive generation), which `_is_stateful` refuses.
"""

import copy
import inspect

import pytest
import torch
from torch import nn

from tests.interop.samples import draw, make, padded, same

transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")
from transformers import AutoModel, AutoModelForCausalLM  # noqa: E402

from longstate.interop import (  # noqa: E402
    LongstateConfig,
    LongstateForCausalLM,
    LongstateModel,
    register_transformers,
)

register_transformers()
wrap = LongstateForCausalLM.from_longstate
TIES = pytest.mark.parametrize("name", ["mamba", "mamba2"])  # tied, and with a head of its own
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*deprec:FutureWarning")


@pytest.fixture
def model():
    return wrap(make("mamba", eos_tokens=()))


@pytest.fixture(params=["mamba", "mamba2"])
def both(request):
    return wrap(make(request.param, eos_tokens=()))


def test_forward_signature():
    names = list(inspect.signature(LongstateForCausalLM.forward).parameters)
    assert names[1] == "input_ids"
    assert {"attention_mask", "position_ids", "inputs_embeds", "labels"} < set(names)


def test_config_common_properties():
    config = LongstateConfig(vocab_size=50, d_model=8, layers=["mamba", "s4d", "mamba"])
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (50, 8, 3)


@TIES
def test_save_load(name, tmp_path):
    model = wrap(make(name))
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(loaded(draw()).logits, model(draw()).logits)


def test_a_head_of_its_own_in_a_file_of_an_earlier_version(tmp_path):
    from safetensors.torch import load_file, save_file

    model = wrap(make("mamba2"))
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    head = next(name for name in tensors if "head" in name)
    tensors["model.head.weight"] = tensors.pop(head)
    save_file(tensors, file, {"format": "pt"})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    same(loaded.to_longstate(), model.to_longstate())


@TIES
def test_correct_missing_keys_and_the_base_model(name, tmp_path):
    """The base model opens the folder of the whole one, and the whole one that of the base."""
    model = wrap(make(name))
    model.save_pretrained(tmp_path / "whole")
    base = AutoModel.from_pretrained(tmp_path / "whole")
    assert type(base) is LongstateModel
    assert model.base_model is model.model
    assert base.base_model is base
    hidden = base(draw()).last_hidden_state
    assert torch.equal(hidden, model.model(draw()).last_hidden_state)
    torch.testing.assert_close(model.get_output_embeddings()(hidden), model(draw()).logits)
    base.save_pretrained(tmp_path / "base")
    again, report = LongstateForCausalLM.from_pretrained(
        tmp_path / "base", output_loading_info=True
    )
    assert set(report["missing_keys"]) == (set() if name == "mamba" else {"lm_head.weight"})
    same(again.model, base)


def test_tied_weights_keys(tmp_path):
    model = wrap(make("mamba"))
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in model.to_longstate().parameters()
    )
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    changed = copy.deepcopy(model)
    changed.get_input_embeddings().weight.data[3] = 7
    assert torch.equal(changed.lm_head.weight[3], torch.full((24,), 7.0))
    assert not torch.equal(model.lm_head.weight[3], torch.full((24,), 7.0))


@TIES
def test_model_get_set_embeddings(name):
    model = wrap(make(name))
    new = nn.Embedding(50, 24)
    model.set_input_embeddings(new)
    assert model.get_input_embeddings() is model.model.get_input_embeddings() is new
    head = nn.Linear(24, 50, bias=False)
    model.set_output_embeddings(head)
    assert model.get_output_embeddings() is head


@pytest.mark.parametrize("rows", [41, 61])
@pytest.mark.parametrize("mean", [True, False])
@TIES
def test_resize_embeddings(name, mean, rows, tmp_path):
    model = wrap(make(name, vocab_multiple=8))  # 50 tokens in 56 rows
    tokens = draw() % 41
    before = model(tokens).logits
    model.resize_token_embeddings(rows, mean_resizing=mean)
    after = model(tokens).logits
    kept = min(50, rows)
    torch.testing.assert_close(after[..., :kept], before[..., :kept])
    assert after.shape[-1] == rows == model.config.vocab_size
    assert model(torch.tensor([[rows - 1]])).logits.isfinite().all()
    with pytest.raises(ValueError, match=f"below {rows}"):
        model(torch.tensor([[rows]]))
    assert len(model.get_output_embeddings().weight) == rows
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(tokens).logits, after)
    assert loaded.to_longstate().spec.vocab_size == rows


def test_resize_to_a_multiple(model):
    assert len(model.resize_token_embeddings(pad_to_multiple_of=16).weight) == 64
    assert model(draw()).logits.shape[-1] == model.config.vocab_size == 64


def test_inputs_embeds(both):
    tokens, mask = padded("left")
    vectors = both.get_input_embeddings()(tokens)
    torch.testing.assert_close(
        both(inputs_embeds=vectors, attention_mask=mask, labels=tokens).to_tuple()[:2],
        both(tokens, attention_mask=mask, labels=tokens).to_tuple()[:2],
    )
    vectors[mask == 0] = torch.nan  # what is not there
    assert both(inputs_embeds=vectors, attention_mask=mask).logits.isfinite().all()


def test_generate_from_inputs_embeds(both):
    vectors = both.get_input_embeddings()(draw())
    settings = {"max_new_tokens": 5, "do_sample": False}
    new = both.generate(inputs_embeds=vectors, **settings)
    assert torch.equal(new, both.generate(draw(), **settings)[:, 37:])


def test_hidden_states_output(model):
    expected = make("mamba")
    found = model(draw(), output_hidden_states=True)
    assert len(found.hidden_states) == model.config.num_hidden_layers + 1
    x = expected.embedding(draw())
    for i, block in enumerate(expected.blocks):
        torch.testing.assert_close(found.hidden_states[i], x)
        x = block(x)[0]
    torch.testing.assert_close(found.hidden_states[-1], expected.norm(x))
    assert model(draw()).hidden_states is None
    configured = copy.deepcopy(model)
    configured.config.output_hidden_states = True
    assert len(configured(draw()).hidden_states) == 3


def test_retain_grad_hidden_states(model):
    found = model(draw(), output_hidden_states=True)
    found.hidden_states[0].retain_grad()
    found.logits.sum().backward()
    assert found.hidden_states[0].grad.abs().max() > 0


def test_model_outputs_equivalence(both):
    as_dict = both(draw(), labels=draw(), output_hidden_states=True)
    as_tuple = both(draw(), labels=draw(), output_hidden_states=True, return_dict=False)
    assert torch.equal(as_dict.loss, as_tuple[0])
    assert torch.equal(as_dict.logits, as_tuple[1])
    assert torch.equal(as_dict.hidden_states[1], as_tuple[3][1])


def test_training_gradient_checkpointing(both):
    both.train()
    loss = both(draw(), labels=draw()).loss
    loss.backward()
    expected = {name: p.grad.clone() for name, p in both.named_parameters()}
    both.zero_grad()
    both.activation_checkpointing_enable()
    both(draw(), labels=draw()).loss.backward()
    for name, p in both.named_parameters():
        torch.testing.assert_close(p.grad, expected[name])


def byte_tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())[:50]
    plain = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain)


def test_generate_stop_strings(model):
    tokenizer = byte_tokenizer()
    settings = {"max_new_tokens": 6, "do_sample": False}
    free = model.generate(draw(1), **settings)[0, 37:].tolist()
    stop = tokenizer.decode(free[2:4])
    first = next(n for n in range(1, 7) if stop in tokenizer.decode(free[:n]))
    found = model.generate(draw(1), stop_strings=[stop], tokenizer=tokenizer, **settings)
    assert found[0, 37:].tolist() == free[:first]
    assert first < 6


def test_generate_with_scores_and_hidden_states(model):
    found = model.generate(
        draw(), max_new_tokens=3, do_sample=False, return_dict_in_generate=True,
        output_scores=True, output_logits=True, output_hidden_states=True,
    )  # fmt: skip
    assert len(found.scores) == len(found.hidden_states) == 3
    new = found.sequences[:, 37:]
    logits = model(found.sequences).logits[:, 36:-1]
    torch.testing.assert_close(torch.stack(found.logits, dim=1), logits)
    assert torch.equal(logits.argmax(-1), new)
