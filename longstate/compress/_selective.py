"""Reduction of selective layers, from statistics of their states on data.

If a head has one decay (Mamba-2, Mamba-3), its state is projected. If each entry of a state has its
own decay (Mamba, FalconMamba, Longhorn), whole columns are removed, which saves memory and time
with the existing kernels. In both cases the remaining states do not change, so the error of the
recurrence on given inputs follows from the states of the original layer. It is exact, except for
the exact form of Longhorn, whose columns are coupled.
"""

from typing import Any

import torch
from torch import Tensor

from longstate.compress._plan import Made, d_state_of, state_bytes
from longstate.compress._report import FULL, Method, MethodError, ReducedLayer
from longstate.layers import Layer, Mamba2, Mamba3
from longstate.layers._projected import selection_of
from longstate.memory._readout import Readout, balanced, greedy, left_out

_METHODS = ("auto", "balanced", "energy", "ghost", "magnitude", "random")


class SelectivePlan:
    """The `Plan` of a layer with `trace`. A unit is a column of its state.

    Raises:
        MethodError: the method is for linear layers.
    """

    def __init__(self, name: str, layer: Any, seen: Readout, method: Method):
        if method not in _METHODS:
            raise MethodError(
                f"method {method!r} is for linear layers; {name} is selective and takes "
                f"{', '.join(map(repr, _METHODS))}"
            )
        self.name, self.layer, self.seen, self.method = name, layer, seen, method
        self.full = int(layer.d_state)
        self.unit = max(1, ssm_bytes(layer) // self.full)
        self.projects = projects(layer, method)
        self._values = balanced(seen.reach, seen.observe, self.full)[2] if self.projects else None
        self._orders = None if self.projects else [self._order(g) for g in range(groups_of(layer))]

    def tail(self, r: int) -> float:
        if self._values is not None:
            lost = self._values[:, r:].square().sum() / self.seen.samples
            return float(lost / self.seen.gated_energy.clamp(min=1e-300))
        out = left_out(self.seen.gated, self.columns(r))
        return float(out / self.seen.gated_energy.clamp(min=1e-300))

    def error(self, r: int) -> float:
        if self.projects:
            return self.tail(r) ** 0.5
        lost = left_out(self.seen.entries, self.columns(r))
        return float((lost / self.seen.energy.clamp(min=1e-300)).sqrt())

    def columns(self, r: int) -> Tensor:
        """The columns that each group keeps (g, r)."""
        assert self._orders is not None
        return torch.tensor([sorted(order[self.full - r :]) for order in self._orders])

    def projection(self, r: int) -> tuple[Tensor, Tensor]:
        """W and V (g, n, r)."""
        if self.projects:
            write, read, _ = balanced(self.seen.reach, self.seen.observe, r)
            return write, read
        one = selection_of(self.columns(r), self.full)
        return one, one

    def draft(self, r: int) -> Layer:
        made: Layer
        if self.projects or isinstance(self.layer, Mamba3):
            made = self.layer.with_projection(*self.projection(r))
        elif isinstance(self.layer, Mamba2):
            made = self.layer.with_states(self.columns(r))
        else:
            made = self.layer.with_states(self.columns(r)[0].tolist())
        return made

    def make(self, r: int) -> Made:
        """See `Plan`; without the error measured on data, which the caller adds."""
        layer = self.draft(r)
        coupled = getattr(self.layer, "variant", "") == "exact"
        predicted = None if self.projects else self.error(r)
        row = ReducedLayer(
            self.name, type(layer).__name__, d_state_of(self.layer), r, self._named(),
            predicted=predicted, kind="estimate" if coupled else "exact",
            bytes_before=state_bytes(self.layer), bytes_after=state_bytes(layer),
            full=self.tail(max(1, self.full * 9 // 10)) > FULL**2,
            note="Its columns are coupled: only the measured error is reliable." if coupled else "",
        )  # fmt: skip
        return Made(layer, row)

    def _named(self) -> str:
        if self.projects:
            return "balanced projection"
        return "energy" if self.method in ("auto", "balanced") else self.method

    def _order(self, group: int) -> list[int]:
        """Columns of one group in the order of removal."""
        if self.method in ("auto", "balanced", "energy"):
            return greedy(self.seen.gated[group])
        if self.method == "ghost":
            score = self.seen.entries[group].diagonal()
        elif self.method == "magnitude":
            score = magnitudes(self.layer)[group]
        else:
            draw = torch.Generator().manual_seed(group)
            score = torch.rand(self.full, generator=draw, dtype=torch.float64)
        return [int(i) for i in score.argsort()]


def projects(layer: Any, method: Method) -> bool:
    """Whether the state is projected, and not single columns removed."""
    return isinstance(layer, Mamba2 | Mamba3) and method in ("auto", "balanced")


def groups_of(layer: Any) -> int:
    """Number of groups of channels that share write and read."""
    if isinstance(layer, Mamba3):
        return layer.n_heads
    return layer.n_groups if isinstance(layer, Mamba2) else 1


def ssm_bytes(layer: Any) -> int:
    """Bytes of the recurrence's state of one sequence, without taps and angles."""
    h = layer.init_state(1)["ssm"]
    return int(h.numel() * h.element_size())


def magnitudes(layer: Any) -> Tensor:
    """Norm of the weights that write a column times the norm of those that read it (g, n)."""
    with torch.no_grad():
        g, n = groups_of(layer), int(layer.d_state)
        if getattr(layer, "projection", None) is not None:
            each = layer.projection
            return each.write.double().norm(dim=1).cpu() * each.read.double().norm(dim=1).cpu()
        if isinstance(layer, Mamba2 | Mamba3):
            inner = layer._sizes[0]
            W = layer.in_proj.weight[2 * inner :][: 2 * layer.n_groups * n].double().cpu()
        else:
            W = layer.x_proj.weight[layer.rank :].double().cpu()
        write, read = W.norm(dim=1).chunk(2)
        score = (write * read).unflatten(0, (-1, write.numel() // max(1, _own_groups(layer))))
        if getattr(layer, "columns", None) is not None:
            score = score[:, layer.columns.cpu()]
        return score.repeat_interleave(g // len(score), dim=0)


def _own_groups(layer: Any) -> int:
    return int(getattr(layer, "n_groups", 1))
