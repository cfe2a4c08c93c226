"""The classifier of whole series, an estimator in the convention of scikit-learn and aeon."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.errors import InputError
from longstate.train._cases import Cases, columns_of, read_cases
from longstate.train._decisions import Decisions
from longstate.train._fusion import Fusion, choose_share, fit_sharpness, fit_temperature
from longstate.train._loop import Progress
from longstate.train._series_estimator import Goal, SeriesEstimator, Validated
from longstate.train._series_record import load_series, save_series
from longstate.train._series_task import outputs_along
from longstate.train._settings import Execution
from longstate.train._targets import class_numbers, labels_of

ALONG = tuple(k / 10 for k in range(1, 10))
"""Shares of a series at which a stream is calibrated."""


class Classifier(SeriesEstimator):
    """A causal state space network, with random convolutions and ridge beside it.

        Classifier().fit(X, y).predict(X_new)

    X is (cases, channels, time), (cases, time), or a list of arrays (channels, time) of unequal
    lengths. NaN is a missing value. One channel may hold time stamps; see `fit`.

    Args:
        layers: name of a class in `longstate.layers`, in any case; or several: a pattern that is
            repeated over the blocks.
        d_model: channels between the blocks.
        n_layers: number of blocks.
        epochs: passes over the training cases, at most.
        minutes: time for training the network, at most; None for no limit.
        convolutions: whether to fit random convolutions with ridge, the baseline: shares of
            responses above biases (MiniRocket, arXiv:2012.08791), and wins of filters that compete
            in groups (Hydra, arXiv:2203.13652). They take part in the outcome as far as validation
            says that this helps. More than 4,000 cases have shares alone.
        class_weight: "balanced", class -> weight, or None for equal weights.
        seed: of everything that is drawn.

    Attributes:
        classes_: the classes, sorted. n_channels_: c, with the stamps.
        time_: which channel holds the stamps, and their usual interval; None without stamps.
        fusion_: scores on validation cases, and how the outcome is made.
        history_: of the training.
        network_: the network; `longstate.Stream(network_)` runs it sample by sample.
    """

    _kind = "classifier"

    def __init__(
        self,
        layers: str | Sequence[str] = "s5",
        *,
        d_model: int = 64,
        n_layers: int = 2,
        epochs: int = 60,
        minutes: float | None = 10.0,
        convolutions: bool = True,
        class_weight: str | Mapping[Any, float] | None = None,
        seed: int = 0,
    ):
        self.layers, self.d_model, self.n_layers = layers, d_model, n_layers
        self.epochs, self.minutes, self.convolutions = epochs, minutes, convolutions
        self.class_weight, self.seed = class_weight, seed

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
    ) -> "Classifier":
        """Train on four fifths of the cases of each class; the others decide when to stop, and
        calibrate. Ctrl-C ends the training and keeps the best so far.

        Args:
            X: the series. y (n): the classes, numbers or texts.
            time_channel: the channel of X that holds time stamps, which increase within a case, in
                any unit; -1 is the last one. The layers step over the time between them, in
                multiples of the median interval of these cases. The random convolutions leave the
                stamps out and count samples. None: all samples are at one interval.
            warp: shift and stretch the training series of the network in time at random, by up to
                this share of their length: 0.02 where classes do not depend on exact times.
            execution: how the steps of the network's training are computed.
            out: folder for the checkpoint and the model. A run that was stopped there is continued.
            show: called with the progress after each step.

        Raises:
            InputError: series, classes or parameters cannot be used.
        """
        cases = read_cases(X, time_channel=time_channel)
        self.columns_ = columns_of(X)
        labels = labels_of(y, len(cases.lengths))
        self.classes_, numbers = class_numbers(labels)
        weights = self._weights(numbers)[numbers]
        targets = torch.from_numpy(numbers)
        signs = 2.0 * F.one_hot(targets, len(self.classes_)).double() - 1
        loss = _cross_entropy
        goal = Goal(targets, signs, torch.from_numpy(weights), numbers.tolist(), loss, warp)
        self._fit(cases, goal, execution, out, show)
        return self

    def predict_proba(self, X: Any, seen: float | None = None, *, rate: float = 1.0) -> np.ndarray:
        """Probabilities (n, classes), in the order of `classes_`.

        Args:
            X: the series.
            seen: share of each series that may be read, above 0 and at most 1: of its samples, or
                of its time if there are stamps. The network alone decides then, as along a stream.
                None: the outcome for whole series.
            rate: the sampling interval of X as a multiple of that of the training cases: 2 for
                recordings at 4 kHz, if the training had 8 kHz. The network's time steps are
                multiplied by it. At another rate than 1 the network decides alone, because random
                convolutions are bound to an interval; a warning says so.

        Raises:
            InputError: X, `seen` or `rate` cannot be used, or a layer has no time step.
        """
        cases = self._read(X, rate)
        if seen is None:
            return _exact(self._whole(cases, rate))
        early = self._early(cases, seen, rate)
        return _exact(_probabilities(early / self.fusion_.early_temperature))

    def predict(self, X: Any, *, rate: float = 1.0) -> np.ndarray:
        """The most probable class of each case (n). `rate`: see `predict_proba`."""
        best = self.predict_proba(X, rate=rate).argmax(1)
        return self.classes_[best]

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, rate: float = 1.0) -> float:
        """Accuracy. `rate`: see `predict_proba`."""
        right = self.predict(X, rate=rate) == np.asarray(y).ravel()
        return float(np.average(right, weights=sample_weight))

    def stream(self, series: int = 1, *, rate: float = 1.0) -> Decisions:
        """Decide while samples come: `push` gives calibrated probabilities after each sample.

        Args:
            series: number of series that run side by side.
            rate: see `predict_proba`.
        """
        self._check_fitted()
        self.network_.check_rate(rate)
        return Decisions(self.network_, self.classes_, self.fusion_.early_temperature, series, rate)

    def save(self, path: str | Path) -> None:
        """Write the estimator to one safetensors file; `longstate.load` reads it."""
        self._check_fitted()
        kinds = {"classes": self.classes_.tolist(), "classes_type": self.classes_.dtype.str}
        save_series(self, path, "classifier", kinds)

    @classmethod
    def load(cls, path: str | Path) -> "Classifier":
        """Read a file of `save`, or a folder of `fit(out=...)`."""
        self, record = load_series(cls, path, "classifier")
        self.classes_ = record.class_array()
        return self

    def _whole(self, cases: Cases, rate: float) -> Tensor:
        """Outcome for whole series, (n, k)."""
        fusion, share, parts = self.fusion_, self._share(rate), []
        scores = self._ridge_scores(cases) if share < 1 else None
        if scores is not None:
            parts.append((1 - share) * _probabilities(fusion.sharpness * scores))
        if share > 0:
            outputs, _ = outputs_along(self.network_, cases, rate=rate)
            parts.append(share * _probabilities(outputs / fusion.temperature))
        return torch.stack(parts).sum(0)

    def _fuse(self, validated: Validated, goal: Goal) -> Fusion:
        held = validated.places
        if not len(held):
            return Fusion(share=0.0 if self.convolutions else 1.0)
        target, weight = goal.targets[held], goal.weights[held]
        final, along = outputs_along(self.network_, validated.cases, ALONG)
        times = len(along) + 1
        cold = fit_temperature(final, target, weight)
        early = torch.cat([*along, final])
        # prefixes of one case are no new cases
        warm = fit_temperature(early, target.repeat(times), weight.repeat(times) / times)
        network = _probabilities(final / cold)
        share, sharpness, simple, both = 1.0, 1.0, None, None
        if validated.left_out is not None:
            scores = validated.left_out
            sharpness = fit_sharpness(scores, goal.targets, goal.weights)
            ridge = _probabilities(sharpness * scores[held])
            share = choose_share(network, ridge, weight, lambda p: _log_loss(p, target))
            simple = _accuracy(ridge, target)
            both = _accuracy(share * network + (1 - share) * ridge, target)
        own = _accuracy(network, target)
        return Fusion(share, cold, warm, sharpness, len(held), own, simple, both)

    def _weights(self, numbers: np.ndarray) -> np.ndarray:
        """The weight of each class."""
        k = len(self.classes_)
        if self.class_weight is None:
            return np.ones(k)
        if self.class_weight == "balanced":
            return len(numbers) / (k * np.bincount(numbers))
        if not isinstance(self.class_weight, Mapping):
            raise InputError(
                "class_weight must be 'balanced', a dict of class and weight, or None; got "
                f"{self.class_weight!r}"
            )
        weights = np.array([float(self.class_weight.get(c, 1.0)) for c in self.classes_.tolist()])
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise InputError(f"the weights in class_weight must be above 0; got {weights.tolist()}")
        return weights


def _cross_entropy(outputs: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(outputs.movedim(-1, 1), target, reduction="none")


def _probabilities(scores: Tensor) -> Tensor:
    return scores.double().softmax(-1)


def _exact(p: Tensor) -> np.ndarray:
    """Probabilities that sum to 1 after rounding."""
    return (p / p.sum(-1, keepdim=True)).numpy()


def _log_loss(p: Tensor, target: Tensor) -> Tensor:
    return -p.gather(1, target[:, None])[:, 0].clamp_min(1e-12).log()


def _accuracy(p: Tensor, target: Tensor) -> float:
    return float((p.argmax(1) == target).double().mean())
