"""Matplotlib figures as inline SVG with the colours and the font of the page.

Colours are drawn as placeholders that become CSS variables, so that one figure works in the light
and in the dark scheme. Figures are small (about 310 units wide), so that their text is legible on a
phone, where the page shows them at their original size.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any
from zlib import crc32

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator, NullLocator

from longstate._numbers import number
from longstate.reports._markup import Markup, element

_NAMES = (
    "ink", "muted", "rule", "card", "model", "ridge", "seasonal", "last",
    "layer0", "layer1", "layer2", "layer3",
)  # fmt: skip
COLOURS = {name: f"#{0xF1A0 + i:06x}" for i, name in enumerate(_NAMES)}
"""Placeholder for each CSS variable of `page.css` that a figure may use."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "longstate",
    "text.parse_math": False,  # names of columns may hold a dollar sign
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.labelsize": 9,
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "xtick.major.width": 0.6,
    "xtick.minor.size": 1.5,
    "xtick.minor.width": 0.4,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.5,
    "legend.columnspacing": 0.9,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.2,
    "figure.constrained_layout.w_pad": 0.02,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def axes(width: float = 4.3, height: float = 2.6) -> Iterator[Axes]:
    """Axes of a new figure, in the style of the page. Sizes in inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.add_subplot()


def draw(
    title: str,
    label: str,
    kind: str,
    caption: str,
    paint: Callable[[Axes], None],
    height: float = 2.6,
) -> Markup:
    """A `<figure>` with the drawing of `paint`.

    Args:
        title: above the picture.
        label: description of the picture, for screen readers.
        kind: of the numbers, such as "exact" or "estimate".
        caption: scope, units, how to read it.
        paint: draws on the axes.
        height: of the picture in inches; it is 4.3 wide.
    """
    with axes(height=height) as ax, warnings.catch_warnings():
        # The browser draws the text, in its own font.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        paint(ax)
        svg = to_svg(ax.figure, label)  # type: ignore[arg-type]
    badge = element("span", kind, class_="kind")
    return element("figure", element("h3", title), svg, element("figcaption", badge, caption))


def tiles(title: str, pictures: Sequence[tuple[str, Markup]], kind: str, caption: str) -> Markup:
    """A `<figure>` of many small drawings, each with a line above it.

    Args:
        title: above all of them. pictures: the line, and the `<svg>` of each.
        kind: of the numbers. caption: what is drawn, and how to read it.
    """
    parts = [element("div", element("p", name), svg) for name, svg in pictures]
    badge = element("span", kind, class_="kind")
    grid = element("div", *parts, class_="tiles")
    return element("figure", element("h3", title), grid, element("figcaption", badge, caption))


def to_svg(figure: Figure, label: str) -> Markup:
    """The figure as an `<svg>` to put into a page."""
    raw = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(_STYLE):
        figure.savefig(raw, format="svg", metadata=nothing)
    text = raw.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Its rule `*{...}` would apply to the whole page; page.css has it for figures.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r"<defs>\s*</defs>", "", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href=", "href=")
    name = f'role="img" aria-label="{escape(label)}"'
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', lambda m: f"<svg {m[1]} {name}>", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(_own_names(text))


def _own_names(text: str) -> str:
    """Make the names of elements unique on a page with several figures."""
    used = set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', text))
    digest = f"f{crc32(text.encode()):08x}"

    def rename(match: re.Match[str]) -> str:
        return f' id="{digest}-{match[1]}"' if match[1] in used else ""

    text = re.sub(r'\sid="([^"]*)"', rename, text)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{digest}-", text)


def legend(ax: Axes, columns: int = 4) -> None:
    """One row above the axes."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns,
            borderaxespad=0.2,
        )  # fmt: skip


class Labels(Formatter):
    """Numbers with as many digits as it takes to tell the ticks of an axis from one another."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return number(x, 3, exponent=False)

    def format_ticks(self, values: Any) -> list[str]:
        labels: list[str] = []
        for digits in range(3, 13):
            labels = [number(float(x), digits, exponent=False) for x in values]
            if len(set(labels)) == len(set(values)):
                break
        return labels


class _LogTicks(LogLocator):
    """Powers of ten; on a short axis 1, 2 and 5 times these, or even steps."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low, high = sorted((vmin, vmax))
        short = LogLocator(subs=(1.0, 2.0, 5.0), numticks=7), MaxNLocator(4)
        ticks = LogLocator(numticks=7).tick_values(low, high)
        for locator in short:
            if sum(low <= x <= high for x in ticks) >= 2:
                break
            ticks = locator.tick_values(low, high)
        return ticks


def log_axis(axis: matplotlib.axis.Axis) -> None:
    """Ticks at powers of ten, written out, or closer ones on a short axis."""
    axis.set_major_locator(_LogTicks())
    axis.set_major_formatter(Labels())
    axis.set_minor_locator(NullLocator())
