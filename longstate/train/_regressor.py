"""The regressor of whole series: one number for each."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longstate.train._cases import Cases, columns_of, read_cases
from longstate.train._fusion import Fusion, choose_share
from longstate.train._loop import Progress
from longstate.train._series_estimator import Goal, SeriesEstimator, Validated
from longstate.train._series_record import load_series, save_series
from longstate.train._series_task import outputs_along
from longstate.train._settings import Execution
from longstate.train._targets import numbers_of


class Regressor(SeriesEstimator):
    """As `Classifier`, for a number instead of a class.

        Regressor().fit(X, y).predict(X_new)

    Args:
        layers, d_model, n_layers, epochs, minutes, convolutions, seed: see `Classifier`.
    """

    _kind = "regressor"

    def __init__(
        self,
        layers: str | Sequence[str] = "s5",
        *,
        d_model: int = 64,
        n_layers: int = 2,
        epochs: int = 60,
        minutes: float | None = 10.0,
        convolutions: bool = True,
        seed: int = 0,
    ):
        self.layers, self.d_model, self.n_layers = layers, d_model, n_layers
        self.epochs, self.minutes, self.convolutions = epochs, minutes, convolutions
        self.seed = seed

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        time_channel: int | None = None,
        warp: float = 0.0,
        execution: Execution = Execution(),  # noqa: B008
        out: str | Path | None = None,
        show: Callable[[Progress], None] | None = None,
    ) -> "Regressor":
        """Train on four fifths of the cases; see `Classifier.fit`, also for `time_channel`,
        `warp` and `execution`. y (n): numbers."""
        cases = read_cases(X, time_channel=time_channel)
        self.columns_ = columns_of(X)
        numbers = torch.from_numpy(numbers_of(y, len(cases.lengths)))
        self.mean_ = float(numbers.mean())
        self.std_ = float(numbers.std(correction=0)) or 1.0
        z = (numbers - self.mean_) / self.std_
        goal = Goal(z, z[:, None], torch.ones(len(z)).double(), None, _squared, warp)
        self._fit(cases, goal, execution, out, show)
        return self

    def predict(self, X: Any, seen: float | None = None, *, rate: float = 1.0) -> np.ndarray:
        """One number for each case (n).

        Args:
            X: the series.
            seen, rate: see `Classifier.predict_proba`.
        """
        cases = self._read(X, rate)
        outputs = self._whole(cases, rate) if seen is None else self._early(cases, seen, rate)
        return (outputs[:, 0].double() * self.std_ + self.mean_).numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, rate: float = 1.0) -> float:
        """The coefficient of determination, R^2. `rate`: see `Classifier.predict_proba`."""
        truth = np.asarray(y, dtype=np.float64).ravel()
        w = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight)
        error = (w * (truth - self.predict(X, rate=rate)) ** 2).sum()
        around = (w * (truth - np.average(truth, weights=w)) ** 2).sum()
        if around == 0:
            return 1.0 if error == 0 else 0.0
        return float(1 - error / around)

    def save(self, path: str | Path) -> None:
        """Write the estimator to one safetensors file; `longstate.load` reads it."""
        self._check_fitted()
        save_series(self, path, "regressor", {"mean": self.mean_, "std": self.std_})

    @classmethod
    def load(cls, path: str | Path) -> "Regressor":
        """Read a file of `save`, or a folder of `fit(out=...)`."""
        self, record = load_series(cls, path, "regressor")
        self.mean_, self.std_ = record.mean, record.std
        return self

    def _whole(self, cases: Cases, rate: float) -> Tensor:
        share, outcome = self._share(rate), torch.zeros(len(cases.lengths), 1).double()
        scores = self._ridge_scores(cases) if share < 1 else None
        if scores is not None:
            outcome = outcome + (1 - share) * scores.double()
        if share > 0:
            outcome = outcome + share * outputs_along(self.network_, cases, rate=rate)[0].double()
        return outcome

    def _fuse(self, validated: Validated, goal: Goal) -> Fusion:
        held = validated.places
        if not len(held):
            return Fusion(share=0.0 if self.convolutions else 1.0)
        target, weight = goal.targets[held], goal.weights[held]
        network = outputs_along(self.network_, validated.cases)[0].double()
        share, simple, both = 1.0, None, None
        if validated.left_out is not None:
            ridge = validated.left_out[held]
            share = choose_share(network, ridge, weight, lambda y: _squared(y, target))
            simple = _determined(ridge, target)
            both = _determined(share * network + (1 - share) * ridge, target)
        return Fusion(
            share, cases=len(held), network=_determined(network, target), convolutions=simple,
            both=both,
        )  # fmt: skip


def _squared(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs[..., 0] - target) ** 2


def _determined(outputs: Tensor, target: Tensor) -> float:
    """R^2 against the mean of these cases."""
    around = ((target - target.mean()) ** 2).sum().clamp_min(1e-12)
    return float(1 - _squared(outputs, target).sum() / around)
