"""Remember a whole signal in 64 numbers, sample by sample, and play it back.

HiPPO-LegS keeps the best polynomial through everything seen so far. Whatever the length, detail
finer than about a 64th of it is lost, evenly over the past. Draws `hippo_memory.svg`.
"""

import torch
from matplotlib.figure import Figure

from longstate.systems import LegSMemory

torch.manual_seed(0)
length, order = 2000, 64
t = torch.arange(length, dtype=torch.float64)
noise = torch.randn(length, dtype=torch.float64).cumsum(0) / length**0.5
signal = torch.sin(t / 90) + noise + (t > 1300) * 1.0

memory = LegSMemory(order)
coefficients = memory.project(signal)  # (t, n): one row after every sample

figure = Figure(figsize=(7.2, 4.2), layout="constrained")
for axes, seen in zip(figure.subplots(2, 1, sharex=True), (700, 2000), strict=True):
    points = (t[:seen] + 1) / seen
    recalled = memory.reconstruct(coefficients[seen - 1], points)
    error = (recalled - signal[:seen]).square().mean().sqrt() / signal[:seen].std()
    print(f"after {seen} samples: {order} numbers, relative error {error:.3f}")
    axes.plot(t, signal, color="#c8ccd0", linewidth=0.9, label="signal")
    axes.plot(t[:seen], recalled, color="#1f5fbf", linewidth=1.3, label="recalled")
    axes.axvline(seen, color="#5c636b", linewidth=0.8, linestyle=":")
    axes.set_ylabel(f"after {seen}")
    axes.spines[["top", "right"]].set_visible(False)
axes.set_xlabel("sample")
figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
figure.savefig("hippo_memory.svg")
