"""The memory of a forecaster's linear layers, for its report: a table and two figures.

All of it is a property of `layer.system()`, so it holds for every input.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from matplotlib.axes import Axes

from longstate.memory import timescales
from longstate.reports._figure import COLOURS, draw, legend, log_axis
from longstate.reports._markup import Markup, element, table
from longstate.reports._units import marks, steps
from longstate.systems import DenseSystem, DiagonalSystem, DPLRSystem

System = DiagonalSystem | DPLRSystem | DenseSystem

T = TypeVar("T")

FORGOTTEN = 0.05  # of the response to the window, below which it hardly matters
_SHOWN = 4  # layers in a picture; a deeper model shows its first, its last and two between


@dataclass(frozen=True)
class LayerMemory:
    """The impulse response of one linear layer. Exact, for all inputs.

    Args:
        name: of the layer.
        time_constants (n): of every state, in steps; see `longstate.memory.timescales`.
        strength (t): root mean square of the impulse response over its channels, at each lag. The
            feed-through D, which is no memory, is left out.
        half, most: lags that contain 50 % and 99 % of the energy of the first t lags.
    """

    name: str
    time_constants: np.ndarray
    strength: np.ndarray
    half: int
    most: int

    def of_window(self, window: int, horizon: int) -> float:
        """Share of the energy of the response that is to the window, at the last step of a horizon:
        the newest sample of the window is `horizon` steps back there."""
        power = self.strength[: window + horizon].astype(np.float64) ** 2
        total = float(power.sum())
        return float(power[horizon:].sum()) / total if total else 0.0


def layer_memory(name: str, system: System, length: int) -> LayerMemory:
    """The memory of a discrete system.

    Raises:
        ValueError: the system is continuous; its time constants have no step.
    """
    if not system.discrete:
        raise ValueError(f"the system of {name} must be discrete; call discretize(rule, dt) first")
    with torch.no_grad():
        system = replace(system, D=torch.zeros_like(system.D))
        constants = timescales(system).steps.flatten()
        # an eigenvalue this close to the unit circle is on it, up to rounding
        on_circle = 1 / (constants.numel() * torch.finfo(constants.dtype).eps)
        constants = torch.where(constants < on_circle, constants, torch.inf)
        response = system.impulse_response(length).abs().double()
    power = response.square().movedim(-3, 0).flatten(1).mean(1)
    share = torch.cumsum(power, 0) / power.sum().clamp_min(torch.finfo(power.dtype).tiny)
    return LayerMemory(
        name,
        constants.numpy(),
        power.sqrt().numpy(),
        half=int((share < 0.5).sum()),
        most=int((share < 0.99).sum()),
    )


def memories(systems: Mapping[str, System], window: int, horizon: int = 0) -> list[LayerMemory]:
    length = int(min(max(2 * window, window + horizon, 64), 8192))
    return [layer_memory(name, system, length) for name, system in systems.items()]


def memory_table(
    layers: list[LayerMemory], interval: float | None, window: int, horizon: int | None = None
) -> Markup:
    head = ["layer", "half of the response within", "99 % within"]
    head += ["median time constant" if horizon is None else "of the window, at the last step"]
    rows = []
    for layer in layers:
        slowest = layer.time_constants.max(initial=0)
        if horizon is None:
            more = steps(float(np.median(layer.time_constants)), interval)
        else:
            more = f"{100 * layer.of_window(window, horizon):.0f} %"
        cells = (
            layer.name,
            steps(layer.half + 1, interval),
            steps(layer.most + 1, interval),
            more,
            "does not fade" if np.isinf(slowest) else steps(float(slowest), interval),
        )
        rows.append(cells)
    return table((*head, "slowest time constant"), rows)


def against_horizon(
    layers: list[LayerMemory], window: int, horizon: int, interval: float | None
) -> str:
    """What is left of the window in the layers at the last step of the forecast."""
    far = max(layers, key=lambda layer: layer.of_window(window, horizon))
    share = far.of_window(window, horizon)
    said = (
        f"At the last step of the forecast the newest known sample is {steps(horizon, interval)} "
        f"back. There {far.name}, which remembers most, gives {100 * share:.0f} % of its response "
        "to the window and the rest to the rows of the forecast (the line and what is known in "
        "advance)."
    )
    if share >= FORGOTTEN:
        return said
    return f"{said} So the layers add next to nothing to the line there."


def impulse_figure(
    layers: list[LayerMemory], at: Mapping[str, int], interval: float | None
) -> Markup:
    length = len(layers[0].strength)

    def paint(ax: Axes) -> None:
        for i, layer in chosen(layers):
            top = layer.strength.max() or 1.0
            # Zeros cannot be drawn on a logarithmic axis.
            relative = np.where(layer.strength > 0, layer.strength / top, np.nan)
            ax.plot(np.arange(1, length + 1), relative, label=short(layer.name), **line_style(i))
        ax.set(xscale="log", yscale="log", xlim=(1, length), xlabel="samples back, 1 is the newest")
        ax.set_ylabel("strength, relative to its peak")
        ax.set_ylim(bottom=max(1e-5, ax.get_ylim()[0]), top=1.3)
        log_axis(ax.yaxis)
        _finish(ax, at, interval)

    return draw(
        "Response to one sample",
        "Line chart of the strength of each layer's impulse response against the lag.",
        "exact",
        "For all inputs: the root mean square over channels of each linear layer's impulse "
        "response. The nonlinear interaction of the layers is not included.",
        paint,
    )


def time_scale_figure(
    layers: list[LayerMemory], at: Mapping[str, int], interval: float | None
) -> Markup:
    finite = np.concatenate([x.time_constants[np.isfinite(x.time_constants)] for x in layers])
    low = max(min(finite.min(initial=1.0), 1.0), 0.05)
    high = max(finite.max(initial=1.0), 2.0 * max(at.values()))
    edges = np.geomspace(low, high * 1.01, 41)

    def paint(ax: Axes) -> None:
        for i, layer in chosen(layers):
            counts, _ = np.histogram(np.clip(layer.time_constants, low, high), edges)
            share = 100 * counts / max(1, layer.time_constants.size)
            style = line_style(i)
            ax.stairs(share, edges, fill=True, color=style["color"], alpha=0.13)
            ax.stairs(share, edges, label=short(layer.name), **style)
        ax.set(xscale="log", xlim=(edges[0], edges[-1]), xlabel="time constant, steps")
        ax.set_ylabel("states of the layer, %")
        ax.set_ylim(bottom=0)
        _finish(ax, at, interval)

    forever = sum(int(np.isinf(x.time_constants).sum()) for x in layers)
    without = f" {forever:,} states do not fade and are counted at the right." if forever else ""
    return draw(
        "Time scales of the states",
        "Histogram of the time constants of each layer's states, on a logarithmic axis.",
        "exact",
        "For all inputs: -1 / log|a| of every eigenvalue, the steps in which a state falls to 37 %."
        + without,
        paint,
    )


def chosen(layers: Sequence[T]) -> list[tuple[int, T]]:
    """At most four layers, each with the number of its line style."""
    if len(layers) <= _SHOWN:
        return list(enumerate(layers))
    picks = np.unique(np.linspace(0, len(layers) - 1, _SHOWN).round().astype(int))
    return [(i, layers[pick]) for i, pick in enumerate(picks)]


def short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def line_style(i: int) -> dict:
    dashes = ((0, ()), (0, (5, 1.5)), (0, (2.5, 1.5)), (0, (1, 1.3)))
    return {"color": COLOURS[f"layer{i}"], "linestyle": dashes[i], "linewidth": 1.4}


def _finish(ax: Axes, at: Mapping[str, int], interval: float | None) -> None:
    log_axis(ax.xaxis)
    low, high = ax.get_xlim()
    for i, (name, lag) in enumerate(at.items()):
        if low < lag < high:
            ax.axvline(lag, color=COLOURS["muted"], linewidth=0.9, linestyle=(0, (2, 2)))
            ax.annotate(
                name, (lag, 1), (-3, -10 * i), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="right", va="top", color=COLOURS["muted"],
                fontsize=8,
            )  # fmt: skip
    named = marks(low, high, interval)
    if named:
        # A second row of tick labels, between the steps and the name of the axis.
        below = ax.secondary_xaxis(0.0)
        below.set_xticks([x for x, _ in named], [name for _, name in named])
        below.minorticks_off()
        below.spines["bottom"].set_visible(False)
        below.tick_params(length=0, pad=15, labelsize=8)
        ax.xaxis.labelpad = 13
    legend(ax, 2)


def linear_systems(blocks: Any) -> dict[str, System]:
    """The systems of those layers of a stack that have one, by number and class."""
    return {
        name: mixer.system() for name, mixer in _named(blocks).items() if hasattr(mixer, "system")
    }


def selective_layers(blocks: Any) -> tuple[str, ...]:
    """The names of the other layers."""
    return tuple(name for name, mixer in _named(blocks).items() if not hasattr(mixer, "system"))


def _named(blocks: Any) -> dict[str, Any]:
    return {
        f"layer {i} ({type(block.mixer).__name__})": block.mixer
        for i, block in enumerate(blocks.each_block(), start=1)
    }


def memory_section(
    systems: Mapping[str, System],
    length: int,
    interval: float | None,
    said: str,
    *,
    horizon: int | None = None,
) -> Markup | None:
    """What linear layers remember; None if there are none.

    Args:
        systems: name of a layer -> its system.
        length: lags of the pictures.
        interval: seconds between samples; None when unknown.
        said: what time constants much shorter than `length` mean.
        horizon: steps that a forecast goes ahead; None if it is none.
    """
    if not systems:
        return None
    layers = memories(systems, length, horizon or 0)
    at = {"window": length} if horizon is None else {"window": length, "horizon": horizon}
    pictures = [f(layers, at, interval) for f in (impulse_figure, time_scale_figure)]
    against = [] if horizon is None else [against_horizon(layers, length, horizon, interval)]
    known = (
        "Each layer is a linear system, so its memory is known exactly. Shares are of the energy "
        f"of its response to one sample over {len(layers[0].strength):,} steps. {said}"
    )
    return element(
        "section",
        element("h2", "What the layers remember"),
        *(element("p", sentence) for sentence in against),
        element("p", known, class_="note"),
        memory_table(layers, interval, length, horizon),
        element("div", *pictures, class_="figures"),
    )
