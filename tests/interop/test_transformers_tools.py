"""Longstate's models in other tools: accelerate, Trainer, PEFT, other programs."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from longstate.models import LanguageModel, LanguageSpec
from tests.interop.samples import draw, make

transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")
from transformers import AutoModelForCausalLM  # noqa: E402

from longstate.interop import (  # noqa: E402
    LongstateConfig,
    LongstateForCausalLM,
    register_transformers,
)

register_transformers()
wrap = LongstateForCausalLM.from_longstate
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*deprec:FutureWarning")


@pytest.fixture
def model():
    return wrap(make("mamba", eos_tokens=()))


@pytest.fixture(params=["mamba", "mamba2"])
def both(request):
    return wrap(make(request.param, eos_tokens=()))


@pytest.mark.parametrize("layer", ["mamba", "mamba2", "mamba3", "s4", "s4d", "s5", "linoss"])
@torch.no_grad()
def test_disk_offload(layer, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    torch.manual_seed(0)
    for tie in (True, False):
        spec = LanguageSpec(50, 32, (layer,) * 2, tie=tie)
        model = wrap(LanguageModel(spec).eval())
        logits = model(draw()).logits
        new = model.generate(draw(), max_new_tokens=3, do_sample=False)
        accelerate.disk_offload(model, str(tmp_path / str(tie)), execution_device="cpu")
        assert all(p.is_meta for p in model.parameters())
        for _ in range(2):
            assert torch.equal(model(draw()).logits, logits)
        assert torch.equal(model.generate(draw(), max_new_tokens=3, do_sample=False), new)
        assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("layer", ["mamba", "mamba2", "mamba3", "s4", "s4d", "s5", "linoss", "dss"])
def test_can_be_initialized_on_meta(layer, monkeypatch):
    monkeypatch.undo()  # torch.device knows the functions of PyTorch, not those that poison memory
    torch.utils._device._device_constructors.cache_clear()
    config = LongstateConfig(vocab_size=50, d_model=32, layers=[layer])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert all(p.is_meta for p in model.parameters())
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_weight_decay_leaves_dynamics_and_vectors_alone(both, tmp_path):
    pytest.importorskip("accelerate", reason="Trainer needs it")
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", weight_decay=0.1
    )
    both.save_pretrained(tmp_path / "m")
    for model in (both, AutoModelForCausalLM.from_pretrained(tmp_path / "m")):
        run = transformers.Trainer(model, arguments)
        names = dict(model.named_parameters())  # a tied weight once
        decayed = set(run.get_decay_parameter_names(model)) & set(names)
        spared = {name.rsplit(".", 1)[1] for name in set(names) - decayed}
        dynamics = {n for m in model.modules() for n in getattr(m, "dynamics", ())}
        assert {"A_log", "D"} <= spared
        for name, p in names.items():
            last = name.rsplit(".", 1)[1]
            assert (name in decayed) == (p.dim() > 1 and last not in {*dynamics, "D"}), name
        groups = run.create_optimizer().param_groups
        assert sum(len(g["params"]) for g in groups if g["weight_decay"]) == len(decayed)


def test_trainer_decays_other_models_as_before(tmp_path):
    pytest.importorskip("accelerate", reason="Trainer needs it")
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none"
    )
    other = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    assert transformers.Trainer(other, arguments).get_decay_parameter_names(other) == ["0.weight"]


@pytest.mark.parametrize("targets", [["embedding"], ["embedding", "in_proj"]])
def test_lora_on_a_tied_embedding_merges(targets):
    peft = pytest.importorskip("peft", reason="needs the extra 'test'")
    config = peft.LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    model = peft.get_peft_model(wrap(make("mamba").double()), config).eval()
    without = model(input_ids=draw()).logits
    for name, p in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(p, std=0.3)
    adapted = model(input_ids=draw()).logits
    assert (adapted - without).abs().max() > 1
    torch.testing.assert_close(model.base_model.model.to_longstate()(draw())[0], adapted)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(draw()).logits, adapted)
    torch.testing.assert_close(merged.to_longstate()(draw())[0], adapted)


def test_an_embedding_that_is_trained_whole_beside_adapters():
    peft = pytest.importorskip("peft", reason="needs the extra 'test'")
    config = peft.LoraConfig(
        r=4, target_modules=["in_proj"], modules_to_save=["embedding"], task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(wrap(make("mamba").double()), config).eval()
    for p in model.parameters():
        if p.requires_grad:
            nn.init.normal_(p, std=0.3)
    adapted = model(input_ids=draw()).logits
    torch.testing.assert_close(model.merge_and_unload()(draw()).logits, adapted)


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PromptEncoderConfig"])
def test_prompt_tuning(kind, model):
    """`num_attention_heads` is asked for by PEFT, which uses it for prefix tuning only."""
    peft = pytest.importorskip("peft", reason="needs the extra 'test'")
    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3, num_attention_heads=1)
    tuned = peft.get_peft_model(model, config)
    tuned(input_ids=draw(), labels=draw()).loss.backward()
    trained = [p for p in tuned.parameters() if p.requires_grad]
    assert all(p.grad.abs().max() > 0 for p in trained)
    tuned.eval()
    vectors = tuned.get_prompt(2)
    own = torch.cat([vectors, model.get_input_embeddings()(draw())], dim=1)
    expected = model(inputs_embeds=own).logits
    torch.testing.assert_close(tuned(input_ids=draw()).logits, expected)


ELSEWHERE = """
import sys
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
import torch
assert not any(name.startswith("longstate") for name in sys.modules)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
base = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
model.save_pretrained(sys.argv[1] + "/again")
torch.save([model(torch.arange(9)[None]).logits, type(base).__name__], sys.argv[2])
"""


def test_another_program_opens_a_saved_folder(model, tmp_path):
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    places = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "code")}
    paths = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, folder, tmp_path / "found.pt"],
        check=True, env={**os.environ, **places, **paths},
    )  # fmt: skip
    logits, base = torch.load(tmp_path / "found.pt")
    assert torch.equal(logits, model(torch.arange(9)[None]).logits)
    assert base == "LongstateModel"
    files = sorted(p.name for p in (folder / "again").iterdir())
    assert files == [
        "config.json", "generation_config.json", "longstate_auto.py", "model.safetensors",
    ]  # fmt: skip
