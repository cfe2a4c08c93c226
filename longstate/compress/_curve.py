"""How well a model performs from states that were parked in few bits: a rate-distortion curve.

Three curves for one family of codecs: bits in fixed lengths, bits of an ideal entropy coder, and
Shannon's bound for a Gaussian state of the same covariance. Beside them: plain rounding, and the
bits that the task demands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from longstate._numbers import cell, number
from longstate.compress._codec import StateCodec, plain_codec
from longstate.compress._codec_report import coded_bits, parked_bits, plain_bits, rows_of
from longstate.compress._fit import maker, within
from longstate.compress._future import states_at
from longstate.compress._reduce import reduce
from longstate.compress._seen import positions
from longstate.errors import InputError
from longstate.layers._base import State
from longstate.memory import Result
from longstate.memory._plot import draw
from longstate.stream._tree import flatten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Metric = Callable[[nn.Module, State, Tensor], float]
"""A function of the model, the states, and the samples after them (b, t, ...); gives a number."""

_SHARES = (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5)
_PLAIN = ("int8", "int4", "int2")


class RatePoint(NamedTuple):
    """One codec. Bits are per sequence, for all tensors of the state together.

    Attributes:
        codec: how it was made.
        bits: in fixed lengths, measured, without the header.
        coded: with an ideal entropy coder. None for plain rounding.
        shannon: Shannon's bound of a Gaussian state for the fitted tensors, plus the bits of the
            others. None for plain rounding.
        error: the share of the later outputs' energy that it is made to lose. None for plain
            rounding.
        metric: the model's result from the parked states.
    """

    codec: str
    bits: float
    coded: float | None
    shannon: float | None
    error: float | None
    metric: float


class SmallerPoint(NamedTuple):
    """A reduced model, its states not rounded.

    Attributes:
        keep: share of the state that `reduce` was asked to keep.
        bits: of one sequence's state.
        metric: the reduced model's result from its own states.
    """

    keep: float
    bits: int
    metric: float


@dataclass(frozen=True, eq=False, kw_only=True)
class RateCurve(Result):
    """Bits of parked states against a metric.

    Args:
        points: fitted codecs, from the coarsest to the finest.
        plain: codecs that round every number in the same way.
        exact: the metric from the original states.
        state_bits: of one sequence before encoding.
        demand: bits that the task demands, if known.
        smaller: reduced models, from the largest state to the smallest.
    """

    points: tuple[RatePoint, ...]
    plain: tuple[RatePoint, ...]
    exact: float
    state_bits: int
    demand: float | None
    smaller: tuple[SmallerPoint, ...] = ()

    def rows(self) -> tuple[list[str], list[list[str]]]:
        body = [
            [p.codec, *map(cell, (p.bits, p.coded, p.shannon, p.error, p.metric))]
            for p in (*self.points, *self.plain)
        ]
        body += [
            [f"keep {p.keep:g}", f"{p.bits:,}", "-", "-", "-", number(p.metric)]
            for p in self.smaller
        ]
        body.append(["as it is", cell(self.state_bits), "-", "-", "-", cell(self.exact)])
        return ["codec", "bits", "entropy bits", "Shannon bits", "error", "metric"], body

    def to_dict(self) -> dict[str, Any]:
        plain = super().to_dict()
        for name in ("points", "plain"):
            plain[name] = [dict(zip(RatePoint._fields, p, strict=True)) for p in plain[name]]
        plain["smaller"] = [
            dict(zip(SmallerPoint._fields, p, strict=True)) for p in plain["smaller"]
        ]
        return plain

    def plot(self) -> "Figure":
        def paint(ax: Any) -> None:
            metric = [p.metric for p in self.points]
            for name, style, values in (
                ("Shannon, Gaussian surrogate", "C2--", [p.shannon for p in self.points]),
                ("ideal entropy coder", "C1.-", [p.coded for p in self.points]),
                ("fixed lengths", "C0o-", [p.bits for p in self.points]),
            ):
                ax.plot([max(v or 0.0, 1.0) for v in values], metric, style, label=name)
            for p in self.plain:
                ax.plot(p.bits, p.metric, "kx")
                ax.annotate(
                    p.codec, (p.bits, p.metric), xytext=(4, -10), textcoords="offset points"
                )
            if self.smaller:
                sizes, reached = zip(*((p.bits, p.metric) for p in self.smaller), strict=True)
                ax.plot(sizes, reached, "C4s-", label="smaller state (reduce), 32 bits")
            ax.axhline(self.exact, color="0.7", linewidth=0.8, label="state as it is")
            if self.demand is not None:
                ax.axvline(self.demand, color="C3", linestyle=":", label="the task's demand")
            ax.set_xscale("log")
            ax.legend(fontsize=8)

        return draw(self, "Bits of a parked state", "bits", "metric", paint, wide=True)


def rd_curve(
    model: nn.Module,
    data: Tensor,
    metric: Metric,
    *,
    bits: Sequence[float] | None = None,
    at: int | None = None,
    test: Tensor | None = None,
    rest: str = "float16",
    demand: float | None = None,
    keep: Sequence[float] = (),
) -> RateCurve:
    """Park states in different numbers of bits, and measure how well the model continues.

    All points are measured at the same place of the same rows. What is left of noise comes from the
    rounding itself and from few rows: with some dozen of them a coarser codec may look better by
    chance.

    Args:
        model: as `fit_codec` takes it.
        data: (b, t, ...), to fit codecs to.
        metric: called with the model, states, and the samples after them.
        bits: for each codec, its bits per sequence in fixed lengths. None: eight codecs that lose
            from 0.1 % to 50 % of the energy that the state adds to later outputs.
        at: samples after which the state is parked. None: half of the data.
        test: data to measure on. None: the codecs are fitted to the first half of the rows of
            `data`, and measured on the second half.
        rest: see `fit_codec`.
        demand: bits that the task demands, for the figure; see `known_bits` and others in
            `longstate.memory`.
        keep: shares of the state; for each the model is reduced on `data` by `longstate.reduce`,
            and measured with its own states, to compare fewer bits with fewer numbers.

    Raises:
        InputError: see `fit_codec` and `longstate.reduce`.
    """
    if test is None:
        if len(data) < 4:
            raise InputError("data must have at least 4 rows, or test must be given")
        data, test = data[: len(data) // 2], data[len(data) // 2 :]
    (place,) = positions(test, at or max(1, test.shape[1] // 2))
    made = maker(model, data, place, rest, 1024)
    codecs = [made(s)[0] for s in reversed(_SHARES)] if bits is None else None
    codecs = codecs or [within(made, b) for b in sorted(bits or ())]
    state, later = next(iter(states_at(model, test, [place]))), test[:, place:]

    def score(codec: StateCodec) -> float:
        with torch.no_grad():
            return float(metric(model, codec.round_trip(state), later))

    with torch.no_grad():
        exact = float(metric(model, state, later))
    points = tuple(_fitted(codec, state, score(codec)) for codec in codecs)
    plain = [(name, plain_codec(model, name, rest=rest)) for name in _PLAIN]
    rounded = tuple(
        RatePoint(name, parked_bits(codec, state), None, None, None, score(codec))
        for name, codec in plain
    )
    smaller = tuple(_smaller(model, data, test, place, k, metric) for k in sorted(keep)[::-1])
    best = min((p for p in points), key=lambda p: (abs(p.metric - exact), p.bits))
    return RateCurve(
        kind="estimate",
        scope="this data and metric; Shannon's bound is of a Gaussian state",
        sentence=f"From {number(best.bits)} bits of {codecs[0].state_bits:,} the model does "
        f"{number(best.metric)}, from states as they are {number(exact)}.",
        points=points,
        plain=rounded,
        exact=exact,
        state_bits=codecs[0].state_bits,
        demand=demand,
        smaller=smaller,
    )


def _smaller(
    model: nn.Module, data: Tensor, test: Tensor, place: int, keep: float, metric: Metric
) -> SmallerPoint:
    small, _ = reduce(model, data, keep=keep)
    state = next(iter(states_at(small, test, [place])))
    bits = sum(8 * v[0].nbytes for v in flatten(state).values())
    with torch.no_grad():
        return SmallerPoint(keep, bits, float(metric(small, state, test[:, place:])))


def _fitted(codec: StateCodec, state: State, metric: float) -> RatePoint:
    rest, lengths = plain_bits(codec), coded_bits(codec, state)
    share = codec.rotated[0].target
    shannon = rest + sum(p.shannon for p in codec.rotated)
    coded = rest + sum(lengths.values()) / rows_of(state)
    return RatePoint(f"error {share:.2g}", parked_bits(codec, state), coded, shannon, share, metric)
