"""A language model without its head as a model of `transformers`, and the base of both classes.

Axes: b batch, t time, d channels.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import BaseModelOutputWithPast

from longstate.errors import InputError
from longstate.interop._transformers_config import LongstateConfig
from longstate.interop._transformers_inputs import (
    existing_tokens,
    first_tokens,
    packed_positions,
    the_input,
)
from longstate.interop._transformers_offload import is_offloaded, weights_in_place
from longstate.interop._transformers_training import honour_marks, mark_no_weight_decay
from longstate.layers._base import State
from longstate.models import Block, LanguageModel, LanguageSpec
from longstate.models._language import Trunk, wide

# name of an untied head in files of earlier versions
register_checkpoint_conversion_mapping(
    LongstateConfig.model_type, [WeightRenaming("model.head.weight", "lm_head.weight")], True
)


@dataclass
class Past:
    """The states after some tokens: `past_key_values` of an output, and of a later call.

    It is never changed in place, so that it can be continued several times.

    Args:
        states: one for each block, batch first.
        length: number of tokens read, padding included.
    """

    states: list[State]
    length: int
    is_compileable = False
    is_croppable = False

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of tokens read. `generate` calls this method."""
        return self.length


class LongstatePreTrained(PreTrainedModel):
    """Base of both classes: initialisation, loading, weight decay marks and checkpointing."""

    config: LongstateConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _is_stateful = True  # no way back to an earlier token, so no speculative decoding
    _no_split_modules = ["Block"]  # noqa: RUF012
    _input_embed_layer = "embedding"

    def post_init(self) -> None:
        super().post_init()
        honour_marks()
        mark_no_weight_decay(self)

    def init_weights(self) -> None:
        """Does nothing: a `LanguageModel` is built with its initial values."""

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """Initialise weights that a checkpoint lacks; transformers lists them."""
        lacking = {
            name: p
            for name, p in self.named_parameters()
            if not getattr(p, "_is_hf_initialized", False)
        }
        fresh = type(self)(self.config) if lacking else nn.Module()
        new = dict(fresh.named_parameters(remove_duplicate=False))
        for name, p in lacking.items():
            p.copy_(new[name])
        mark_no_weight_decay(self)  # loading has replaced the tensors

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Does nothing: the file beside the weights imports this class, so no code is copied."""

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Change the number of tokens, as for every model of transformers; without unused rows."""
        embedding = super().resize_token_embeddings(
            new_num_tokens, pad_to_multiple_of, mean_resizing
        )
        if new_num_tokens is not None or pad_to_multiple_of is not None:
            self.config.vocab_multiple = 1
            for module in self.modules():
                if isinstance(module, LongstateModel):
                    module.spec = self.config.spec()
        return embedding

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Any = checkpoint,
        every_n_layers: int = 1,
    ) -> None:
        """Recompute blocks in the backward pass instead of storing intermediate values."""
        if getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant"):
            raise InputError("checkpointing a longstate model needs use_reentrant=False")
        model = next(m for m in self.modules() if isinstance(m, LongstateModel))
        model.gradient_checkpointing = enable
        for i, block in enumerate(model.blocks):
            vars(block).pop("forward", None)
            if enable and i % every_n_layers == 0:
                block.forward = partial(gradient_checkpointing_func, block.forward)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """False: the first call of `generate` needs no cache; its output has one."""
        return False


class LongstateModel(Trunk, LongstatePreTrained):
    """A `LanguageModel` without its head, for `AutoModel` of transformers.

    Args:
        config: sizes and layers.
        model: its embedding, blocks and norm are shared and not copied. None: a new model.
    """

    _keys_to_ignore_on_load_unexpected = ["lm_head"]  # noqa: RUF012

    def __init__(self, config: LongstateConfig, model: LanguageModel | None = None):
        super().__init__(config)
        source = new_model(config.spec()) if model is None else model
        self.spec = source.spec
        self.embedding, self.blocks, self.norm = source.embedding, source.blocks, source.norm
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seq_lens_q: Tensor | None = None,
        cu_seq_lens_k: Tensor | None = None,
        max_length_q: int | None = None,
        max_length_k: int | None = None,
        seq_idx: Tensor | None = None,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """The input of the head, and the states.

        Args: as for `LongstateForCausalLM.forward`.

        Returns:
            last_hidden_state (b, t, d): of the type of the weights; 0 at padding.
            past_key_values: the states.
            hidden_states: if requested, the input of each block, and last_hidden_state.
        """
        if output_attentions:
            raise InputError("a longstate model has no attentions: leave output_attentions out")
        if not isinstance(past_key_values, Past | None):
            raise InputError(
                "past_key_values must come from an earlier output of this model; got "
                f"{type(past_key_values).__name__}"
            )
        given = the_input(input_ids, inputs_embeds)
        before = 0 if past_key_values is None else past_key_values.length
        states = None if past_key_values is None else past_key_values.states
        mask = existing_tokens(attention_mask, given, before)
        position_ids = packed_positions(position_ids, cu_seq_lens_q, seq_idx, given)
        reset = first_tokens(position_ids, given, mask)
        wanted = self.config.output_hidden_states
        wanted = wanted if output_hidden_states is None else output_hidden_states
        seen: list[Tensor] | None = [] if wanted else None
        x, states = self._read(given, states, mask, reset, seen)
        x = x.to(self.embedding.weight.dtype)
        keep = not self.training if use_cache is None else use_cache
        past: Any = Past(states, before + given.shape[1]) if keep else None
        output = BaseModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=past,
            hidden_states=None if seen is None else (*seen, x),
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def _read(
        self,
        given: Tensor,
        states: list[State] | None,
        mask: Tensor | None,
        reset: Tensor | None,
        seen: list[Tensor] | None,
    ) -> tuple[Tensor, list[State]]:
        """x (b, t, d) after the last norm, and the states. given: tokens (b, t), or vectors that
        replace their embeddings, (b, t, d)."""
        if given.is_floating_point() and given.dim() == 3:
            if given.shape[2] != self.config.d_model:
                raise InputError(
                    f"inputs_embeds must be (batch, time, {self.config.d_model}); got "
                    f"{tuple(given.shape)}"
                )
            self._check(given.new_zeros(given.shape[:2], dtype=torch.int64), states, mask, reset)
            x = given if mask is None else given.masked_fill(~mask[..., None], 0)
            x = wide(x) if self.spec.residual_in_float32 else x
        else:
            self._check(given, states, mask, reset)
            x = self._embed(given, mask)
        old = states or [None] * len(self.blocks)
        if states is None or x.shape[1] > 1 or seen is not None or is_offloaded(self):
            return self._run(x, old, None, mask, reset, seen=seen)
        now = None if mask is None else mask[:, 0], None if reset is None else reset[:, 0]
        y, new = self._step(x[:, 0], old, None, *now)
        return y[:, None], new

    def _call(
        self, block: Block, x: Tensor, state: State, call: dict[str, Any]
    ) -> tuple[Tensor, State]:
        with weights_in_place(block):
            return block(x, state, **call)


def new_model(spec: LanguageSpec) -> LanguageModel:
    """A new model with weights of the default type, which transformers sets to the requested type.

    Parameters of decays and steps are never narrower than float32, because they need the precision.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        model = LanguageModel(spec)
    finally:
        torch.set_default_dtype(dtype)
    for module in model.modules():
        wide = (*getattr(module, "dynamics", ()), "D")
        for name, p in module.named_parameters(recurse=False):
            p.data = p.data.to(torch.promote_types(p.dtype, dtype) if name in wide else dtype)
    return model
