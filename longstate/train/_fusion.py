"""Join the network with convolutions and ridge, and calibrate: all on validation cases.

    p = share * softmax(network / temperature) + (1 - share) * softmax(sharpness * ridge)

Ridge's scores of the validation cases are from fits without the case itself, so they are fair. The
share is the smallest whose mean loss is within two standard errors of the best: a smaller gain is
chance, and ridge is the simpler model. With fewer than 30 cases nothing is proved and the share is
0: the network stopped at its best moment on these very cases.

Axes: n cases, k outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.errors import expect
from longstate.train._weights import TRIED

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FEWEST = 30  # cases, to judge the network
_SCALES = tuple(10 ** (k / 40) for k in range(-60, 61))
_USUAL_SHARPNESS = 4.0  # scores of ridge are near 1 and -1


@dataclass(frozen=True)
class Fusion:
    """How a fitted estimator makes its outcome for a whole series.

    Args:
        share: of the network in it, from 0 to 1; the rest is of convolutions and ridge.
        temperature: of the network for whole series. early_temperature: along a stream.
        sharpness: factor of ridge's scores.
        cases: number of validation cases; 0 if there were too few to validate.
        network, convolutions, both: score on the validation cases; None if there is none.
    """

    share: float = 1.0
    temperature: float = 1.0
    early_temperature: float = 1.0
    sharpness: float = 1.0
    cases: int = 0
    network: float | None = None
    convolutions: float | None = None
    both: float | None = None

    def __post_init__(self) -> None:
        expect(0 <= self.share <= 1, f"share must be from 0 to 1; got {self.share}")
        for name in ("temperature", "early_temperature", "sharpness"):
            value = getattr(self, name)
            expect(0 < value < 1e9, f"{name} must be a number above 0; got {value}")

    def verdict(self, score: str) -> tuple[str, ...]:
        """Sentences that compare network and baseline. `score`: its name, such as accuracy."""
        if self.cases == 0 or self.network is None:
            return ("There were too few cases to hold some out: nothing was validated.",)
        network = f"{score} {self.network:.3f}"
        if self.convolutions is None or self.both is None:
            return (f"On {self.cases} validation cases the network has {network}.",)
        figures = f"({network} against {self.convolutions:.3f}, {self.cases} validation cases)"
        better = self.network > self.convolutions
        first = "beats" if better else "does NOT beat"
        sentences = [f"The network {first} random convolutions with ridge {figures}."]
        if self.share == 0:
            sentences.append(
                "Whole series are decided by random convolutions alone; the network decides early, "
                "along a stream."
            )
        elif self.share == 1:
            sentences.append("The network decides alone.")
        else:
            sentences.append(
                f"Both decide together, the network with a share of {self.share:g} ({score} "
                f"{self.both:.3f})."
            )
        return tuple(sentences)


def fit_temperature(outputs: Tensor, target: Tensor, weight: Tensor) -> float:
    """The temperature with the least log loss, drawn towards 1 where there are few cases."""
    return 1 / _best_scale(outputs, target, weight, 1.0)


def fit_sharpness(scores: Tensor, target: Tensor, weight: Tensor) -> float:
    """The same for scores of ridge."""
    return _best_scale(scores, target, weight, _USUAL_SHARPNESS)


def _best_scale(outputs: Tensor, target: Tensor, weight: Tensor, usual: float) -> float:
    def loss(scale: float) -> float:
        each = F.cross_entropy(outputs * scale * usual, target, reduction="none")
        return float((weight * each).sum()) + float(torch.tensor(scale).log() ** 2)

    return usual * min(_SCALES, key=loss)


def choose_share(
    network: Tensor,
    ridge: Tensor,
    weight: Tensor,
    loss: Callable[[Tensor], Tensor],
) -> float:
    """The share of the network in the outcome; see the top of this file.

    Args:
        network, ridge (n, k): the outcomes of both; outcomes are mixed linearly.
        weight (n): of the cases.
        loss: an outcome (n, k) gives losses (n).
    """
    if len(ridge) < FEWEST:
        return 0.0
    losses = torch.stack([weight * loss(s * network + (1 - s) * ridge) for s in SHARES])
    excess = losses - losses[losses.mean(1).argmin()]
    error = excess.std(1) / excess.shape[1] ** 0.5
    near = excess.mean(1) <= TRIED * error
    return SHARES[int(near.int().argmax())]
