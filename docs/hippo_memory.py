"""Draw docs/figures/hippo_memory.svg: a growing past, approximated by a few numbers.

Run `python docs/hippo_memory.py` from the repository's root.
"""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch

from longstate.systems import LegSMemory

FIGURE = Path(__file__).parent / "figures" / "hippo_memory.svg"
SAMPLES, MOMENTS, ORDERS = 1500, (500, 1000, 1500), (8, 32)
INK, GRID, SIGNAL = "#1f2933", "#d9dee4", "#b8c0c9"
COLOURS = {8: "#d1495b", 32: "#00798c"}


def signal() -> torch.Tensor:
    """A smooth signal without a period, with a step in the middle of the first third."""
    x = torch.arange(1, SAMPLES + 1, dtype=torch.float64) / SAMPLES
    waves = torch.sin(9 * x) + 0.6 * torch.sin(23 * x + 1) + 0.35 * torch.sin(41 * x**1.3)
    return waves + 1.3 * torch.exp(-(((x - 0.17) / 0.025) ** 2))


def draw_past(axis, f: torch.Tensor, moment: int, memories: dict[int, torch.Tensor]) -> None:
    time = torch.arange(1, moment + 1)
    axis.plot(time, f[:moment], color=SIGNAL, lw=4.5, label="the signal so far")
    for order, coefficients in memories.items():
        past = LegSMemory(order).reconstruct(coefficients[moment - 1], time / moment)
        label = f"what {order} numbers remember"
        axis.plot(time, past, color=COLOURS[order], lw=1.6, alpha=0.9, label=label)
    axis.axvline(moment, color=INK, lw=0.8, ls=":")
    axis.text(moment - 12, 2.15, f"sample {moment}", ha="right", va="center", fontsize=9)
    axis.set(xlim=(0, SAMPLES + 1), ylim=(-2.1, 2.6), yticks=[])


def main() -> None:
    matplotlib.use("Agg")
    plt.rcParams.update({
        "svg.hashsalt": "longstate", "svg.fonttype": "none", "font.size": 10,
        "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": INK,
        "axes.edgecolor": GRID, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False,
    })  # fmt: skip
    f = signal()
    memories = {order: LegSMemory(order).project(f) for order in ORDERS}
    figure, axes = plt.subplots(
        4, 1, figsize=(8.5, 7.4), sharex=True, layout="constrained",
        gridspec_kw={"height_ratios": [1, 1, 1, 1.05]},
    )  # fmt: skip
    for axis, moment in zip(axes, MOMENTS, strict=False):
        draw_past(axis, f, moment, memories)
    axes[0].legend(loc="upper right", frameon=False, fontsize=9)
    axes[0].set_title(
        "A HiPPO-LegS state holds the whole past, ever more coarsely", loc="left", fontsize=12
    )
    limit = memories[32].abs().max().item() * 0.6
    axes[3].imshow(
        memories[32][::5].T, aspect="auto", origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit,
        extent=(0, SAMPLES, -0.5, 31.5), interpolation="nearest",
    )  # fmt: skip
    axes[3].set(ylabel="the 32 numbers", xlabel="sample", yticks=[0, 15, 31])
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
