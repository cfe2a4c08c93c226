"""Learning to predict the next token: batches of windows at random places, and the loss.

    loss = mean over tokens of -log p(next)                                   nats per token
    bits per byte = loss * tokens of the validation text / its bytes / ln 2   validation
    perplexity = exp(loss)                                                    per token

Every window begins from a state of zero. Bits per byte compare models with different tokenizers.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.models import LanguageModel
from longstate.train.corpus import Corpus
from longstate.train.settings import Training

VALIDATION_TOKENS = 1 << 16
"""Validated at each look, at most: evenly spaced windows where the text has more."""
VALIDATION_AT_ONCE = 1 << 12


class TextTask:
    """A `Task` for the loop. Its epochs are what lies between two looks at the validation part.

    Args:
        model: what is trained.
        corpus: the text.
        context: tokens of a window.
        steps: of all epochs, evenly shared out.
        settings: number of epochs and batch size.
        seed: of the places of the windows.
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

    def validate(self) -> float:
        """Bits per byte of the validation part."""
        first, last = self.corpus.train, self.corpus.tokens
        length = min(self.context, last - first - 1)
        starts = np.arange(first, last - 1, length)
        most = max(1, VALIDATION_TOKENS // length)
        if len(starts) > most:
            starts = starts[np.linspace(0, len(starts) - 2, most).astype(int)]
        total, count = 0.0, 0
        whole = starts[starts + length < last]
        rows = max(1, VALIDATION_AT_ONCE // length)
        for part in np.array_split(whole, -(-len(whole) // rows)):
            losses = self._losses(part, length)
            total, count = total + float(losses.double().sum()), count + losses.numel()
        if starts[-1] + length >= last:  # the rest, shorter than the others
            losses = self._losses(starts[-1:], last - 1 - int(starts[-1]))
            total, count = total + float(losses.double().sum()), count + losses.numel()
        return total / count / self.corpus.bytes_per_token / math.log(2)

    def perplexity(self, bits_per_byte: float) -> float:
        """Per token, from what `validate` gave; infinite where floats end."""
        nats = bits_per_byte * math.log(2) * self.corpus.bytes_per_token
        return math.exp(nats) if nats < 700 else math.inf

    def _losses(self, starts: np.ndarray, length: int) -> Tensor:
        """(b * length): of each token after the first of the windows at `starts`."""
        rows = np.stack([self.corpus.window(int(s), length + 1) for s in starts])
        tokens = torch.from_numpy(rows)
        logits, _ = self.model(tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
