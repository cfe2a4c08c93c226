"""Reduction of linear time-invariant layers: S4, S4D, DSS, S5, LinOSS ("im").

The layer's system is truncated in every form that the layer's parameters can store. Each channel
takes the form with the smallest H2 error. A gradient search starts from there. Its result is used
in channels where the product of the H2 and the H-infinity error becomes smaller; the bound of the
truncation then still has to hold. Both directions of a bidirectional layer have the same poles, so
they are reduced as one system with the outputs of both. The error of the layer is at most sqrt(2)
times the error of that system.

All numbers are for regular samples (dt = 1, rate = 1) and a zero initial state.
"""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longstate.compress._plan import Made, d_state_of, state_bytes
from longstate.compress._report import FULL, Method, MethodError, ReducedLayer
from longstate.compress._scores import by_score, scores
from longstate.errors import InputError
from longstate.layers import Layer
from longstate.memory import hankel, widened
from longstate.memory._difference import Operator, error_of, look, minus, norms_of
from longstate.memory._gains import _energy
from longstate.memory._gramians import System
from longstate.memory._refine import refine
from longstate.memory._truncate import Truncated, by_halves, by_modes, by_reals
from longstate.systems import DenseSystem, DiagonalSystem

SCOPE = "all inputs at regular samples"


class LinearPlan:
    """The `Plan` of a layer with `system` and `with_system`.

    Raises:
        InputError: a state does not decay, so the gain of the layer is infinite.
        MethodError: the method is for other layers.
    """

    def __init__(self, name: str, layer: Any, method: Method):
        self.name, self.layer, self.method = name, layer, method
        with torch.no_grad():
            wide = widened(layer)
            self.operator = operator_of(wide)
            self.joined = joined(wide.system())
            values = hankel(self.joined).values  # raises if a state does not decay
        if method not in ("auto", "balanced"):
            if not isinstance(self.joined, DiagonalSystem):
                raise MethodError(
                    f"{name}: S4 has no modes to score; method must be 'auto' or 'balanced', not "
                    f"{method!r}"
                )
            scores(self.joined, method)
        values = values.reshape(-1, values.shape[-1])
        self.pairs = _pairs(self.joined)
        self.step = 2 if self.pairs else 1  # real states per stored mode
        self.full = values.shape[-1] // self.step
        rest = values.square().flip(-1).cumsum(-1).flip(-1)
        rest = torch.cat([rest, rest.new_zeros(len(rest), 1)], -1)
        self.values, self._rest = values, rest.sum(0)
        self.unit = max(1, state_bytes(layer) // self.full)

    def tail(self, r: int) -> float:
        """See `Plan`; from the Hankel singular values."""
        return float(self._rest[self.step * r] / self._rest[0].clamp(min=1e-300))

    def error(self, r: int) -> float:
        layer = widened(self.draft(r))
        whole = look(self.joined, nothing(self.joined))[0].max()
        return float(look(self.joined, joined(layer.system()))[0].max() / whole)

    def draft(self, r: int) -> Layer:
        return self._with(self._truncated(r).system)

    def make(self, r: int) -> Made:
        with torch.no_grad():
            begin = self._truncated(r)
            chosen, found = begin.system, "balanced"
            if self.method == "auto":
                chosen, refined = self._refined(begin)
                found = "balanced, refined" if refined else "balanced"
            made = self._row(r, begin, chosen, found)
            bound, error = made.row.predicted, made.row.measured
            if "refined" in found and bound is not None and error is not None and error > bound:
                made = self._row(r, begin, begin.system, "balanced")  # the bound holds for it
            return made

    def _row(self, r: int, begin: Truncated, chosen: DiagonalSystem, found: str) -> Made:
        layer = self._with(chosen)
        stored = joined(widened(layer).system())
        rounding = error_of(chosen, stored, tight=False).high
        gain = gain_of(self.operator)
        error = error_of(self.operator, operator_of(widened(layer)))
        both = math.sqrt(2) if getattr(layer, "bidirectional", False) else 1.0
        bound = both * float((begin.bound + rounding).max())
        row = ReducedLayer(
            self.name, type(layer).__name__, d_state_of(self.layer), d_state_of(layer),
            found if self.method in ("auto", "balanced") else self.method,
            predicted=bound / gain.low if math.isfinite(bound) else None,
            kind="upper_bound", scope=SCOPE,
            measured=float(error.high.max()) / gain.low,
            measured_kind="certified", measured_scope=SCOPE,
            least=self._least(r) / gain.high,
            condition=float(begin.condition.max()),
            bytes_before=state_bytes(self.layer), bytes_after=state_bytes(layer),
            full=self.tail(max(1, self.full * 9 // 10)) > FULL**2,
            note=_note(begin, self.joined),
        )  # fmt: skip
        return Made(layer, row)

    def _least(self, r: int) -> float:
        """Lower bound of the error of every layer with r modes, in the worst channel: sigma_{r+1}
        of one direction."""
        at = self.step * r
        if at >= self.values.shape[-1]:
            return 0.0
        if not getattr(self.layer, "bidirectional", False):
            return float(self.values[:, at].max())
        each = [self.operator.ahead, self.operator.behind]  # type: ignore[union-attr]
        return max(float(hankel(s).values[..., at].max()) for s in each)

    def _truncated(self, r: int) -> Truncated:
        """The truncated system, each channel in its best form."""
        if self.method not in ("auto", "balanced"):
            assert isinstance(self.joined, DiagonalSystem)  # checked in the constructor
            return by_score(self.joined, r, self.method)
        forms = [by_reals(self.joined, r, only_real=not self.pairs)]
        if isinstance(self.joined, DiagonalSystem):
            forms.append(by_modes(self.joined, r))
            if self.pairs:
                forms.append(by_halves(self.joined, r))
        best = None
        for form in filter(self._fits, map(self._allowed, forms)):
            h2 = error_h2(self.joined, form.system)
            h2 = torch.where(form.bound.isfinite(), h2, torch.inf)
            best = (form, h2) if best is None else _better(best, form, h2)
        if best is None or not bool(best[1].isfinite().all()):
            raise InputError(
                f"{self.name}: no system of {r} modes near this one can be made diagonal (the "
                "eigenvectors are too close to each other); try another size"
            )
        return best[0]

    def _allowed(self, form: Truncated) -> Truncated:
        """Refuse channels that the parameters cannot store: exp(dt A) of a real A is positive, if
        the layer stores no signs."""
        signed = getattr(self.layer, "sign", None) is not None
        if self.pairs or signed or getattr(self.layer, "variant", "") != "zoh":
            return form
        bad = (form.system.A < 0).any(-1)
        return form._replace(bound=torch.where(bad, torch.inf, form.bound))

    @staticmethod
    def _fits(form: Truncated) -> bool:
        return bool(form.bound.isfinite().any())

    def _refined(self, begin: Truncated) -> tuple[DiagonalSystem, bool]:
        true = self.joined
        if not isinstance(true, DiagonalSystem):  # S4: its best diagonal form
            true = by_reals(true, self.full).system
        near = begin.system
        with torch.enable_grad():
            better = refine(true, near)
        wins = improves(look(self.joined, better), look(self.joined, near))
        return mixed(wins, better, near), bool(wins.any())

    def _with(self, system: DiagonalSystem) -> Layer:
        parts = [system.C]
        if getattr(self.layer, "bidirectional", False):
            o = system.C.shape[-2] // 2
            parts = [system.C.unflatten(-2, (2, o)).movedim(-3, 0)]
        return self.layer.with_system(replace(system, C=parts[0], D=self._D()))

    def _D(self) -> Tensor:
        D: Tensor = self.layer.system().D.detach().cpu().double()
        return D


class Gain(NamedTuple):
    """Bounds of a gain. A bound of an error is a share of `low`, the least error one of `high`."""

    low: float
    high: float


def gain_of(operator: Operator) -> Gain:
    """The gain of a layer: the largest of its channels."""
    found = norms_of(operator)
    return Gain(max(float(found.low.max()), 1e-300), max(float(found.high.max()), 1e-300))


def improves(new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor]) -> Tensor:
    """Whether the product of the two errors is smaller."""
    return new[0] * new[1] < old[0] * old[1]


def nothing(system: System) -> DiagonalSystem:
    """A system with the same inputs and outputs whose output is zero."""
    zero = system.B.new_zeros(1, dtype=torch.complex128 if _pairs(system) else torch.float64)
    i, o = system.B.shape[-1], system.C.shape[-2]
    return DiagonalSystem(
        zero, zero.expand(1, i), zero.expand(o, 1), torch.zeros(o, i, dtype=torch.float64),
        conjugate=_pairs(system), discrete=True,
    )  # fmt: skip


def _pairs(system: System) -> bool:
    return not isinstance(system, DiagonalSystem) or system.conjugate


def _note(begin: Truncated, joined: System) -> str:
    worst = float(begin.condition.max())
    said = f"Condition of the eigenvectors {worst:.0f}." if worst > 100 else ""
    if not isinstance(joined, DiagonalSystem):
        said = f"S4 without its low-rank part. {said}".strip()
    return said


def operator_of(layer: Any) -> Operator:
    """The system of a layer, with both directions."""
    both = getattr(layer, "bidirectional", False)
    made: Operator = layer.two_sided() if both else layer.system()
    return made


def joined(system: Any) -> DiagonalSystem | DenseSystem:
    """One system without D; of a bidirectional layer with the outputs of both directions."""
    C, two = system.C, system.C.dim() > system.B.dim()
    if two:
        C = C.movedim(0, -3).flatten(-3, -2)
    D = torch.zeros(*C.shape[:-1], system.B.shape[-1], dtype=torch.float64)
    made: DiagonalSystem | DenseSystem = replace(system, C=C, D=D)
    return made


def error_h2(true: System, near: DiagonalSystem) -> Tensor:
    """The H2 norm of the difference."""

    energy = _energy(minus(true, near))  # type: ignore[arg-type]
    return energy.clamp(min=0).sqrt()


def _better(
    best: tuple[Truncated, Tensor], form: Truncated, h2: Tensor
) -> tuple[Truncated, Tensor]:
    wins = h2 < best[1]
    old = best[0]
    merged = Truncated(
        mixed(wins, form.system, old.system),
        torch.where(wins, form.bound, old.bound),
        torch.where(wins, form.condition, old.condition),
    )
    return merged, torch.where(wins, h2, best[1])


def mixed(wins: Tensor, one: DiagonalSystem, other: DiagonalSystem) -> DiagonalSystem:
    """Channels of `one` where `wins` is True, of `other` elsewhere."""

    def pick(a: Tensor, b: Tensor, axes: int) -> Tensor:
        return torch.where(wins.reshape(wins.shape + (1,) * axes), a, b)

    return replace(
        other, A=pick(one.A, other.A, 1), B=pick(one.B, other.B, 2), C=pick(one.C, other.C, 2)
    )
