"""`mamba_ssm.models` and `mamba_ssm.utils.hf`: language model, config and files of the package.

    x = embedding(tokens)
    x, residual = block(x, residual)            n times, see `block.py`
    logits = lm_head(norm_f(x + residual))

Source: `mamba-ssm` 2.3. `longstate.models.LanguageModel` is the same model with the interface of
longstate, and `longstate.interop.load_language_model` reads the same folders. Differs from the
package: files are read from a folder only, and pickles by a restricted reader only.

Axes: b batch, t time, v vocabulary, m channels.
"""

import json
import math
from collections import namedtuple
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longstate._files import writing
from longstate.errors import InputError
from longstate.interop.checkpoints.weights import read_json, read_weights
from longstate.interop.mamba_ssm.block import create_block
from longstate.interop.mamba_ssm.cache import InferenceParams
from longstate.interop.mamba_ssm.generation import GenerationMixin
from longstate.interop.mamba_ssm.residual_norm import RMSNorm

CausalLMOutput = namedtuple("CausalLMOutput", ["logits"])


@dataclass
class MambaConfig:
    """Sizes and layers of a `MambaLMHeadModel`, as in its `config.json`.

    Attributes:
        d_model: channels.
        d_intermediate: channels inside an MLP after every mixer; 0: none.
        n_layer: blocks.
        vocab_size: tokens.
        ssm_cfg: options of the mixers, see `create_block`.
        attn_layer_idx, attn_cfg: places of attention, and its options.
        rms_norm: whether norms are RMSNorm, and not LayerNorm.
        residual_in_fp32: whether the sum of the blocks is kept in float32.
        fused_add_norm: as published; it has no effect here.
        pad_vocab_size_multiple: divides the rows of the embedding.
        tie_embeddings: whether the head uses the weights of the embedding.
    """

    d_model: int = 2560
    d_intermediate: int = 0
    n_layer: int = 64
    vocab_size: int = 50277
    ssm_cfg: dict = field(default_factory=dict)
    attn_layer_idx: list = field(default_factory=list)
    attn_cfg: dict = field(default_factory=dict)
    rms_norm: bool = True
    residual_in_fp32: bool = True
    fused_add_norm: bool = True
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True


class MixerModel(nn.Module):
    """Embedding, blocks and the last norm. Arguments: see `create_block` and `MambaConfig`.

    `norm_epsilon` is added in norms; `initializer_cfg` holds `initializer_range` of the embedding,
    `rescale_prenorm_residual` and `n_residuals_per_layer`.
    """

    def __init__(
        self,
        d_model: int,
        n_layer: int,
        d_intermediate: int,
        vocab_size: int,
        ssm_cfg: dict[str, Any] | None = None,
        attn_layer_idx: list[int] | None = None,
        attn_cfg: dict[str, Any] | None = None,
        norm_epsilon: float = 1e-5,
        rms_norm: bool = False,
        initializer_cfg: dict[str, Any] | None = None,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
        device=None,
        dtype=None,
    ):
        super().__init__()
        like = {"device": device, "dtype": dtype}
        self.residual_in_fp32, self.fused_add_norm = residual_in_fp32, fused_add_norm
        self.embedding = nn.Embedding(vocab_size, d_model, **like)
        self.layers = nn.ModuleList(
            create_block(
                d_model, d_intermediate, ssm_cfg, attn_layer_idx, attn_cfg, norm_epsilon, rms_norm,
                residual_in_fp32, fused_add_norm, layer_idx, **like,
            )
            for layer_idx in range(n_layer)
        )  # fmt: skip
        self.norm_f = (RMSNorm if rms_norm else nn.LayerNorm)(d_model, eps=norm_epsilon, **like)
        added = {"n_residuals_per_layer": 2 if d_intermediate else 1, **(initializer_cfg or {})}
        self.apply(partial(_init_weights, n_layer=n_layer, **added))

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None
    ) -> dict[int, Any]:
        """Zero states of each layer, by its place."""
        layers: list[Any] = list(self.layers)
        return {
            i: layer.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype)
            for i, layer in enumerate(layers)
        }

    def forward(
        self,
        input_ids: Tensor,
        inference_params: InferenceParams | None = None,
        **mixer_kwargs: Any,
    ) -> Tensor:
        """Outputs (b, t, m), of the type of the weights, for tokens (b, t)."""
        x, residual = self.embedding(input_ids), None
        for layer in self.layers:
            x, residual = layer(x, residual, inference_params=inference_params, **mixer_kwargs)
        total = x if residual is None else x + residual
        return self.norm_f(total.to(self.norm_f.weight.dtype))


@torch.no_grad()
def _init_weights(
    module: nn.Module,
    n_layer: int,
    initializer_range: float = 0.02,
    rescale_prenorm_residual: bool = True,
    n_residuals_per_layer: int = 1,
) -> None:
    """Initial values of one module, for `model.apply`; last maps are scaled down, so that the sum
    of the blocks does not grow."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=initializer_range)
    bias = module.bias if isinstance(module, nn.Linear) else None
    if bias is not None and not getattr(bias, "_no_reinit", False):
        nn.init.zeros_(bias)
    if not rescale_prenorm_residual:
        return
    for name in ("out_proj", "fc2"):
        last = getattr(module, name, None)
        if isinstance(last, nn.Linear):
            nn.init.kaiming_uniform_(last.weight, a=math.sqrt(5))
            last.weight.div_(math.sqrt(n_residuals_per_layer * n_layer))


class MambaLMHeadModel(nn.Module, GenerationMixin):
    """The package's language model: `backbone`, a `MixerModel`, and `lm_head`.

    Args:
        config: sizes and layers.
        initializer_cfg: see `MixerModel`.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        config: MambaConfig,
        initializer_cfg: dict[str, Any] | None = None,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.config = config
        like = {"device": device, "dtype": dtype}
        multiple = config.pad_vocab_size_multiple
        rows = -(-config.vocab_size // multiple) * multiple
        self.backbone = MixerModel(
            config.d_model, config.n_layer, config.d_intermediate, rows, config.ssm_cfg,
            config.attn_layer_idx, config.attn_cfg, rms_norm=config.rms_norm,
            initializer_cfg=initializer_cfg, fused_add_norm=config.fused_add_norm,
            residual_in_fp32=config.residual_in_fp32, **like,
        )  # fmt: skip
        self.lm_head = nn.Linear(config.d_model, rows, bias=False, **like)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Use the weights of the embedding for the head, if the config says so."""
        if self.config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None
    ) -> dict[int, Any]:
        """Zero states of each layer, by its place."""
        return self.backbone.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        inference_params: InferenceParams | None = None,
        num_last_tokens: int = 0,
        **mixer_kwargs: Any,
    ) -> CausalLMOutput:
        """Logits (b, t, v) of tokens (b, t), as `.logits`; padded rows are included.

        `position_ids` are ignored, as published. `num_last_tokens`: for the last tokens; 0: all.
        """
        x = self.backbone(input_ids, inference_params=inference_params, **mixer_kwargs)
        if num_last_tokens > 0:
            x = x[:, -num_last_tokens:]
        return CausalLMOutput(logits=self.lm_head(x))

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name: str | Path, device=None, dtype=None, **kwargs: Any
    ) -> "MambaLMHeadModel":
        """Load the model in a folder with `config.json` and weights."""
        config = MambaConfig(**load_config_hf(pretrained_model_name))
        model = cls(config, device=device, dtype=dtype, **kwargs)
        model.load_state_dict(load_state_dict_hf(pretrained_model_name, device, dtype))
        return model

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `pytorch_model.bin` and `config.json` into a folder."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with writing(folder / "pytorch_model.bin") as file:
            torch.save(self.state_dict(), file)
        with writing(folder / "config.json") as file:
            file.write((json.dumps(asdict(self.config), indent=4) + "\n").encode())


def load_config_hf(model_name: str | Path) -> dict[str, Any]:
    """`config.json` of a folder."""
    return read_json(_folder(model_name) / "config.json")


def load_state_dict_hf(model_name: str | Path, device=None, dtype=None) -> dict[str, Tensor]:
    """Weights of a folder, on `device`, of type `dtype`."""
    tensors = read_weights(_folder(model_name))
    return {name: t.to(device=device, dtype=dtype) for name, t in tensors.items()}


def _folder(name: str | Path) -> Path:
    if Path(name).is_dir():
        return Path(name)
    raise InputError(
        f"{name} is not a folder, and longstate does not download: get the model with "
        f"huggingface_hub.snapshot_download({str(name)!r}) and pass the folder that it returns"
    )
