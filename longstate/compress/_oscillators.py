"""Reduction of LinOSS ("im"): fewer oscillators.

The poles of an oscillator lie on one curve, (1 + i sqrt(a)) / (1 + a). The poles of balanced
truncation do not, so LinOSS cannot store them. Instead the oscillators with the largest
contribution are kept. A gradient search then moves their frequencies and input weights; the best
output weights solve a linear system. The lower bound of the error, sigma_{r+1}, holds here too.
"""

import math
from typing import Any

import torch
from torch import Tensor

from longstate.compress._linear import SCOPE, gain_of, improves, nothing
from longstate.compress._plan import Made, d_state_of, state_bytes
from longstate.compress._report import FULL, Method, ReducedLayer
from longstate.compress._scores import scores
from longstate.layers import Layer
from longstate.layers.linoss import oscillation
from longstate.memory import hankel, widened
from longstate.memory._difference import error_of, look
from longstate.memory._refine import Poles, search

Parts = tuple[Tensor, Tensor, Tensor]


class OscillatorPlan:
    """The `Plan` of a LinOSS layer with the implicit rule. A unit is an oscillator."""

    def __init__(self, name: str, layer: Any, method: Method):
        self.name, self.layer, self.method = name, layer, method
        with torch.no_grad():
            wide = widened(layer)
            self.modes = wide.modes()
            a, B = wide._folded()
            C = wide._complex(wide.C)
        self.parts: Parts = a, torch.cat([B.real, B.imag]), torch.cat([C.real, -C.imag], 1)
        self.full = len(a)
        self.values = hankel(self.modes).values
        rest = self.values.square().flip(-1).cumsum(-1).flip(-1)
        self._rest = torch.cat([rest, rest.new_zeros(1)])
        self.unit = max(1, state_bytes(layer) // self.full)
        size = self.modes.B.norm(dim=-1) * self.modes.C.norm(dim=-2)
        self.share = (
            2 * size / (1 - self.modes.A.abs())
        )  # bound of the contribution of each mode to the gain
        given = self.share if method in ("auto", "balanced") else scores(self.modes, method)
        self.order = given.unflatten(0, (2, -1)).sum(0).argsort(descending=True)

    def tail(self, r: int) -> float:
        return float(self._rest[4 * r] / self._rest[0].clamp(min=1e-300))

    def error(self, r: int) -> float:
        whole = look(self.modes, nothing(self.modes))[0]
        return float(look(self.modes, widened(self.draft(r)).modes())[0] / whole)

    def draft(self, r: int) -> Layer:
        return self._with(self._kept(r))

    def make(self, r: int) -> Made:
        kept, found = self._kept(r), "largest oscillators"
        layer = self._with(kept)
        if self.method == "auto":
            moved = self._with(self._moved(kept))
            seen = [look(self.modes, widened(v).modes()) for v in (moved, layer)]
            if bool(improves(*seen)):
                layer, found = moved, "largest oscillators, refined"
        error = error_of(self.modes, widened(layer).modes())
        if self.method not in ("auto", "balanced"):
            found = self.method
        gain = gain_of(self.modes)
        dropped = self.share.clone().unflatten(0, (2, -1)).sum(0)[self.order[r:]].sum()
        row = ReducedLayer(
            self.name, type(layer).__name__, d_state_of(self.layer), r, found,
            predicted=None if "refined" in found else float(dropped) / gain.low,
            kind="upper_bound", scope=SCOPE, measured=float(error.high) / gain.low,
            measured_kind="certified", measured_scope=SCOPE,
            least=float(self.values[4 * r]) / gain.high if 4 * r < len(self.values) else 0.0,
            bytes_before=state_bytes(self.layer), bytes_after=state_bytes(layer),
            full=self.tail(max(1, self.full * 9 // 10)) > FULL**2,
        )  # fmt: skip
        return Made(layer, row)

    def _kept(self, r: int) -> Parts:
        at = self.order[:r].sort().values
        both = torch.cat([at, at + self.full])
        a, force, read = self.parts
        return a[at], force[both], read[:, both]

    def _moved(self, kept: Parts) -> Parts:
        a, force, _ = kept

        def modes(log_a: Tensor, into: Tensor) -> tuple[Tensor, Tensor]:
            pole, weight = oscillation(log_a.exp())
            return pole.repeat(2), into * weight.repeat(2)[:, None]

        scale = 1 / math.sqrt(float(force.square().mean().clamp(min=1e-300)))
        with torch.enable_grad():
            fit = search(self.modes, Poles([a.log(), force * scale], modes, first=True))
        # the output is 2 Re(...) of the modes
        return fit.values[0].exp(), fit.values[1], fit.C / 2

    def _with(self, parts: Parts) -> Layer:
        made: Layer = self.layer.with_oscillators(*parts)
        return made
