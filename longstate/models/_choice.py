"""The forecast that a forecaster gives: a weighted mean of simple methods and of the network.

    forecast = sum_i weight_i * part_i,     weights at least 0 that add up to 1, from validation

Every part but the network and the map (`IteratedMap`) is a linear map of the window, like `Line`;
all of them need the last `window` rows and nothing else. Bands are the network's own quantiles,
moved so that they hold on windows that no part was fitted to: split conformal prediction (Vovk et
al. 2005, Romano et al. 2019). The margins are larger where the window moves more, by its mean
absolute step:

    quantile_q = forecast + (network_q - network if the network has a weight, else 0)
                 + margin_q * step(window) / usual step

Axes: p parts, b batch, w window, h horizon, c targets, q quantiles.
"""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.errors import InputError, near
from longstate.models._iterated_map import FEWEST_ROWS, MOST_TARGETS, IteratedMap
from longstate.models._line import Forecast, Line, Window
from longstate.models._scale import AtLeastFloat32
from longstate.models._spec import ForecastSpec

if TYPE_CHECKING:
    from longstate.models._forecaster import ForecastModel

PARTS = ("last value", "seasonal naive", "smoothing", "ridge", "line", "map", "network")
NETWORK, MAP = PARTS.index("network"), PARTS.index("map")
MOST_STEPS = 3.0


class Parts(NamedTuple):
    """The forecasts of all parts for one batch, in scaled units.

    Args:
        points (p, b, h, c): the point forecasts, within the bounds.
        offsets (b, h, c, q): distances of the network's quantiles from its point.
        step (b, 1, c): how much the window moves, 1 if as usual.
    """

    points: Float[Tensor, "p b h c"]
    offsets: Float[Tensor, "b h c q"]
    step: Float[Tensor, "b 1 c"]


class Fitted(NamedTuple):
    """Fitted to the same rows. margin (1 + p, h, c, q): of the choice, then of each part."""

    ridge: Line
    line: Line
    map: IteratedMap | None
    margin: Tensor


class Refitted(AtLeastFloat32):
    """Ridge, line, map and margins that were fitted to all rows.

    Args:
        spec: columns and lengths.
        mapped: whether there is a map.
    """

    margin: Tensor

    def __init__(self, spec: ForecastSpec, *, mapped: bool):
        super().__init__()
        self.ridge, self.line = Line(spec), Line(spec)
        self.map = IteratedMap(spec) if mapped else None
        self.register_buffer("margin", _no_margin(spec))


def _no_margin(spec: ForecastSpec) -> Tensor:
    return torch.zeros(1 + len(PARTS), spec.horizon, len(spec.targets), len(spec.quantiles))


class Choice(AtLeastFloat32):
    """The parts and their weights.

    `margin` is from validation, and belongs to ridge and line of the model, which were fitted to
    the training part: an evaluation scores them. `now`, if it was asked for, forecasts.

    Args:
        spec: columns and lengths.
        refitted: whether there is `now`.
        mapped: whether there is a map.
    """

    weight: Tensor
    margin: Tensor
    smoothing: Tensor
    usual_step: Tensor
    naive_error: Tensor

    def __init__(self, spec: ForecastSpec, *, refitted: bool = True, mapped: bool = False):
        super().__init__()
        self._spec = spec
        c, w, h = len(spec.targets), spec.window, spec.horizon
        self.register_buffer("weight", torch.zeros(len(PARTS)))
        self.register_buffer("smoothing", torch.zeros(c, w, h))
        self.register_buffer("usual_step", torch.ones(c))
        self.register_buffer("naive_error", torch.ones(c))
        self.register_buffer("margin", _no_margin(spec))
        self.map = IteratedMap(spec) if mapped else None
        self.now = Refitted(spec, mapped=mapped) if refitted else None

    @classmethod
    def of(cls, spec: ForecastSpec, names: Iterable[str]) -> "Choice | None":
        """The empty choice for a model whose tensors have these names; None where it has none."""
        names = [name for name in names if name.startswith("choice.")]
        refitted = any(name.startswith("choice.now.") for name in names)
        mapped = any(name.startswith("choice.map.") for name in names)
        return cls(spec, refitted=refitted, mapped=mapped) if names else None

    @property
    def levels(self) -> tuple[float, ...]:
        """Of the quantiles."""
        return self._spec.quantiles

    @property
    def available(self) -> tuple[bool, ...]:
        """(p): a window shorter than a season has no seasonal naive forecast."""
        lacking = set() if self._spec.window >= self._spec.season else {"seasonal naive"}
        lacking |= {"map"} if self.map is None else set()
        return tuple(name not in lacking for name in PARTS)

    def fitted(self, model: "ForecastModel", *, refitted: bool = False) -> Fitted:
        """What was fitted to the training part; or to all rows, where there is such."""
        if refitted and self.now is not None:
            return Fitted(self.now.ridge, self.now.line, self.now.map, self.now.margin)
        return Fitted(model.ridge, model.line, self.map, self.margin)

    def forecast(self, model: "ForecastModel", window: Window, method: str | None) -> Forecast:
        """In scaled units.

        Args:
            model: of this choice.
            window: the input.
            method: one of `PARTS`; None for the choice.

        Raises:
            InputError: there is no such part.
        """
        fitted, without = self.fitted(model, refitted=True), self.unread(method)
        if _watched(model):
            without -= {"network"}
        return self.of_parts(self.parts(model, window, fitted, without), fitted, method)

    def unread(self, method: str | None = None) -> set[str]:
        """Map and network, as far as a forecast of this method (None: of the choice) does without:
        they take time."""
        if method is not None:
            return {"map", "network"} - {PARTS[self._index(method)]}
        return {name for name in ("map", "network") if self.weight[PARTS.index(name)] == 0}

    def parts(
        self,
        model: "ForecastModel",
        window: Window,
        fitted: Fitted,
        without: Collection[str] = (),
    ) -> Parts:
        """The forecasts of all parts.

        Args:
            model: of this choice.
            window: the input.
            fitted: ridge, line and map.
            without: map or network, which is not run: its forecast is nan, as that of a map that is
                not there. Without the network the distances are 0.
        """
        last, x, scaled = model.normalise(window)
        h = self._spec.horizon
        features = fitted.line.features(x, scaled)
        steps = torch.arange(h) % self._spec.season
        zero = torch.zeros_like(x[:, :1]).expand(-1, h, -1)
        naive = zero
        if self._spec.window >= self._spec.season:
            naive = x[:, x.shape[1] - self._spec.season + steps]
        smoothing = torch.einsum("bwc,cwh->bhc", x, self.smoothing.to(x.dtype))
        linear = [zero, naive, smoothing, fitted.ridge(features), fitted.line(features)]
        unknown = torch.full_like(zero, torch.nan)
        mapped = unknown
        if fitted.map is not None and "map" not in without:
            mapped = fitted.map(model.units(window).exact(window.target)).to(x.dtype)
        if "network" not in without:
            point, quantiles = model(window, scaled=True)
            offsets = quantiles - point[..., None]
        else:
            point = unknown
            offsets = zero[..., None].expand(*zero.shape, len(self._spec.quantiles))
        points = torch.stack([*(last + part for part in linear), mapped, point])
        points = model.within(points, window)
        return Parts(points, offsets, self._step(x))

    def _step(self, x: Float[Tensor, "b w c"]) -> Float[Tensor, "b 1 c"]:
        """Mean absolute step of the window over the usual one, from 1/3 to 3."""
        if x.shape[1] < 2:
            return torch.ones_like(x[:, :1])
        step = x.diff(dim=1).abs().mean(1, keepdim=True) / self.usual_step.to(x.dtype)
        return step.clamp(1 / MOST_STEPS, MOST_STEPS)

    def combined(self, points: Float[Tensor, "p b h c"]) -> Float[Tensor, "b h c"]:
        """The weighted mean."""
        return weighted(self.weight, points)

    def of_parts(self, parts: Parts, fitted: Fitted, method: str | None) -> Forecast:
        """A forecast with its quantiles, in scaled units."""
        if method is None:
            index, point = 0, self.combined(parts.points)
        else:
            index = 1 + self._index(method)
            point = parts.points[index - 1]
        margin = fitted.margin[index].to(point.dtype)
        quantiles = point[..., None] + margin * parts.step[..., None]
        if self.network_bands(index):
            quantiles = quantiles + parts.offsets
        return Forecast(point, quantiles.sort(dim=-1).values)

    def network_bands(self, index: int) -> bool:
        """Whether bands are made of the network's quantiles: index 0 is the choice, 1 + i is part
        i."""
        return index == 1 + NETWORK or (index == 0 and bool(self.weight[NETWORK] > 0))

    def _index(self, method: str) -> int:
        if method not in PARTS:
            raise InputError(f"there is no method {method!r}; {near(method, PARTS)}")
        if method == "map" and self.map is None:
            raise InputError(
                "this forecaster has no map of one row to the next: that needs even times, at most "
                f"{MOST_TARGETS} targets and {FEWEST_ROWS} rows in the training"
            )
        if not self.available[PARTS.index(method)]:
            raise InputError(
                f"{method} needs a window of one season; the window has {self._spec.window} rows, "
                f"the season {self._spec.season}"
            )
        return PARTS.index(method)


def weighted(weight: Float[Tensor, " p"], points: Float[Tensor, "p ..."]) -> Tensor:
    """The weighted mean of parts; those without a weight may be nan."""
    used = weight > 0
    return torch.tensordot(weight[used].to(points.dtype), points[used], dims=1)


def with_all_parts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, with a place for the map if it was written before there was one."""
    weight = tensors.get("choice.weight")
    if weight is None or len(weight) != len(PARTS) - 1:
        return tensors
    places = {"choice.weight": MAP, "choice.margin": 1 + MAP, "choice.now.margin": 1 + MAP}
    grown = {
        name: torch.cat([x[:at], torch.zeros_like(x[:1]), x[at:]])
        for name, at in places.items()
        if (x := tensors.get(name)) is not None
    }
    return {**tensors, **grown}


def _watched(model: "ForecastModel") -> bool:
    """Whether somebody looks at the network, as `reduce` does: then it runs in any case."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
