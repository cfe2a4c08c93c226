"""The training task of a language model: batches of windows at random positions, and the loss.

    loss = mean over tokens of -log p(next)                                   nats per token
    bits per byte = loss * tokens of the validation text / its bytes / ln 2   validation
    perplexity = exp(loss)                                                    per token

Every window starts from a zero state. Bits per byte can be compared between tokenizers.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.errors import InputError
from longstate.models import LanguageModel
from longstate.train._corpus import Corpus
from longstate.train._settings import Training

VALIDATION_TOKENS = 1 << 16
"""Tokens of one validation, at most; with more text, evenly spaced windows are used."""
VALIDATION_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class TextScore:
    """Scores of a model's predictions for a text.

    Args:
        bits_per_byte: can be compared between models with different tokenizers.
        perplexity: per token.
        tokens, bytes: of the text.
    """

    bits_per_byte: float
    perplexity: float
    tokens: int
    bytes: int


class TextTask:
    """A `Task` for the loop. Its epochs are the intervals between two evaluations.

    Args:
        model: the model to train.
        corpus: the text.
        context: tokens of a window.
        steps: of all epochs together, distributed evenly.
        settings: number of epochs and batch size.
        seed: of the positions of the windows.
    """

    def __init__(
        self,
        model: LanguageModel,
        corpus: Corpus,
        context: int,
        *,
        steps: int,
        settings: Training,
        seed: int,
    ):
        self.model, self.corpus, self.context, self.seed = model, corpus, context, seed
        self.batch_size = settings.batch_size
        self._cuts = np.linspace(0, steps, settings.epochs + 1).astype(int)

    def epoch(self, epoch: int) -> list[np.ndarray]:
        steps = int(self._cuts[epoch + 1] - self._cuts[epoch])
        draw = np.random.default_rng([self.seed, epoch])
        places = self.corpus.train - self.context
        return list(draw.integers(0, places, size=(steps, self.batch_size)))

    def loss(self, indices: np.ndarray) -> Tensor:
        return self._losses(indices, self.context).mean()

    def read(self, indices: np.ndarray) -> Tensor:
        logits, _ = self.model(_windows(self.corpus, indices, self.context))
        return logits

    def validate(self) -> float:
        """Bits per byte of the validation part."""
        corpus, first, last = self.corpus, self.corpus.train, self.corpus.tokens
        loss = text_loss(self.model, corpus, first, last, self.context, most=VALIDATION_TOKENS)
        return loss / corpus.bytes_per_token / math.log(2)

    def perplexity(self, bits_per_byte: float) -> float:
        """Perplexity per token, from the result of `validate`."""
        return perplexity(bits_per_byte * math.log(2) * self.corpus.bytes_per_token)

    def _losses(self, starts: np.ndarray, length: int) -> Tensor:
        return _losses(self.model, self.corpus, starts, length)


def text_loss(
    model: LanguageModel,
    corpus: Corpus,
    first: int,
    last: int,
    context: int,
    *,
    most: int | None = None,
) -> float:
    """Mean loss per token of a part of the text, in windows that start from a zero state.

    Args:
        model: in evaluation mode, gradients off.
        corpus: the text.
        first, last: begin and end of the part, in tokens; at least two tokens.
        context: tokens of a window.
        most: number of tokens, about; if the part has more, evenly spaced windows are evaluated.
    """
    length = min(context, last - first - 1)
    starts = np.arange(first, last - 1, length)
    windows = len(starts) if most is None else max(1, most // length)
    if len(starts) > windows:
        starts = starts[np.linspace(0, len(starts) - 2, windows).astype(int)]
    total, count = 0.0, 0
    whole = starts[starts + length < last]
    rows = max(1, VALIDATION_AT_ONCE // length)
    for part in np.array_split(whole, -(-len(whole) // rows)):
        losses = _losses(model, corpus, part, length)
        total, count = total + float(losses.double().sum()), count + losses.numel()
    if starts[-1] + length >= last:  # the rest, shorter than the others
        losses = _losses(model, corpus, starts[-1:], last - 1 - int(starts[-1]))
        total, count = total + float(losses.double().sum()), count + losses.numel()
    return total / count


@torch.no_grad()
def score_text(model: LanguageModel, corpus: Corpus, context: int) -> TextScore:
    """Score the whole text, not only its validation part.

    Raises:
        InputError: the text has fewer than two tokens.
    """
    if corpus.tokens < 2:
        raise InputError(f"the text has {corpus.tokens} tokens; a score needs 2 or more")
    nats = text_loss(model, corpus, 0, corpus.tokens, context)
    bits = nats * corpus.tokens / corpus.bytes / math.log(2)
    return TextScore(bits, perplexity(nats), corpus.tokens, corpus.bytes)


def perplexity(nats: float) -> float:
    """Perplexity from a mean loss per token; infinite if it overflows."""
    return math.exp(nats) if nats < 700 else math.inf


def _losses(model: LanguageModel, corpus: Corpus, starts: np.ndarray, length: int) -> Tensor:
    """Losses (b * length) of the tokens after the first one in the windows at `starts`."""
    tokens = _windows(corpus, starts, length + 1)
    logits, _ = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")


def _windows(corpus: Corpus, starts: np.ndarray, length: int) -> Tensor:
    """Tokens (b, length) at `starts`."""
    return torch.from_numpy(np.stack([corpus.window(int(s), length) for s in starts]))
