"""Tiny random models of the ten families, and helpers of several tests."""

import importlib
import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")
transformers.logging.set_verbosity_error()

_ALL = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": None,
}  # fmt: skip
_ATTENTION = {
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 128,
}  # fmt: skip
_MAMBA2 = {
    "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_d_head": 16,
    "mamba_n_heads": 4, "mamba_n_groups": 2, "mamba_chunk_size": 8,
}  # fmt: skip

MAMBA1 = ("mamba", "falcon_mamba", "jamba", "zamba")
FAMILIES = {
    "mamba": ("Mamba", {"state_size": 8, "use_bias": True}),
    "falcon_mamba": ("FalconMamba", {"state_size": 8, "time_step_rank": 8}),
    "jamba": ("Jamba", _ATTENTION | {
        "mamba_d_state": 8, "mamba_dt_rank": 8, "attn_layer_period": 2, "attn_layer_offset": 1,
        "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 2,
    }),
    "zamba": ("Zamba", _ATTENTION | {
        "num_hidden_layers": 3, "layers_block_type": ["hybrid", "mamba", "hybrid"],
        "mamba_d_state": 8, "mamba_dt_rank": 8, "n_mamba_heads": 2,
    }),
    "mamba2": ("Mamba2", {
        "state_size": 16, "head_dim": 16, "num_heads": 4, "n_groups": 2, "chunk_size": 8,
        "time_step_limit": (0.0, 0.05),
    }),
    "bamba": ("Bamba", _ATTENTION | _MAMBA2 | {"attn_layer_indices": [1]}),
    "zamba2": ("Zamba2", _ATTENTION | {
        "layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1, "mamba_d_state": 16,
        "mamba_ngroups": 2, "n_mamba_heads": 4, "mamba_headdim": 16, "chunk_size": 8,
    }),
    "falcon_h1": ("FalconH1", _ATTENTION | _MAMBA2 | {"mamba_d_ssm": 64}),
    "granitemoehybrid": ("GraniteMoeHybrid", _ATTENTION | _MAMBA2 | {
        "layer_types": ["mamba", "attention"], "num_local_experts": 2, "num_experts_per_tok": 2,
        "shared_intermediate_size": 32,
    }),
    "nemotron_h": ("NemotronH", _ATTENTION | {
        "layers_block_type": ["mamba", "attention"], "ssm_state_size": 16, "mamba_num_heads": 4,
        "mamba_head_dim": 16, "n_groups": 2, "chunk_size": 8, "conv_kernel": 4,
    }),
}  # fmt: skip


def build(family: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model in which every weight has an effect: none is zero or has a small initial scale."""
    name, sizes = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**_ALL | sizes)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for key, p in model.named_parameters():
            noise = torch.randn(p.shape)
            if p.dim() == 1 or key.endswith(("A_log", ".D", "dt_proj_bias")):
                p.add_(0.3 * noise)
            else:
                p.copy_(noise * (2 if key.endswith("conv1d.weight") else p.shape[-1]) ** -0.5)
    return model.to(dtype)


def tokens(batch: int = 2, length: int = 37) -> Tensor:
    return torch.randint(2, 61, (batch, length), generator=torch.Generator().manual_seed(7))


def left_padded(ids: Tensor, missing: int = 5) -> dict[str, Tensor]:
    """Mask the first tokens of the last row."""
    mask = torch.ones_like(ids)
    mask[-1, :missing] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def modeling(family: str) -> ModuleType:
    return importlib.import_module(f"transformers.models.{family}.modeling_{family}")


def forbid_originals(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the family's own functions fail when they are called, until they are replaced.

    For what runs on several PyTorch calls and not on an op that could be counted.
    """

    def stand_in(original):
        signature = inspect.signature(original)

        def forbidden(*args, **options):
            raise AssertionError(f"transformers' own {original.__name__} was called")

        forbidden.__signature__ = signature
        return forbidden

    module = modeling(family)
    for name in vars(module).copy():
        if name.startswith(("causal_conv1d_", "mamba_", "mamba2_")):
            monkeypatch.setattr(module, name, stand_in(getattr(module, name)))


def results(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Logits of real tokens and the gradients of all parameters, in training mode."""
    model.train()
    model.zero_grad()
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    out = model(**inputs, labels=ids if mask is None else ids.masked_fill(mask == 0, -100))
    out.loss.backward()
    logits = out.logits if mask is None else out.logits[mask.bool()]
    found = {"logits": logits.detach()}
    return found | {k: p.grad for k, p in model.named_parameters() if p.grad is not None}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare to 1e-5 of the largest value, as documented for `accelerate_transformers`."""
    assert actual.keys() == expected.keys()
    for key, x in expected.items():
        gap, largest = (actual[key] - x).abs().max(), x.abs().max()
        assert gap <= 1e-5 * largest, (
            f"{key} differs by {gap:.1e}; its largest value is {largest:.1e}"
        )


class _Count(TorchDispatchMode):
    def __init__(self, counts: Counter):
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op.namespace == "longstate":
            self.counts[op._opname] += 1
        return op(*args, **(kwargs or {}))


@contextmanager
def counting_kernels() -> Iterator[Counter]:
    """Count the calls of each op of longstate, to show that transformers' own code did not run."""
    counts: Counter = Counter()
    with _Count(counts):
        yield counts
