"""Choose the next token from its logits.

    l_i -> l_i / r where l_i > 0, l_i r elsewhere      for tokens that are already in the text
    p = softmax(l / temperature), cut to the top_k most likely, then to the smallest set with top_p
    next = argmax_i log p_i + G_i                       G_i independent Gumbel numbers

The last line draws from p exactly (Gumbel 1954). Inverting the cumulative sum would also draw from
p, but a single rounding in that sum can change the token; here only a near-tie of the two largest
values can. So a row draws the same tokens in a batch as alone.

Keskar et al., "CTRL", 2019, arXiv:1909.05858 (the penalty r); Holtzman et al., "The Curious Case of
Neural Text Degeneration", ICLR 2020, arXiv:1904.09751 (top_p).

Axes: v vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from longstate.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """Settings of the choice.

    Args:
        temperature: 0 takes the most likely token, 1 draws from the model's probabilities.
        top_k: draw from the `top_k` most likely tokens; None is all.
        top_p: draw from the smallest set of tokens with this total probability; None is all.
        repetition_penalty: above 1 makes tokens that are already in the text less likely.

    Raises:
        InputError: a setting is out of its range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        t, p, r = self.temperature, self.top_p, self.repetition_penalty
        if not (_is_number(t) and 0 <= t < math.inf):
            raise InputError(f"temperature must be a number of at least 0; got {t!r}")
        k = self.top_k
        if k is not None and not (isinstance(k, int) and not isinstance(k, bool) and k >= 1):
            raise InputError(f"top_k must be a whole number of at least 1, or None; got {k!r}")
        if p is not None and not (_is_number(p) and 0 < p <= 1):
            raise InputError(f"top_p must be above 0 and at most 1, or None; got {p!r}")
        if not (_is_number(r) and 0 < r < math.inf):
            raise InputError(f"repetition_penalty must be a number above 0; got {r!r}")

    def choose(
        self, logits: Float[Tensor, " v"], seen: Bool[Tensor, " v"], draw: torch.Generator
    ) -> int:
        """The next token.

        Args:
            logits (v): finite.
            seen (v): whether each token is already in the text.
            draw: random generator of the row, on the CPU, so that a seed gives the same numbers on
                every device.
        """
        if self.repetition_penalty != 1:
            r = self.repetition_penalty
            logits = torch.where(seen, torch.where(logits > 0, logits / r, logits * r), logits)
        if self.temperature == 0:
            return int(logits.argmax())
        score = (logits.double() - logits.max()) / self.temperature
        kept = self._kept(score)
        # In float64: with 24 bits, tokens less likely than exp(-17) would never be drawn.
        waiting = -torch.rand(len(score), dtype=torch.float64, generator=draw).log_()
        score = score - waiting.log_().to(score.device)
        return int(score.argmax()) if kept is None else int(kept[score[kept].argmax()])

    def _kept(self, score: Tensor) -> Tensor | None:
        """Tokens to draw from; None is all."""
        if self.top_p is None or self.top_p == 1:
            return None if self.top_k is None else score.topk(min(self.top_k, len(score))).indices
        least = min(self.top_k or len(score), len(score))
        size = min(256, least)
        while True:  # sorting a whole vocabulary would take longer than a small model's step
            best = score.topk(size)
            whole = score if self.top_k is None else score.topk(least).values
            before = (best.values - whole.logsumexp(0)).exp().cumsum(0).roll(1)
            before[0] = 0
            kept = best.indices[before < self.top_p]
            if len(kept) < size or size == least:
                return kept
            size = min(8 * size, least)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
