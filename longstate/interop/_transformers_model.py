"""Language models of longstate in `transformers`: `AutoModelForCausalLM`, `generate`, Trainer.

    register_transformers()
    LongstateForCausalLM.from_longstate(model).save_pretrained("folder")
    model = AutoModelForCausalLM.from_pretrained("folder")
    model.to_longstate()                                        # the LanguageModel

A program in an environment with longstate that does not import it loads the same folder with
`trust_remote_code=True`. PEFT, TRL, lm-eval and pipelines work with these models as with others.
`attention_mask` marks padding, in any place: each row of a padded batch gives the same result as
the row alone, in training and in `generate`, padded on the left or on the right. A position of 0 in
`position_ids` begins another text, so that several texts can be packed into one row.

Axes: b batch, t time, v vocabulary, d channels.
"""

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from longstate.interop._transformers_base import (
    LongstateModel,
    LongstatePreTrained,
    Past,
    new_model,
)
from longstate.interop._transformers_config import LongstateConfig
from longstate.interop._transformers_inputs import (
    existing_tokens,
    first_tokens,
    last_of_each_row,
    packed_positions,
    predicted_labels,
    the_input,
)
from longstate.models import LanguageModel
from longstate.models._language import logits, tied_logits


def register_transformers() -> None:
    """Register model_type "longstate" for `AutoConfig`, `AutoModel` and `AutoModelForCausalLM`.

    It can be called several times. Trainer then applies no weight decay to parameters marked with
    `_no_weight_decay`.

    Raises:
        ImportError: transformers is not installed.
    """
    AutoConfig.register(LongstateConfig.model_type, LongstateConfig, exist_ok=True)
    AutoModel.register(LongstateConfig, LongstateModel, exist_ok=True)
    AutoModelForCausalLM.register(LongstateConfig, LongstateForCausalLM, exist_ok=True)


class LongstateForCausalLM(LongstatePreTrained, GenerationMixin):
    """A `LanguageModel` with the methods that transformers, Trainer, PEFT and lm-eval call.

    `model` is the model without its head, `lm_head` the head; with tied weights it has those of the
    embedding.

    Args:
        config: sizes and layers.
        model: its weights are shared and not copied. None: a new model.
    """

    accepts_loss_kwargs = True
    _tied_weights_keys = {"lm_head.weight": "model.embedding.weight"}  # noqa: RUF012

    def __init__(self, config: LongstateConfig, model: LanguageModel | None = None):
        super().__init__(config)
        source = new_model(config.spec()) if model is None else model
        self.model = LongstateModel(config, source)
        self.lm_head = _tied_head(source.embedding) if source.head is None else source.head
        if type(self.lm_head) is not nn.Linear:  # of a model prepared for decoding: a copy
            self._tied_weights_keys = {}
        self.post_init()

    @classmethod
    def from_longstate(cls, model: LanguageModel) -> "LongstateForCausalLM":
        """Wrap a model that was trained or loaded; its modules are shared and not copied.

        Args:
            model: any `LanguageModel`, for example from `longstate.load` or
                `longstate.interop.load_language_model`. A model that was prepared for decoding can
                generate and be evaluated, but not saved; save the original model.
        """
        return cls(LongstateConfig.from_spec(model.spec), model).train(model.training)

    def to_longstate(self) -> LanguageModel:
        """The `LanguageModel` of these modules: its weights are shared and not copied."""
        tied = self.config.tie and type(self.lm_head) is nn.Linear
        return LanguageModel.of_parts(self.model, None if tied else self.lm_head)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        cu_seq_lens_q: Tensor | None = None,
        cu_seq_lens_k: Tensor | None = None,
        max_length_q: int | None = None,
        max_length_k: int | None = None,
        seq_idx: Tensor | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits, loss, and the states.

        Args:
            input_ids (b, t): tokens.
            attention_mask (b, t): 1 for tokens, 0 at padding; bool, integer or floating-point. With
                a past, columns for its tokens may come first.
            position_ids (b, t): a text begins where they are 0; then they increase by 1.
            past_key_values: of an earlier output. None: zero states.
            inputs_embeds (b, t, d): embeddings, instead of `input_ids`.
            labels (b, t): the tokens; the loss leaves out -100, padding, the token after padding,
                and the first token of a text after another one.
            use_cache: whether to return the states. None: unless in training mode.
            output_attentions: refused, because there are none.
            output_hidden_states: whether to return the input of each block.
            logits_to_keep: 1 gives the logits after the last unmasked token of each row; 0 all;
                n the last n; or indices.
            return_dict: False gives a tuple.
            num_items_in_batch: divisor of the summed loss, instead of a mean.
            cu_seq_lens_q (n + 1): where packed texts begin, if there are no `position_ids`.
            cu_seq_lens_k, max_length_q, max_length_k: not used; collators for flash-attention give
                them.
            seq_idx (b, t): the number of the text that a token belongs to; used if there are
                neither `position_ids` nor `cu_seq_lens_q`.

        Returns:
            loss: mean over the predicted tokens, in nats, if labels were given.
            logits (b, t, v): float32 at least; 0 at padding.
            past_key_values: the states.
            hidden_states: see `LongstateModel.forward`.

        Raises:
            ValueError: an argument is missing, refused, or does not fit.
        """
        given = the_input(input_ids, inputs_embeds)
        position_ids = packed_positions(position_ids, cu_seq_lens_q, seq_idx, given)
        inner = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        x = inner.last_hidden_state
        before = 0 if past_key_values is None else past_key_values.length
        mask = existing_tokens(attention_mask, given, before)
        if labels is None and isinstance(logits_to_keep, int) and logits_to_keep == 1:
            x = last_of_each_row(x, mask)
        logits, loss = self._logits(x), None
        if labels is not None:
            labels = predicted_labels(labels, given, mask, first_tokens(position_ids, given, mask))
            loss = self.loss_function(
                logits, labels, self.config.vocab_size, num_items_in_batch=num_items_in_batch
            )
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=_kept(logits, logits_to_keep),
            past_key_values=inner.past_key_values,
            hidden_states=inner.hidden_states,
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def _logits(self, x: Tensor) -> Tensor:
        """Logits. If an adapter has separated tied weights, those of the embedding are used."""
        embedding, head = self.model.embedding, self.lm_head
        tied = self.config.tie and type(head) is nn.Linear and not head.weight.is_meta
        one = type(embedding) is nn.Embedding and embedding.weight is head.weight
        if tied and not one:
            return tied_logits(x, embedding, self.model.spec)
        return logits(x, head, self.model.spec)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor | None = None,
        tokenizer: Any = None,
        position_ids: Any = None,
        **kwargs: Any,  # under this name: generate then asks forward what it takes
    ) -> dict[str, Any]:
        """As for every model, without the positions that other models need."""
        prepare: Any = GenerationMixin.prepare_inputs_for_generation
        return prepare(self, input_ids, inputs_embeds=inputs_embeds, **kwargs)

    def _reorder_cache(self, past: Past, beam_idx: Tensor) -> Past:
        """The states in the order of the selected beams."""
        return Past(tree_map(lambda s: s.index_select(0, beam_idx), past.states), past.length)


def _kept(logits: Tensor, which: int | Tensor) -> Tensor:
    """The last `which` of logits (b, t, v) along time, all for 0; or those at the indices."""
    if isinstance(which, Tensor):
        return logits[:, which]
    return logits[:, -which:] if which else logits


def _tied_head(embedding: nn.Embedding) -> nn.Linear:
    rows, d = embedding.weight.shape
    head = nn.Linear(d, rows, bias=False, device="meta")
    head.weight = embedding.weight
    return head
