"""Our language models as models of `transformers`: `AutoModelForCausalLM`, `generate`, Trainer.

    register_transformers()
    LongstateForCausalLM.from_longstate(model).save_pretrained("folder")
    model = AutoModelForCausalLM.from_pretrained("folder")      # model.model is the LanguageModel

PEFT, lm-eval (`HFLM(pretrained=model, tokenizer=...)`) and pipelines take them as they take any
other. `attention_mask` says which tokens exist, wherever the padding is: each row of a padded batch
gives what it gives alone, in training and in `generate`, padded on the left or on the right.

Axes: b batch, t time, v vocabulary.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from longstate.errors import InputError
from longstate.interop._transformers_config import LongstateConfig
from longstate.layers._base import State
from longstate.models import LanguageModel, LanguageSpec


def register_transformers() -> None:
    """Let `AutoConfig` and `AutoModelForCausalLM` know model_type "longstate". Harmless twice.

    Raises:
        ImportError: transformers is not installed.
    """
    AutoConfig.register(LongstateConfig.model_type, LongstateConfig, exist_ok=True)
    AutoModelForCausalLM.register(LongstateConfig, LongstateForCausalLM, exist_ok=True)


@dataclass
class Past:
    """What a model has read: `past_key_values` of an output, and of a later call.

    No call changes it, so that one past can be continued many times.

    Args:
        states: one for each block, batch first.
        length: tokens read, padding included.
    """

    states: list[State]
    length: int
    is_compileable = False
    is_croppable = False

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens read; `generate` asks under this name."""
        return self.length


class LongstateForCausalLM(PreTrainedModel, GenerationMixin):
    """A `LanguageModel` with the methods that transformers, Trainer, PEFT and lm-eval call.

    Args:
        config: sizes and layers.
        model: with its weights, which are shared and not copied; a new one when None.
    """

    config: LongstateConfig
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _is_stateful = True  # no way back to an earlier token: generate refuses to speculate
    _no_split_modules = ["Block"]  # noqa: RUF012

    def __init__(self, config: LongstateConfig, model: LanguageModel | None = None):
        super().__init__(config)
        self.model = _new(config.spec()) if model is None else model
        self.gradient_checkpointing = False
        self.post_init()

    @classmethod
    def from_longstate(cls, model: LanguageModel) -> "LongstateForCausalLM":
        """Wrap a model that was trained or loaded; `.model` is the same object.

        Args:
            model: from `longstate.train.text.load`, `longstate.interop.load_language_model`, or
                anywhere. One that was prepared for decoding generates and is evaluated, but save
                the one that it was made from.
        """
        return cls(LongstateConfig.from_spec(model.spec), model).train(model.training)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits, loss, and what has been read.

        Args:
            input_ids (b, t): tokens.
            attention_mask (b, t): 1 where a token exists, 0 at padding; bool, whole or
                floating-point. With a past, columns for its tokens may precede.
            past_key_values: of an earlier output; nothing when None.
            inputs_embeds, output_attentions, output_hidden_states: refused; there are none.
            labels (b, t): the tokens; -100 is not predicted, and neither is padding, nor anything
                from padding.
            use_cache: whether to return the past. None: unless in training mode.
            logits_to_keep: 1 gives those after the last token of each row that exists, wherever the
                padding is; 0 all; n the last n; or indices.
            return_dict: False gives a tuple.
            num_items_in_batch: what the summed loss is divided by, in place of a mean.

        Returns:
            loss: mean over the predicted tokens, in nats, where labels were given.
            logits (b, t, v): float32 at least; 0 at padding.
            past_key_values: what has been read.

        Raises:
            ValueError: an argument is missing, refused, or does not fit.
        """
        if input_ids is None or inputs_embeds is not None:
            raise InputError("a longstate model reads input_ids; it takes no inputs_embeds")
        if output_attentions or output_hidden_states:
            raise InputError("a longstate model gives no attentions and no hidden states")
        if not isinstance(past_key_values, Past | None):
            raise InputError(
                "past_key_values must come from an earlier output of this model; got "
                f"{type(past_key_values).__name__}"
            )
        if labels is not None and labels.shape != input_ids.shape:
            raise InputError(
                f"labels must have the shape of input_ids, {tuple(input_ids.shape)}; got "
                f"{tuple(labels.shape)}"
            )
        mask = _existing(attention_mask, input_ids, past_key_values)
        last = labels is None and isinstance(logits_to_keep, int) and logits_to_keep == 1
        logits, states = self._read(input_ids, mask, past_key_values, last)
        loss = None
        if labels is not None:
            targets = labels if mask is None else _predicted(labels, mask)
            loss = self.loss_function(
                logits, targets, self.config.vocab_size, num_items_in_batch=num_items_in_batch
            )
        if isinstance(logits_to_keep, Tensor):
            logits = logits[:, logits_to_keep]
        elif logits_to_keep:
            logits = logits[:, -logits_to_keep:]
        before = 0 if past_key_values is None else past_key_values.length
        keep = not self.training if use_cache is None else use_cache
        past: Any = Past(states, before + input_ids.shape[1]) if keep else None
        output = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past)
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def _read(
        self, tokens: Tensor, mask: Tensor | None, past: Past | None, last: bool
    ) -> tuple[Tensor, list[State]]:
        """Logits (b, t, v), or (b, 1, v) of the `last` tokens only, and the states."""
        if last and mask is not None and not bool(mask.any(dim=1).all()):
            row = int(mask.any(dim=1).int().argmin())
            raise InputError(
                f"row {row} of attention_mask is all 0: without a token there is no next one"
            )
        states = None if past is None else past.states
        if past is not None and tokens.shape[1] == 1:
            here = None if mask is None else mask[:, 0]
            logits, states = self.model.step(tokens[:, 0], states, mask=here)
        elif last:
            logits, states = self.model.prefill(tokens, states, mask=mask)
        else:
            return self.model(tokens, states, mask=mask)
        return logits[:, None], states

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embedding

    def get_output_embeddings(self) -> nn.Module | None:
        """None where the head uses the weights of the embedding."""
        return self.model.head

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        raise InputError(
            "the vocabulary of a longstate model cannot be resized; padding needs no token of its "
            "own: any one will do where attention_mask is 0"
        )

    def init_weights(self) -> None:
        """Nothing: a `LanguageModel` is made with its initial values."""

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """Give what a checkpoint lacks the values of a new model; transformers names it."""
        lacking = {
            name: p
            for name, p in self.named_parameters()
            if not getattr(p, "_is_hf_initialized", False)
        }
        new = dict(type(self)(self.config).named_parameters()) if lacking else {}
        for name, p in lacking.items():
            p.copy_(new[name])

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Any = checkpoint,
        every_n_layers: int = 1,
    ) -> None:
        """Have blocks compute again in the backward pass, instead of keeping what they computed."""
        if getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant"):
            raise InputError("checkpointing a longstate model needs use_reentrant=False")
        self.gradient_checkpointing = enable
        for i, block in enumerate(self.model.blocks):
            vars(block).pop("forward", None)
            if enable and i % every_n_layers == 0:
                block.forward = partial(gradient_checkpointing_func, block.forward)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """The first call of `generate` has no past; its output has."""
        return False

    def _reorder_cache(self, past: Past, beam_idx: Tensor) -> Past:
        """The past of each beam's best continuation."""
        return Past(tree_map(lambda s: s.index_select(0, beam_idx), past.states), past.length)


def _existing(given: Tensor | None, tokens: Tensor, past: Past | None) -> Tensor | None:
    """A bool tensor (b, t), False at padding; None where there is none."""
    if given is None or tokens.dim() != 2:
        return None
    b, t = tokens.shape
    whole = t if past is None else past.length + t
    if given.shape not in ((b, t), (b, whole)):
        raise InputError(
            f"attention_mask must have shape {(b, t)}"
            + (f", or {(b, whole)} with the past" if past else "")
            + f"; got {tuple(given.shape)}"
        )
    mask = given[:, -t:]
    exists = mask != 0
    if torch.compiler.is_compiling():  # looking at values would stop a compiled graph
        return exists
    if not bool((exists == mask).all()):
        raise InputError("attention_mask must hold 0 and 1 only; it says which tokens exist")
    return None if bool(exists.all()) else exists


def _predicted(labels: Tensor, mask: Tensor) -> Tensor:
    """Labels (b, t), with -100 where the token or the one before it does not exist."""
    known = mask.clone()
    known[:, 1:] &= mask[:, :-1]
    return labels.masked_fill(~known, -100)


def _new(spec: LanguageSpec) -> LanguageModel:
    """A new model, its weights of the default type, which transformers sets to the one asked for.

    What sets decays and steps is never narrower than float32: it needs the digits.
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
