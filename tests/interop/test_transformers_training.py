"""Trainer, recomputation in the backward pass, and adapters, with longstate's models."""

import copy

import pytest
import torch
from torch import nn

from longstate.layers import Mamba
from longstate.models import LanguageModel, LanguageSpec
from tests.interop.samples import draw, make, same

transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")
from transformers import AutoModelForCausalLM  # noqa: E402

from longstate.interop import LongstateForCausalLM, register_transformers  # noqa: E402

register_transformers()
wrap = LongstateForCausalLM.from_longstate

# peft asks for `is_gradient_checkpointing`, which transformers has renamed
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*deprec:FutureWarning")

LORA = pytest.mark.parametrize(
    ("layer", "targets"),
    [
        ("mamba", ["in_proj", "x_proj", "dt_proj", "out_proj"]),
        ("mamba2", ["in_proj", "out_proj"]),
    ],
)


def fresh():
    torch.manual_seed(0)
    return wrap(LanguageModel(LanguageSpec(50, 16, ("mamba", "s4d"))))


def trainer(model, folder, **changes):
    pytest.importorskip("accelerate", reason="Trainer needs it")
    unread = torch.tensor([0, 9, 3, 6] * 4)  # so many tokens of each text are not predicted
    labels = draw(16, 12).masked_fill(torch.arange(12) < unread[:, None], -100)
    texts = [{"input_ids": a, "labels": b} for a, b in zip(draw(16, 12), labels, strict=True)]
    settings = {
        "output_dir": str(folder), "max_steps": 4, "save_steps": 2, "logging_steps": 1,
        "per_device_train_batch_size": 4, "learning_rate": 1e-2, "report_to": "none",
        "use_cpu": True, "disable_tqdm": True, "dataloader_pin_memory": False,
    }  # fmt: skip
    arguments = transformers.TrainingArguments(**{**settings, **changes})
    return transformers.Trainer(model, arguments, train_dataset=texts, eval_dataset=texts)


def losses(run):
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def test_trainer_learns_saves_and_resumes(tmp_path):
    whole = trainer(fresh(), tmp_path)
    before = whole.evaluate()["eval_loss"]
    whole.train()
    assert len(losses(whole)) == 4
    assert whole.evaluate()["eval_loss"] < before
    stopped = tmp_path / "checkpoint-2"
    loaded = AutoModelForCausalLM.from_pretrained(stopped)
    rest = trainer(loaded, tmp_path / "rest")
    rest.train(resume_from_checkpoint=str(stopped))
    assert losses(rest) == losses(whole)
    same(rest.model.model, whole.model.model)


def test_gradients_accumulate_to_those_of_the_whole_batch(tmp_path):
    """Which needs the loss to be divided by `num_items_in_batch`."""
    runs = {}
    for pieces in (1, 2):
        run = trainer(
            fresh().double(), tmp_path / str(pieces), max_steps=1, optim="sgd",
            per_device_train_batch_size=4 // pieces, gradient_accumulation_steps=pieces,
        )  # fmt: skip
        run.train()
        runs[pieces] = run
    assert losses(runs[1]) == pytest.approx(losses(runs[2]))
    for a, b in zip(*(run.model.parameters() for run in runs.values()), strict=True):
        torch.testing.assert_close(a, b)


def gradients(model):
    model.zero_grad()
    model(draw(), labels=draw()).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("every", [1, 2])
def test_checkpointing_computes_the_blocks_again(every, monkeypatch):
    calls = []
    forward = Mamba.forward
    monkeypatch.setattr(Mamba, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    model = wrap(make("mamba").double().train())
    expected = gradients(model)
    assert len(calls) == 2
    model.activation_checkpointing_enable(every_n_layers=every)
    assert model.is_activation_checkpointing
    copied = copy.deepcopy(model)
    for one in (model, copied):
        calls.clear()
        torch.testing.assert_close(gradients(one), expected)
        assert len(calls) == 2 + {1: 2, 2: 1}[every]
    model.activation_checkpointing_disable()
    calls.clear()
    torch.testing.assert_close(gradients(model), expected)
    assert len(calls) == 2
    assert not model.is_activation_checkpointing


def test_generation_while_checkpointing():
    model = wrap(make("mamba", eos_tokens=()))
    expected = model.generate(draw(), max_new_tokens=4, do_sample=False)
    model.train().activation_checkpointing_enable()
    assert torch.equal(model.generate(draw(), max_new_tokens=4, do_sample=False), expected)


def test_reentrant_checkpointing_is_refused():
    with pytest.raises(ValueError, match="use_reentrant=False"):
        wrap(make("mamba")).activation_checkpointing_enable({"use_reentrant": True})


def adapted(layer, targets):
    peft = pytest.importorskip("peft", reason="needs the extra 'test'")
    config = peft.LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    torch.manual_seed(2)
    return peft.get_peft_model(wrap(make(layer, eos_tokens=()).double()), config)


def train_adapters(model):
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, 0.01)
    found = []
    for _ in range(3):
        loss = model(input_ids=draw(), labels=draw()).loss
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in trained)
        optimiser.step()
        found.append(loss.item())
    assert found[-1] < found[0]


@LORA
def test_lora_trains_adapters_only_and_merges(layer, targets):
    model = adapted(layer, targets).train()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * len(targets)  # A and B, of two blocks
    assert all("lora_" in name for name in trained)
    before = copy.deepcopy(model).eval()
    train_adapters(model)
    for name, p in before.named_parameters():
        assert torch.equal(p, model.get_parameter(name)) == (name not in trained), name
    model.eval()
    logits = model(draw()).logits
    tokens = model.generate(input_ids=draw(), max_new_tokens=8, do_sample=False)
    merged = model.merge_and_unload()
    assert type(merged) is LongstateForCausalLM
    assert not any("lora" in name for name, _ in merged.named_modules())
    torch.testing.assert_close(merged(draw()).logits, logits)
    torch.testing.assert_close(merged.to_longstate()(draw())[0], logits)
    assert torch.equal(merged.generate(draw(), max_new_tokens=8, do_sample=False), tokens)


@LORA
def test_lora_with_checkpointing_and_saved(layer, targets, tmp_path):
    peft = pytest.importorskip("peft", reason="needs the extra 'test'")
    model = adapted(layer, targets).train()
    expected = gradients(model)
    model.activation_checkpointing_enable()
    torch.testing.assert_close(gradients(model), expected)
    train_adapters(model)
    model.save_pretrained(tmp_path)
    base = wrap(make(layer, eos_tokens=()).double())
    again = peft.PeftModel.from_pretrained(base, tmp_path)
    torch.testing.assert_close(again(draw()).logits, model.eval()(draw()).logits)


def test_lora_by_the_trainer(tmp_path):
    model = adapted("mamba", ["in_proj", "out_proj"])
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    whole = {"per_device_train_batch_size": 16, "gradient_checkpointing": True}
    run = trainer(model, tmp_path, **whole)
    run.train()
    assert losses(run)[-1] < losses(run)[0]
    for name, p in frozen.items():
        assert torch.equal(model.get_parameter(name), p)
    assert isinstance(model.base_model.model.model.embedding, nn.Embedding)
