"""`mamba_ssm.utils.generation`: draw tokens from a model that keeps its states.

Source: `mamba-ssm` 2.3. Differs from it: CUDA graphs (`cg`) are refused; rows that only pad the
vocabulary are never drawn.

Axes: b batch, t time, v vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from longstate.interop.mamba_ssm.cache import InferenceParams
from longstate.interop.mamba_ssm.inputs import expect, expect_axes


@dataclass
class Generated:
    """Tokens (b, t) with the prompt, and the logits (b, v) of each new token, if requested."""

    sequences: Tensor
    scores: tuple[Tensor, ...] | None = None


def sample(
    logits: Tensor, top_k: int = 1, top_p: float = 0.0, min_p: float = 0.0, temperature: float = 1.0
) -> Tensor:
    """A token (b) for each row of logits (b, v).

    Args:
        logits (b, v): before the temperature.
        top_k: 1 takes the most likely token; k draws from the k most likely; 0: all.
        top_p: draw from the smallest set with this total probability; 0 or 1: all.
        min_p: only tokens with this share of the largest probability; 0: all. Instead of `top_p`.
        temperature: of the distribution.
    """
    expect(0 <= top_p <= 1, f"top_p must be from 0 to 1; got {top_p}")
    if top_k == 1:
        return logits.argmax(dim=-1)
    expect(temperature > 0, f"temperature must be above 0; got {temperature}")
    scaled = logits / temperature
    if top_k > 0:
        least = scaled.topk(min(top_k, scaled.shape[-1]), dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    chance = scaled.softmax(dim=-1)
    if min_p > 0:
        chance = chance.masked_fill(chance < min_p * chance.amax(-1, keepdim=True), 0)
    elif 0 < top_p < 1:
        ordered, places = chance.sort(dim=-1, descending=True)
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, 0)
        chance = torch.zeros_like(chance).scatter(-1, places, ordered)
    return torch.multinomial(chance, num_samples=1)[:, 0]


@torch.inference_mode()
def decode(
    input_ids: Tensor,
    model: nn.Module,
    max_length: int,
    top_k: int = 1,
    top_p: float = 0.0,
    min_p: float = 0.0,
    temperature: float = 1.0,
    repetition_penalty: float = 1.0,
    eos_token_id: int | None = None,
    teacher_outputs: Tensor | None = None,
    vocab_size: int | None = None,
    cg: bool = False,
    enable_timing: bool = False,
    output_scores: bool = False,
    streamer: Any = None,
) -> Generated:
    """Generate tokens after a prompt, one by one.

    Args:
        input_ids (b, t): the prompt.
        model: takes `inference_params`, `position_ids` and `num_last_tokens`, as MambaLMHeadModel.
        max_length: number of all tokens, the prompt included.
        top_k, top_p, min_p, temperature: see `sample`.
        repetition_penalty: divides positive and multiplies negative logits of earlier tokens.
        eos_token_id: ends generation when all rows draw it at the same time.
        teacher_outputs (b, max_length): tokens that are used instead of drawn ones.
        vocab_size: number of logits to use; that of `model.config` when None.
        cg: not supported; there are no CUDA graphs.
        enable_timing: as published; it has no effect here.
        output_scores: whether to return logits.
        streamer: `put` is called with the prompt and with each token, then `end()`.
    """
    expect(not cg, "cg=True is not supported by longstate: leave it out")
    expect_axes("input_ids", input_ids, "batch, time")
    if vocab_size is None:
        vocab_size = getattr(getattr(model, "config", None), "vocab_size", None)
    params = InferenceParams(max_seqlen=max_length, max_batch_size=len(input_ids))
    sequences, new, scores = input_ids, input_ids, []
    if streamer is not None:
        streamer.put(input_ids.cpu())
    while sequences.shape[1] < max_length:
        logits = _next_logits(model, new, params)[:, :vocab_size]
        scores.append(logits)
        if teacher_outputs is not None and teacher_outputs.shape[1] > sequences.shape[1]:
            drawn = teacher_outputs[:, sequences.shape[1]]
        else:
            logits = _penalised(logits, sequences, repetition_penalty)
            drawn = sample(logits, top_k, top_p, min_p, temperature)
        new = drawn[:, None]
        sequences = torch.cat([sequences, new], dim=1)
        if streamer is not None:
            streamer.put(new.cpu())
        if eos_token_id is not None and bool((drawn == eos_token_id).all()):
            break
    if streamer is not None:
        streamer.end()
    return Generated(sequences, tuple(scores) if output_scores else None)


def _next_logits(model: nn.Module, new: Tensor, params: InferenceParams) -> Tensor:
    """Logits (b, v) after the tokens new (b, t); the states in `params` are updated."""
    at = params.seqlen_offset
    positions = torch.full_like(new, at) if at else None
    found = model(new, position_ids=positions, inference_params=params, num_last_tokens=1)
    params.seqlen_offset += new.shape[1]
    return found.logits[:, -1]


def _penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    if penalty == 1:
        return logits
    found = logits.gather(1, seen)
    return logits.scatter(1, seen, torch.where(found < 0, found * penalty, found / penalty))


class GenerationMixin:
    """`generate` for a model that `decode` can call."""

    def generate(
        self,
        input_ids: Tensor,
        max_length: int,
        top_k: int = 1,
        top_p: float = 0.0,
        min_p: float = 0.0,
        temperature: float = 1.0,
        return_dict_in_generate: bool = False,
        output_scores: bool = False,
        **kwargs: Any,
    ) -> Tensor | Generated:
        """Tokens with the prompt (b, t); arguments are those of `decode`."""
        found = decode(
            input_ids, self, max_length, top_k=top_k, top_p=top_p, min_p=min_p,  # type: ignore[arg-type]
            temperature=temperature, output_scores=output_scores, **kwargs,
        )  # fmt: skip
        return found if return_dict_in_generate else found.sequences
