"""Generate text with a language model, in memory that does not grow with the length of the text.

Each prompt is read separately, in pieces. Then all rows advance one token at a time, and a row that
has ended is removed from the batch. No row is padded, and each has its own random generator, so the
tokens of a row do not depend on the other rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from longstate._nonfinite import first_bad
from longstate.errors import InputError, expect_whole
from longstate.layers._base import State
from longstate.models._language import LanguageModel
from longstate.models._prompts import check_prompts, check_stops, generators
from longstate.models._sampling import Sampling
from longstate.models._text_stream import TextStream

PIECE = 2048
"""Tokens of a prompt that are read in one call."""

Ended = Literal["length", "token", "text"]


class Piece(NamedTuple):
    """One generated token.

    Args:
        row: number of the prompt.
        token: the token.
        text: text that later tokens cannot change, often empty: an incomplete character, or what
            may be the beginning of a stop string, is held back. Always empty without `decode`.
        ended: why the row ends with this piece; None if it does not end.
    """

    row: int
    token: int
    text: str
    ended: Ended | None


class Generated(NamedTuple):
    """The continuation of a prompt.

    Args:
        tokens: without a stop token, but with the tokens of a stop string.
        text: up to a stop string; empty without `decode`.
        ended: the reason: "length" (max_tokens), "token" or "text" (a stop token or string).
    """

    tokens: list[int]
    text: str
    ended: Ended


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int] | Tensor] | Tensor,
    *,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop_tokens: Sequence[int] | None = None,
    stop_strings: Sequence[str] = (),
    decode: Callable[[list[int]], str] | None = None,
    seed: int | Sequence[int] = 0,
    state: list[State] | None = None,
    allowed_tokens: Sequence[int] | None = None,
    on_piece: Callable[[Piece], None] | None = None,
) -> list[Generated]:
    """Continue every prompt.

    Args:
        model: a language model.
        prompts: the tokens of each prompt, at least one; lengths may differ.
        max_tokens: maximum number of new tokens of each row.
        temperature: 0 takes the most likely token, 1 draws from the model's probabilities.
        top_k, top_p: draw from the `top_k` most likely tokens, and of these from the smallest set
            with a total probability of `top_p`.
        repetition_penalty: above 1 makes tokens of the prompt and of the text less likely.
        stop_tokens: tokens that end a row. None takes those of the model's description.
        stop_strings: strings that end a row; they need `decode`.
        decode: function from a list of tokens to text.
        seed: row i uses `seed + i`; or one seed for each row.
        state: state before the prompts, one row for each; zero when None.
        allowed_tokens: only these are drawn; a vocabulary may have rows without a token. None: all.
        on_piece: called with each new token.

    Raises:
        InputError: a setting or a prompt cannot be used, or the model gives logits that are not
            finite.
    """
    rows, new = _start(
        model, prompts, Sampling(temperature, top_k, top_p, repetition_penalty),
        max_tokens, stop_tokens, stop_strings, decode, seed, state, allowed_tokens,
    )  # fmt: skip
    for piece in new:
        if on_piece is not None:
            on_piece(piece)
    return [row.result() for row in rows]


def pieces(
    model: LanguageModel,
    prompts: Sequence[Sequence[int] | Tensor] | Tensor,
    *,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop_tokens: Sequence[int] | None = None,
    stop_strings: Sequence[str] = (),
    decode: Callable[[list[int]], str] | None = None,
    seed: int | Sequence[int] = 0,
    state: list[State] | None = None,
    allowed_tokens: Sequence[int] | None = None,
) -> Iterator[Piece]:
    """As `generate`, but yields each token. The arguments are checked before the first one."""
    return _start(
        model, prompts, Sampling(temperature, top_k, top_p, repetition_penalty),
        max_tokens, stop_tokens, stop_strings, decode, seed, state, allowed_tokens,
    )[1]  # fmt: skip


def _start(
    model: LanguageModel,
    prompts: Sequence[Sequence[int] | Tensor] | Tensor,
    settings: Sampling,
    max_tokens: int,
    stop_tokens: Sequence[int] | None,
    stop_strings: Sequence[str],
    decode: Callable[[list[int]], str] | None,
    seed: int | Sequence[int],
    state: list[State] | None,
    allowed_tokens: Sequence[int] | None,
) -> "tuple[list[_Row], Iterator[Piece]]":
    """The rows, and the iterator that fills them."""
    texts = check_prompts(prompts, model.spec.vocab_size)
    expect_whole("max_tokens", max_tokens)
    check_stops(stop_tokens, stop_strings, decode)
    allowed = None
    if allowed_tokens is not None:
        allowed = check_prompts([list(allowed_tokens)], model.spec.vocab_size)[0].unique()
    stops = model.spec.eos_tokens if stop_tokens is None else stop_tokens
    rows = [
        _Row(i, draw, None if decode is None else TextStream(decode, stop_strings), [])
        for i, draw in enumerate(generators(seed, len(texts)))
    ]
    end = _End(max_tokens, frozenset(stops), allowed)
    return rows, _run(model, texts, state, list(rows), settings, end)


@dataclass(frozen=True)
class _End:
    max_tokens: int
    stop_tokens: frozenset[int]
    allowed: Tensor | None


@dataclass
class _Row:
    number: int
    draw: torch.Generator
    text: TextStream | None
    tokens: list[int]
    ended: Ended | None = None

    def take(self, token: int, end: _End) -> Piece:
        text = ""
        if token in end.stop_tokens:
            self.ended = "token"
        else:
            self.tokens.append(token)
            text = "" if self.text is None else self.text.push(token)
            if len(self.tokens) >= end.max_tokens:
                self.ended = "length"
        if self.text is not None and self.ended is not None and not self.text.stopped:
            text += self.text.close()
        if self.text is not None and self.text.stopped:
            self.ended = "text"
        return Piece(self.number, token, text, self.ended)

    def result(self) -> Generated:
        assert self.ended is not None
        return Generated(self.tokens, "" if self.text is None else self.text.text, self.ended)


@torch.inference_mode()
def _run(
    model: LanguageModel,
    prompts: list[Tensor],
    state: list[State] | None,
    rows: list[_Row],
    settings: Sampling,
    end: _End,
) -> Iterator[Piece]:
    device = model.embedding.weight.device
    allowed = None if end.allowed is None else end.allowed.to(device)
    logits, state = _read(model, [p.to(device) for p in prompts], state)
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, prompt in zip(seen, prompts, strict=True):
        row[prompt.to(device)] = True
    while True:
        if not bool(logits.isfinite().all()):
            raise InputError(_blame(model, state))
        chosen = []
        for i, row in enumerate(rows):
            if allowed is None:
                token = settings.choose(logits[i], seen[i], row.draw)
            else:
                place = settings.choose(logits[i, allowed], seen[i, allowed], row.draw)
                token = int(allowed[place])
            seen[i, token] = True
            chosen.append(token)
            yield row.take(token, end)
        going = [i for i, row in enumerate(rows) if row.ended is None]
        if not going:
            return
        if len(going) < len(rows):
            rows = [rows[i] for i in going]
            seen, state = tree_map(lambda s, keep=going: s[keep], (seen, state))
        tokens = torch.tensor([chosen[i] for i in going], device=device)
        logits, state = model.step(tokens, state)


def _read(
    model: LanguageModel, prompts: list[Tensor], state: list[State] | None
) -> tuple[Tensor, list[State]]:
    """Logits (b, v) after every prompt, and the state of all."""
    if state is not None and any(len(s) != len(prompts) for s in tree_leaves(state)):
        rows = len(tree_leaves(state)[0])
        raise InputError(f"state must have one row for each of {len(prompts)} prompts; got {rows}")
    logits, states = [], []
    for i, prompt in enumerate(prompts):
        own = None if state is None else tree_map(lambda s, i=i: s[i : i + 1], state)
        for piece in prompt.split(PIECE):
            last, own = model.prefill(piece[None], own)
        logits.append(last)
        states.append(own)
    return torch.cat(logits), tree_map(_cat_rows, *states)


def _cat_rows(*parts: Tensor) -> Tensor:
    """Concatenate rows into one batch. States of shorter prompts are padded with zeros in front."""
    if parts[0].dim() > 1:
        longest = max(s.shape[1] for s in parts)
        parts = tuple(
            torch.cat([s.new_zeros(len(s), longest - s.shape[1], *s.shape[2:]), s], dim=1)
            if s.shape[1] < longest
            else s
            for s in parts
        )
    return torch.cat(parts)


def _blame(model: LanguageModel, state: list[State]) -> str:
    """A message that names the first tensor with a number that is not finite."""
    bad = first_bad(model.named_parameters())
    if bad is not None:
        return f"the logits are not finite, because {bad} is not finite"
    layers = model.spec.layers
    bad = first_bad((f"block {i} ({layers[i]})", own) for i, own in enumerate(state))
    if bad is not None:
        return f"the logits are not finite: the state of {bad} has overflowed"
    return "the logits are not finite, although the weights and the states are finite"
