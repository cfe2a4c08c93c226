"""The scores of a classifier on labelled series, a frozen dataclass: printed and drawn.

Axes: n cases, k classes, c channels, t time.
"""

import csv
import dataclasses
import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longstate._facts import read
from longstate.errors import InputError, near
from longstate.models._time_channel import TimeChannel
from longstate.train._cases import split
from longstate.train._classifier import Classifier
from longstate.train._series_files import SeriesData
from longstate.train._settings import check_sizes
from longstate.train._targets import class_numbers, labels_of

SEEN = tuple(k / 10 for k in range(1, 11))
_BINS = 10
_SHOWN = 6  # most confused cases
_SAMPLES = 400  # of a shown case, at most


@dataclass(frozen=True)
class SeenScore:
    """share: of each series that was read. accuracy: of the network after it. confidence: its mean
    highest probability; equal to the accuracy if calibrated."""

    share: float
    accuracy: float
    confidence: float


@dataclass(frozen=True)
class ConfidenceBin:
    """Cases of similar confidence: their mean highest probability, accuracy, and number."""

    confidence: float
    accuracy: float
    cases: int


@dataclass(frozen=True)
class ConfusedCase:
    """A wrong case: name, true class, predicted class with its probability, and its series.

    values (c, t): at most 400 samples; None where missing.
    """

    name: str
    truth: str
    predicted: str
    probability: float
    values: tuple[tuple[float | None, ...], ...]
    length: int


@dataclass(frozen=True)
class ClassEvaluation:
    """Scores on labelled cases.

    Args:
        classes (k): as text.
        cases: n. where: what they are, such as "test cases".
        accuracy: of the outcome for whole series. network, convolutions: of each alone.
        share: of the network in the outcome.
        log_loss: mean of -log p of the true class.
        confusion (k, k): cases of each true class (row) by predicted class.
        seen: scores of the network along the series.
        bins: calibration. calibration_error: mean distance of confidence and accuracy over bins.
        confused: the wrong cases of the highest confidence.
        notes: sentences.
    """

    classes: tuple[str, ...]
    cases: int
    where: str
    accuracy: float
    network: float
    convolutions: float | None
    share: float
    log_loss: float
    confusion: tuple[tuple[int, ...], ...]
    seen: tuple[SeenScore, ...]
    bins: tuple[ConfidenceBin, ...]
    calibration_error: float
    confused: tuple[ConfusedCase, ...]
    notes: tuple[str, ...] = ()

    def verdict(self) -> str:
        """One sentence: the network against random convolutions."""
        network = f"accuracy {100 * self.network:.1f} %"
        if self.convolutions is None:
            return f"The network has {network} on {self.cases} {self.where}."
        better = "beats" if self.network > self.convolutions else "does NOT beat"
        return (
            f"On {self.cases} {self.where} the network {better} random convolutions with ridge "
            f"({network} against {100 * self.convolutions:.1f} %)."
        )

    def to_json(self) -> str:
        """JSON text. Read it back with `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ClassEvaluation":
        return read(cls, json.loads(text), "the evaluation")


def evaluate_classifier(
    model: Classifier,
    X: Sequence[np.ndarray],
    y: Any,
    names: Sequence[str] | None = None,
    where: str = "test cases",
    *,
    rate: float = 1.0,
) -> ClassEvaluation:
    """Score a classifier.

    Args:
        model: after `fit` or `load`.
        X, y: series and their classes.
        names (n): of the cases.
        where: what the cases are, for sentences.
        rate: see `Classifier.predict_proba`.

    Raises:
        InputError: a class was not in training, or the series do not fit.
    """
    truth, remark = class_places(model, y), model.remark(rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the remark is in the notes
        p = model.predict_proba(X, rate=rate)
    best, confidence = p.argmax(1), p.max(1)
    classes = tuple(str(c) for c in model.classes_.tolist())
    k = len(classes)
    confusion = np.zeros((k, k), int)
    np.add.at(confusion, (truth, best), 1)
    seen = []
    for share in SEEN:
        early = model.predict_proba(X, seen=share, rate=rate)
        right = float((early.argmax(1) == truth).mean())
        seen.append(SeenScore(share, right, float(early.max(1).mean())))
    bins = _bins(confidence, best == truth)
    error = sum(b.cases * abs(b.confidence - b.accuracy) for b in bins) / len(truth)
    scores = model._ridge_scores(model._read(X, rate), rate)
    simple = None if scores is None else float((scores.argmax(1).numpy() == truth).mean())
    wrong = np.flatnonzero(best != truth)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:_SHOWN]
    called = [str(i) for i in range(len(truth))] if names is None else list(names)
    confused = tuple(
        ConfusedCase(
            called[i],
            classes[truth[i]],
            classes[best[i]],
            float(confidence[i]),
            *_drawn(X[i], model.time_),
        )
        for i in wrong.tolist()
    )
    return ClassEvaluation(
        classes,
        len(truth),
        where,
        float((best == truth).mean()),
        seen[-1].accuracy,
        simple,
        model.fusion_.share if rate == 1 else 1.0,
        float(-np.log(np.maximum(p[np.arange(len(truth)), truth], 1e-12)).mean()),
        tuple(tuple(int(v) for v in row) for row in confusion),
        tuple(seen),
        bins,
        error,
        confused,
        () if remark is None else (remark[0].upper() + remark[1:] + ".",),
    )


def class_places(model: Classifier, y: Any) -> np.ndarray:
    """The number of each case's class."""
    labels = np.asarray(y)
    known = {str(c): i for i, c in enumerate(model.classes_.tolist())}
    for label in labels.tolist():
        if str(label) not in known:
            raise InputError(f"class {str(label)!r} was not in training; {near(str(label), known)}")
    return np.array([known[str(label)] for label in labels.tolist()])


def _bins(confidence: np.ndarray, right: np.ndarray) -> tuple[ConfidenceBin, ...]:
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return tuple(
        ConfidenceBin(
            float(confidence[place == b].mean()),
            float(right[place == b].mean()),
            int((place == b).sum()),
        )
        for b in range(_BINS)
        if (place == b).any()
    )


def _drawn(
    x: np.ndarray, time: TimeChannel | None
) -> tuple[tuple[tuple[float | None, ...], ...], int]:
    """At most `_SAMPLES` samples of a series without its stamps, evenly spaced, and its length."""
    x = np.atleast_2d(np.asarray(x, dtype=np.float64))
    x = x if time is None else np.delete(x, time.channel, 0)
    length = x.shape[1]
    at = np.unique(np.linspace(0, length - 1, min(length, _SAMPLES)).astype(int))
    shown = tuple(tuple(None if v != v else v for v in row) for row in x[:, at].tolist())
    return shown, length


def hold_out(data: SeriesData, share: float, seed: int) -> tuple[SeriesData, SeriesData]:
    """Cases to learn from and cases to test on, `share` of every class.

    Raises:
        InputError: the share or the seed is out of range, or nothing is left to test on.
    """
    if not 0 < share < 1:
        raise InputError(f"the share of test cases must be above 0 and below 1; got {share!r}")
    check_sizes(seed=seed)
    _, numbers = class_numbers(labels_of(data.y, len(data.X)))
    learnt, held = split(numbers.tolist(), len(data.X), share, seed)
    if not len(held):
        raise InputError(
            f"{len(data.X)} cases of {numbers.max() + 1} classes are too few to test on a part of "
            "them; give test cases"
        )
    return data.take(learnt.tolist()), data.take(held.tolist())


def classes_csv(model: Classifier, data: SeriesData, rate: float = 1.0) -> str:
    """A CSV table: case, predicted class, and the probability of every class."""
    p = model.predict_proba(data.X, rate=rate)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    classes = [str(c) for c in model.classes_.tolist()]
    table.writerow(["case", "predicted", *(f"p({c})" for c in classes)])
    for name, row in zip(data.names, p, strict=True):
        table.writerow([name, classes[int(row.argmax())], *(f"{v:.6g}" for v in row)])
    return text.getvalue()
