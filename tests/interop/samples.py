"""Small models with random weights, and the names of their tensors in both libraries."""

import json
from dataclasses import replace

import safetensors.torch
import torch
from torch import nn

from longstate.models import LanguageModel, LanguageSpec

SPECS = {
    "mamba": LanguageSpec(
        50,
        24,
        ("mamba",) * 2,
        {"mamba": {"d_state": 5, "dt_rank": 3, "d_conv": 3}},
        eos_tokens=(2,),
    ),
    "mamba2": LanguageSpec(
        50, 24, ("mamba2",) * 2, {"mamba2": {"d_state": 5, "d_head": 8, "n_groups": 2}}, tie=False
    ),
    "falconmamba": LanguageSpec(
        50, 24, ("falconmamba",) * 2, {"falconmamba": {"d_state": 5, "eps": 1e-4}}, norm_eps=1e-3
    ),
}


def make(name, **changes):
    torch.manual_seed(0)
    model = LanguageModel(replace(SPECS[name], **changes)).eval()
    for p in model.parameters():
        nn.init.normal_(p, p.mean().item(), 0.3)
    return model


def draw(b=2, t=37):
    return torch.randint(50, (b, t), generator=torch.Generator().manual_seed(1))


def padded(side):
    """Three texts in one tensor, the last without padding, and their mask."""
    tokens, mask = draw(3, 9), torch.ones(3, 9, dtype=torch.int64)
    for row, gap in ((0, 4), (1, 8)):
        mask[row, slice(gap) if side == "left" else slice(9 - gap, None)] = 0
    return tokens, mask


def alone(tokens, mask):
    return [t[m.bool()] for t, m in zip(tokens, mask, strict=True)]


def block(i, mixer):
    return {f"backbone.layers.{i}.norm.weight", *(f"backbone.layers.{i}.mixer.{m}" for m in mixer)}


MIXER = {
    "mamba": {
        *("A_log", "D", "conv1d.bias", "conv1d.weight", "dt_proj.bias", "dt_proj.weight"),
        *("in_proj.weight", "out_proj.weight", "x_proj.weight"),
    },
    "mamba2": {
        *("A_log", "D", "conv1d.bias", "conv1d.weight", "dt_bias", "in_proj.weight"),
        *("norm.weight", "out_proj.weight"),
    },
}
MIXER["falconmamba"] = MIXER["mamba"]


def keys(name, embedding):
    """Names of all tensors without the head."""
    inner = block(0, MIXER[name]) | block(1, MIXER[name])
    return {f"backbone.{embedding}.weight", "backbone.norm_f.weight"} | inner


FILE = {"transformers": "model.safetensors", "mamba-ssm": "pytorch_model.bin"}


def read(folder):
    if (folder / "model.safetensors").exists():
        return safetensors.torch.load_file(folder / "model.safetensors")
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def edit(folder, **changes):
    """Change settings of a config.json; a setting with the value `...` is removed."""
    values = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        values.pop(name, None)
        if value is not ...:
            values[name] = value
    (folder / "config.json").write_text(json.dumps(values))


def same(a, b):
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, value in a.state_dict().items():
        assert value.dtype == b.state_dict()[name].dtype
        assert torch.equal(value, b.state_dict()[name]), name
