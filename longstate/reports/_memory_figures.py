"""Figures of the memory report. Each shows the kind and the scope of its numbers."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes

from longstate._numbers import number
from longstate.memory import Result
from longstate.memory._result import THIS_DATA
from longstate.reports._figure import COLOURS, draw, legend, log_axis
from longstate.reports._forecast_memory import chosen, line_style, short
from longstate.reports._markup import Markup
from longstate.reports._memory_examine import FLOOR, LETTERS, SEQUENCES, Measured

_DOTS = 300  # most dots in a strip
_FAINTEST = 1e-6  # end of the axis, as a share of the largest Hankel singular value
_DECADES = 4  # decades of hidden attention that are shown
_CHUNK = 8  # tokens that share a label
_INK = (0.36, 0.55, 0.86)  # visible on a light and on a dark page


def has(layers: Sequence[Measured], what: str) -> list[Measured]:
    return [m for m in layers if getattr(m, what) is not None]


def _caption(results: Sequence[Result], text: str) -> tuple[str, str]:
    """Kind for the badge, and a caption with the scope and the worst layer's sentence."""
    first = results[0]
    scope = first.scope[0].upper() + first.scope[1:]
    return first.kind.replace("_", " "), f"{scope}. {text}"


def hankel_figure(layers: Sequence[Measured]) -> Markup:
    spectra = [m.spectrum.values for m in layers if m.spectrum is not None]
    top = max(max(float(v.max()) for v in spectra), 1e-300)
    least = top * _FAINTEST  # smaller values are rounding errors, and would determine the axis

    def paint(ax: Axes) -> None:
        for i, m in chosen(layers):
            assert m.spectrum is not None
            values = m.spectrum.values.reshape(-1, m.spectrum.values.shape[-1]).numpy()
            values = values.clip(min=least / 10)
            order, style = np.arange(1, values.shape[1] + 1), line_style(i)
            low, middle, high = (np.quantile(values, q, axis=0) for q in (0.1, 0.5, 0.9))
            ax.fill_between(order, low, high, color=style["color"], alpha=0.13, linewidth=0)
            ax.plot(order, middle, label=short(m.name), **style)
        ax.set(yscale="log", xlabel="direction of the state", ylabel="gain from past to future")
        smallest = min(float(v.clamp(min=least).min()) for v in spectra)
        ax.set_ylim(smallest / 1.5, top * 1.5)
        log_axis(ax.yaxis)
        legend(ax, 2)

    kind, caption = _caption(
        [m.spectrum for m in layers if m.spectrum is not None],
        "Hankel singular values of each linear layer, median over channels and the middle 80 %: "
        "the gain from all past inputs through the best directions to all future outputs. "
        "Directions far below the first are hardly used.",
    )
    return draw(
        "How much of the state is used",
        "Line chart of the Hankel singular values of each linear layer in falling order.",
        kind,
        caption,
        paint,
    )


def curve_figure(layers: Sequence[Measured], unit: str, length: int | None) -> Markup:
    def paint(ax: Axes) -> None:
        for i, m in chosen(layers):
            assert m.curve is not None
            bits = m.curve.bits.reshape(-1, m.curve.bits.shape[-1]).amax(0).numpy()
            at = np.arange(1, len(bits) + 1)
            ax.plot(at, np.where(bits > 0, bits, np.nan), label=short(m.name), **line_style(i))
        ax.set(xscale="log", yscale="log", xlabel=f"{unit} back, 1 is the newest")
        ax.set_ylabel("bits about that input")
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, 1e-4), high)
        log_axis(ax.yaxis)
        _mark(ax, length)

    kind, caption = _caption(
        [m.curve for m in layers if m.curve is not None],
        f"Bits that the best channel's state holds about the input at each distance ({unit}), if "
        f"it is read with the rounding of {FLOOR}. Only the curve distinguishes states: without "
        "noise, the sum of the memory coefficients of any linear state is its size.",
    )
    return draw(
        "Memory curve of the linear layers",
        "Line chart of bits about the input at each lag.",
        kind,
        caption,
        paint,
    )


def probe_figure(layers: Sequence[Measured], unit: str) -> Markup:
    def paint(ax: Axes) -> None:
        for i, m in chosen(layers):
            assert m.known is not None
            lags = [int(name.removeprefix("lag ")) + 1 for name in m.known.labels]
            style = line_style(i)
            bits, error = m.known.bits.numpy(), m.known.error.numpy()
            ax.fill_between(
                lags, bits - error, bits + error, color=style["color"], alpha=0.15, linewidth=0
            )
            ax.plot(lags, bits, marker="o", markersize=3, label=short(m.name), **style)
        ax.axhline(np.log2(LETTERS), color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (2, 2)))
        ax.set(xscale="log", xlabel=f"{unit} back, 1 is the newest", ylabel="bits about that one")
        ax.set_ylim(bottom=0)
        _mark(ax, None)

    known = [m.known for m in layers if m.known is not None]
    samples = min(k.samples for k in known)
    return draw(
        "Memory curve of the text model",
        "Line chart of bits about the token at each lag, from held-out probes.",
        known[0].kind.replace("_", " "),
        f"On {SEQUENCES} sequences of letters drawn at random from the {LETTERS} most common ones "
        f"of the data, so that no letter can be guessed from its neighbours; up to the standard "
        f"error (shaded), {samples} sequences held out. The state, with the newest few that a "
        "short convolution keeps, holds at least this much information; the dashed line is the "
        f"information of a letter, log2 {LETTERS} bits.",
        paint,
    )


def strips_figure(layers: Sequence[Measured], unit: str, length: int | None) -> Markup:
    """A strip for each layer with a dot for each state."""
    shuffle = np.random.default_rng(0)

    def paint(ax: Axes) -> None:
        for i, m in enumerate(layers):
            assert m.scales is not None
            steps = m.scales.steps.flatten()
            share = torch.linspace(0, len(steps) - 1, min(_DOTS, len(steps))).round().long()
            at = steps.sort().values[share].clamp(min=0.05, max=1e7).numpy()
            height = len(layers) - i + shuffle.uniform(-0.3, 0.3, len(at))
            ax.scatter(at, height, s=4, color=COLOURS[f"layer{i % 4}"], alpha=0.45, linewidths=0)
        names = [short(m.name) for m in layers]
        ax.set_yticks(range(len(layers), 0, -1), names)
        ax.set(xscale="log", xlabel=f"{unit} until 37 % is left", ylim=(0.5, len(layers) + 0.5))
        ax.grid(axis="y", visible=False)
        _mark(ax, length)

    kind, caption = _caption(
        [m.scales for m in layers if m.scales is not None],
        "A dot for each state (a regular selection if there are many): how far back it reaches. "
        + ("" if length is None else f"The line is the training length, {length:,} {unit}."),
    )
    if len({m.scales.scope for m in layers if m.scales is not None}) > 1:
        caption = "Linear layers for all inputs, selective ones on this data. " + caption
    return draw(
        "Time scales",
        "One strip for each layer with a dot for each state, on a logarithmic time axis.",
        kind,
        caption,
        paint,
        max(2.0, min(0.9 + 0.28 * len(layers), 9.0)),
    )


def effective_figure(layers: Sequence[Measured], unit: str) -> Markup:
    def paint(ax: Axes) -> None:
        for i, m in chosen(layers):
            assert m.effective is not None
            along = 100 * m.effective.along[0] / m.effective.d_state
            ax.plot(m.effective.positions, along, label=short(m.name), **line_style(i))
        ax.set(xlabel=f"position, {unit}", ylabel="of the state's numbers, %")
        ax.set_ylim(bottom=0)
        legend(ax, 2)

    kind, caption = _caption(
        [m.effective for m in layers if m.effective is not None],
        "Effective state size: how many numbers carry information from the inputs before that "
        "position to the outputs after it. Near both ends there is little information to carry.",
    )
    return draw(
        "The state in use along the text",
        "Line chart of the effective state size at each position.",
        kind,
        caption,
        paint,
    )


def attention_figure(m: Measured, unit: str, words: Sequence[str] = ()) -> Markup:
    """The weights of earlier inputs, with a scale.

    Args:
        words: the tokens that were read, to label the axes of a layer that chooses by them.
    """
    assert m.attention is not None
    size = m.attention.weights.abs().flatten(0, -3).mean(0).numpy()
    top = max(float(size.max()), 1e-300)
    told = words[: len(size)] if m.scales is not None and m.scales.scope == THIS_DATA else ()

    def paint(ax: Axes) -> None:
        strength = np.clip(1 + np.log10(np.maximum(size / top, 1e-9)) / _DECADES, 0, 1)
        ax.imshow(_tinted(strength), aspect="auto", interpolation="nearest")
        ax.set(xlabel=f"input, {unit}", ylabel=f"output, {unit}")
        ax.grid(visible=False)
        if told:
            at = list(range(0, len(told), _CHUNK))
            labels = [visible("".join(told[i : i + _CHUNK])) for i in at]
            ax.set_xticks(at, labels, rotation=90, fontsize=7)
            ax.set_yticks(at, labels, fontsize=7)
        _scale(ax)

    kind, caption = _caption(
        [m.attention],
        f"The weight of each earlier input in each output, mean over channels: opaque is the "
        f"largest weight, {number(top)}, and each step of the scale is a tenth of the one before. "
        + (f"Each label is the text of the {_CHUNK} {unit} from its mark on. " if told else "")
        + "This matrix times the input is the output of the layer.",
    )
    return draw(
        f"Hidden attention of {m.name}",
        "Picture of the lower triangle of the weights of earlier inputs in each output.",
        kind,
        caption,
        paint,
        3.0,
    )


def _scale(ax: Axes) -> None:
    """A scale of the opacities, above the picture."""
    for i in range(_DECADES + 1):
        ax.plot([], [], "s", color=_INK, alpha=max(1 - i / _DECADES, 0.02), label=f"{10.0**-i:g}")
    legend(ax, _DECADES + 1)


def visible(text: str) -> str:
    """Text on one line, with visible signs for invisible characters."""
    signs = {"\n": "\u21b5", "\t": "\u21e5", "\r": ""}
    return "".join(signs.get(c, c if c.isprintable() else "\u00b7") for c in text)[:16]


def _tinted(strength: np.ndarray) -> np.ndarray:
    """One colour with the strength as its opacity, for light and dark pages."""
    image = np.empty((*strength.shape, 4))
    image[..., :3] = _INK
    image[..., 3] = strength
    return image


def _mark(ax: Axes, length: int | None) -> None:
    """Ticks without exponents, and a line at the training length."""
    log_axis(ax.xaxis)
    low, high = ax.get_xlim()
    if length is not None and low < length < high:
        ax.axvline(length, color=COLOURS["muted"], linewidth=0.9, linestyle=(0, (2, 2)))
    legend(ax, 2)
