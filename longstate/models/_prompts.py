"""Checks of the arguments of `generate`: prompts, stop tokens and strings, seeds."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longstate.errors import InputError


def check_prompts(
    prompts: Sequence[Sequence[int] | Tensor] | Tensor, vocabulary: int
) -> list[Tensor]:
    if isinstance(prompts, str) or not len(prompts):
        raise InputError("prompts must be a list of lists of tokens, at least one")
    texts = []
    for i, prompt in enumerate(prompts):
        try:
            listed = prompt.tolist() if isinstance(prompt, Tensor) else prompt
            tokens = [operator.index(t) for t in listed]
        except TypeError:
            raise InputError(
                f"prompt {i} must be a list of tokens, which are whole numbers; got {prompt!r:.60}"
            ) from None
        if not tokens:
            raise InputError(f"prompt {i} is empty; give it at least one token")
        strange = min(tokens) if min(tokens) < 0 else max(tokens)
        if not 0 <= strange < vocabulary:
            raise InputError(
                f"prompt {i} holds token {strange}; the vocabulary has 0 to {vocabulary - 1}"
            )
        texts.append(torch.tensor(tokens))
    return texts


def check_stops(tokens: Any, strings: Any, decode: object) -> None:
    if tokens is not None and not (
        isinstance(tokens, Sequence) and all(isinstance(t, int) for t in tokens)
    ):
        raise InputError(f"stop_tokens must be a list of tokens; got {tokens!r}")
    listed = isinstance(strings, Sequence) and not isinstance(strings, str)
    if not (listed and all(isinstance(s, str) and s for s in strings)):
        raise InputError(f"stop_strings must be a list of strings, none empty; got {strings!r}")
    if strings and decode is None:
        raise InputError("stop_strings need decode, which turns tokens into text")


def generators(seed: int | Sequence[int], rows: int) -> list[torch.Generator]:
    seeds = [seed + i for i in range(rows)] if isinstance(seed, int) else seed
    if not isinstance(seeds, Sequence) or len(seeds) != rows:
        raise InputError(f"seed must be one number or one for each of {rows} prompts; got {seed!r}")
    try:
        return [torch.Generator().manual_seed(s) for s in seeds]
    except (RuntimeError, TypeError, ValueError):
        raise InputError(f"seed must be whole numbers of 64 bits; got {seed!r}") from None
