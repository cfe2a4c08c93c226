"""The training task of a model of whole series.

    loss = L(y(end), target) + EARLY * mean over random earlier times of L(y(time), target)

The second part makes outputs useful before a series has ended.

Axes: b batch, n cases, k outputs.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from longstate.models._series import SeriesModel
from longstate.train._cases import Cases
from longstate.train._warping import warped

EARLY = 0.3
_TIMES = 3  # random earlier times per series and step
SAMPLES = 2**16  # in one batch, if it has more than one case
_MIXED = 0.15  # standard deviation of log length, by which similar lengths differ from the sorted
_VALIDATION_SAMPLES = 2**15  # of one call: larger tensors miss the cache, and their memory is new

Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs (..., k) and targets (...) give losses (...)."""


class SeriesTask:
    """A `Task` for the loop.

    Args:
        model: the network.
        training, validation: cases of the two parts.
        targets: of both parts.
        weights: of the cases of both parts.
        loss: see `Loss`.
        batch_size: cases per step. Where this many of the longest have more than `SAMPLES`
            samples, a batch is of cases of similar lengths, and as many as fit.
        warp: of the training cases; see `_warping`.
        seed: of the order of the cases.
    """

    def __init__(
        self,
        model: SeriesModel,
        training: Cases,
        validation: Cases,
        targets: tuple[Tensor, Tensor],
        weights: tuple[Tensor, Tensor],
        loss: Loss,
        *,
        batch_size: int,
        warp: float = 0.0,
        seed: int,
    ):
        self.model, self.training, self.validation = model, training, validation
        self.targets, self.weights = targets, weights
        self.criterion, self.batch_size, self.warp, self.seed = loss, batch_size, warp, seed

    def epoch(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng([self.seed, epoch])
        lengths = self.training.lengths.numpy()
        n = len(lengths)
        if lengths.max() * self.batch_size <= SAMPLES:
            return np.array_split(random.permutation(n), max(1, round(n / self.batch_size)))
        order = np.argsort(lengths * np.exp(_MIXED * random.standard_normal(n)))
        batches = _within(order, lengths, self.batch_size)
        return [batches[i] for i in random.permutation(len(batches))]

    def loss(self, indices: np.ndarray) -> Tensor:
        places = torch.from_numpy(indices)
        cases = self.training.take(places)
        if self.warp > 0:
            cases = warped(cases, self.warp)
        pooled, _ = self.model.pooled(cases.values, lengths=cases.lengths)
        shares = torch.cat([torch.ones(len(places), 1), torch.rand(len(places), _TIMES)], 1)
        times = cases.rows(shares) - 1
        outputs = self.model.outputs(self.model.dropout(pooled.at(times)))
        target = self.targets[0][places][:, None].expand(-1, 1 + _TIMES)
        losses = self.criterion(outputs, target)
        weight = self.weights[0][places]
        each = losses[:, 0] + EARLY * losses[:, 1:].mean(1)
        return (weight * each).sum() / weight.sum()

    def read(self, indices: np.ndarray) -> Tensor:
        outputs: Tensor = self.model(self.training.take(torch.from_numpy(indices)).values)[0]
        return outputs

    def validate(self) -> float:
        final, along = outputs_along(self.model, self.validation, (0.25, 0.5, 0.75))
        target, weight = self.targets[1], self.weights[1]
        early = torch.stack([self.criterion(y, target) for y in along]).mean(0)
        losses = self.criterion(final, target) + EARLY * early
        return float((weight * losses).sum() / weight.sum())


def _within(order: np.ndarray, lengths: np.ndarray, most: int) -> list[np.ndarray]:
    """Batches of at most `most` cases and `SAMPLES` samples, the padding counted."""
    batches: list[np.ndarray] = []
    begin = longest = 0
    for end, n in enumerate(lengths[order].tolist()):
        longest = max(longest, n)
        if end > begin and (longest * (end + 1 - begin) > SAMPLES or end - begin == most):
            batches.append(order[begin:end])
            begin, longest = end, n
    return [*batches, order[begin:]]


@torch.no_grad()
def outputs_along(
    model: SeriesModel, cases: Cases, shares: tuple[float, ...] = (), rate: float = 1.0
) -> tuple[Tensor, list[Tensor]]:
    """Outputs (n, k) at the end of every series, and after each of `shares` of it.

    `rate`: see `SeriesModel`.
    """
    n = len(cases.lengths)
    order = cases.lengths.argsort()  # series of similar lengths together
    longest = int(cases.lengths.max())
    found = torch.empty(1 + len(shares), n, model.head.out_features)
    for places in order.split(max(1, min(256, _VALIDATION_SAMPLES // longest))):
        part = cases.take(places)
        pooled, _ = model.pooled(part.values, rate=rate, lengths=part.lengths)
        whole = torch.tensor([1.0, *shares]).expand(len(places), -1)
        times = part.rows(whole) - 1
        found[:, places] = model.outputs(pooled.at(times)).to(found.dtype).transpose(0, 1)
    return found[0], list(found[1:])
