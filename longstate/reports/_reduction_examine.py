"""What the page about a reduction shows: figures that are measured here, on the data given.

The metric of the task is the loss of the next token for a language model; the squared error on rows
that were not used for training for a forecaster; and for a classifier the log loss of its network
on labelled series. Every measurement has a limit of time or
size; what it leaves out is a note.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from longstate._environment import environment
from longstate.compress import RateCurve, Reduction, SizeCurve, rd_curve, size_curve
from longstate.compress._calls import Call, calls_of, tensors_of
from longstate.compress._data import nats
from longstate.compress._models import inner
from longstate.errors import InputError
from longstate.models import LanguageModel
from longstate.reports._subject import Reading, Subject
from longstate.train import Classifier, Forecaster, Regressor, SeriesData
from longstate.train._series_evaluation import class_places
from longstate.train._targets import numbers_of

ROWS, LENGTH = 8, 256  # stretches of a text for the metric, and tokens of each
SECONDS = 20.0  # for the curve of sizes
BITS_ROWS, BITS_LENGTH = 8, 96  # for the curve of bits
MOST_BITS = 1 << 21  # of a state whose bits are measured
_ROUNDS, _STEPS = 7, 24  # of a timing


class Metric(NamedTuple):
    """Less is better.

    Attributes:
        name: with its unit.
        of: the value for a model like the subject's.
    """

    name: str
    of: Callable[[Any], float]


class Paces(NamedTuple):
    """Times of the whole model and of the smaller one, measured in turn.

    Attributes:
        before, after: medians, in seconds.
        ratio: before / after, median of the rounds.
        low, high: smallest and largest of these ratios.
    """

    before: float
    after: float
    ratio: float
    low: float
    high: float

    def sentence(self, what: str) -> str:
        """Such as "1.90x faster tokens (1.82 to 1.97)". Rounds that disagree show no difference."""
        if self.low <= 1 <= self.high:
            return f"{what}s about as fast ({self.low:.2f}x to {self.high:.2f}x)"
        if self.low > 1:
            return f"{self.ratio:.2f}x faster {what}s ({self.low:.2f} to {self.high:.2f})"
        return f"{1 / self.ratio:.2f}x slower {what}s ({1 / self.high:.2f} to {1 / self.low:.2f})"


@dataclass(frozen=True, kw_only=True)
class ReductionReport:
    """The contents of the page.

    Args:
        name: of the model that was reduced. out: of the folder of the smaller one.
        what: the data, in words.
        found: the report of `reduce`.
        metric: its name; empty if there is none.
        before, after: metric of the two models.
        sizes: the state's size against the metric.
        bits: bits of a parked state of the smaller model against the metric.
        paces: seconds of a token, a forecast or a case, before and after, in turn; medians.
        pace_of: what these are of: "token", "forecast" or "case".
        notes: what was not measured, and why.
        environment: where it was measured.
    """

    name: str
    out: str
    what: str
    found: Reduction
    metric: str = ""
    before: float | None = None
    after: float | None = None
    sizes: SizeCurve | None = None
    bits: RateCurve | None = None
    paces: Paces | None = None
    pace_of: str = "token"
    notes: tuple[str, ...] = ()
    environment: dict[str, str]


def examine(
    subject: Subject,
    small: Any,
    found: Reduction,
    reading: Reading,
    out: str,
    progress: Callable[[str], None] = lambda part: None,
) -> ReductionReport:
    """Measure both models.

    Args:
        subject: the whole model.
        small: the smaller one, of the same kind.
        found: the report of `reduce`.
        reading: the data.
        out: name of the smaller model's folder.
        progress: called before each of four parts.
    """
    notes = list(subject.remarks)
    metric = metric_of(subject, reading)
    before = after = sizes = None
    progress("the metric")
    if metric is None:
        notes.append("The metric of the task: no data was given, or the model reads none.")
    else:
        before, after = metric.of(subject.found), metric.of(small)
        progress("sizes of the state")
        data = reading.whole(ROWS, LENGTH)
        sizes = size_curve(subject.found, metric.of, data, seconds=SECONDS)
        if sizes.left_out:
            notes.append(
                f"Sizes of the state: after {SECONDS:.0f} s the kept shares "
                f"{', '.join(f'{s:g}' for s in sizes.left_out)} were left out."
            )
    progress("bits of the state")
    bits, why = _bits(inner(small), reading)
    notes += [why] if why else []
    progress("the time of a token")
    paces, pace_of = _paces(subject.model, inner(small), reading)
    if paces is None:
        notes.append("Time: there is no data to run the models on.")
    return ReductionReport(
        name=subject.name, out=out, what=reading.what, found=found,
        metric="" if metric is None else metric.name, before=before, after=after,
        sizes=sizes, bits=bits, paces=paces, pace_of=pace_of,
        notes=tuple(notes), environment=environment(),
    )  # fmt: skip


def metric_of(subject: Subject, reading: Reading) -> Metric | None:
    """The metric of the task on this data."""
    if isinstance(subject.model, LanguageModel):
        tokens = _tokens(reading, ROWS, LENGTH)
        return Metric("nats per token", partial(_loss, tokens=tokens))
    if reading.series is not None:
        return _series_metric(subject.found, reading.series)
    if subject.forecaster is None or reading.frame is None:
        return None
    frame = reading.frame

    def squared(model: Forecaster) -> float:
        scores = {s.method: s.mse for s in model.evaluate(frame).scores}
        return scores["model"]

    return Metric("mean squared error", squared)


def _series_metric(found: Any, series: SeriesData) -> Metric | None:
    """Of the network alone, which is what becomes smaller."""
    if series.y is None:
        return None
    if isinstance(found, Regressor):
        truth = numbers_of(series.y, len(series.X))

        def squared(model: Regressor) -> float:
            return float(((model.predict(series.X, seen=1.0) - truth) ** 2).mean())

        return Metric("mean squared error of the network", squared)
    places = class_places(found, series.y)

    def cost(model: Classifier) -> float:
        p = model.predict_proba(series.X, seen=1.0)
        return float(-np.log(np.maximum(p[np.arange(len(p)), places], 1e-12)).mean())

    return Metric("log loss of the network", cost)


@torch.no_grad()
def _loss(model: Any, tokens: Tensor) -> float:
    """Nats of the next token, mean over rows."""
    module = inner(model)
    found = [nats(module, row, module(row)[0].float()) for row in tokens.split(1)]
    return statistics.fmean(x for x in found if x is not None)


def _tokens(reading: Reading, rows: int, length: int) -> Tensor:
    made = reading.data(rows, length)
    assert isinstance(made, Tensor)
    return made


def _bits(small: nn.Module, reading: Reading) -> tuple[RateCurve | None, str]:
    """The curve of bits, or why there is none."""
    if not isinstance(small, LanguageModel) or reading.tokens is None:
        return None, "Bits of a parked state: measured for language models only."
    tokens = _tokens(reading, BITS_ROWS, BITS_LENGTH)
    state = sum(x.numel() * x.element_size() * 8 for x in tensors_of(small.init_state(1)))
    if state > MOST_BITS:
        return None, f"Bits of a parked state: it has {state:,}, above the limit {MOST_BITS:,}."
    if len(tokens) < 4 or tokens.shape[1] < 16:
        return None, "Bits of a parked state: the data is too short."
    try:
        return rd_curve(small, tokens, _later), ""
    except InputError as e:
        return None, f"Bits of a parked state: {e}."


def _later(model: nn.Module, state: Any, tokens: Tensor) -> float:
    """Nats of the next token from a state on."""
    cost = nats(model, tokens, model(tokens, state)[0].float())
    assert cost is not None
    return cost


def _paces(one: nn.Module, two: nn.Module, reading: Reading) -> tuple[Paces | None, str]:
    """Seconds of a token, a forecast or a case, of both models in turn."""
    if isinstance(one, LanguageModel) and isinstance(two, LanguageModel):
        assert reading.tokens is not None
        token = reading.tokens[:1]
        return _in_turn(partial(_steps, one, token), partial(_steps, two, token), _STEPS), "token"
    of, batch = (
        ("forecast", reading.run) if reading.series is None else ("case", reading.data(1, 0))
    )
    if batch is None:
        return None, of
    (call, *_) = calls_of(one, [batch])
    return _in_turn(partial(_once, one, call), partial(_once, two, call), 1), of


@torch.no_grad()
def _steps(model: LanguageModel, token: Tensor) -> None:
    state = model.init_state(1)
    for _ in range(_STEPS):
        _, state = model.step(token, state)


@torch.no_grad()
def _once(model: nn.Module, call: Call) -> None:
    model(*call.args, **call.kwargs)


def _in_turn(one: Callable[[], None], two: Callable[[], None], each: int) -> Paces:
    times: list[tuple[float, float]] = []
    for i in range(_ROUNDS + 1):
        if i % 2:  # the first of a round may find caches in another condition
            pair = _seconds(one), _seconds(two)
        else:
            second = _seconds(two)
            pair = _seconds(one), second
        if i:  # the first compiles
            times.append(pair)
    ratios = [a / b for a, b in times]
    before, after = (statistics.median(t) / each for t in zip(*times, strict=True))
    return Paces(before, after, statistics.median(ratios), min(ratios), max(ratios))


def _seconds(run: Callable[[], None]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
