"""Sequences of different lengths in one row, without padding and independent of each other.

Padding to the longest sequence wastes computation. With `reset`, sequences follow each other in one
row, and each has the same outputs as alone.
"""

import matplotlib.pyplot as plt
import torch

from longstate.layers import Mamba2

torch.manual_seed(0)
layer = Mamba2(d_model=32, d_state=16).double()
lengths = [300, 40, 90, 10, 160]
sequences = [torch.randn(n, 32, dtype=torch.float64) for n in lengths]

row = torch.cat(sequences)[None]
reset = torch.zeros(1, row.shape[1], dtype=torch.bool)
starts = [sum(lengths[:i]) for i in range(len(lengths))]
reset[0, starts] = True

with torch.no_grad():
    packed = layer(row, reset=reset)[0][0].split(lengths)
    alone = [layer(u[None])[0][0] for u in sequences]

worst = max(float((a - b).abs().max()) for a, b in zip(packed, alone, strict=True))
padded = max(lengths) * len(lengths)
print(f"largest difference from each alone: {worst:.0e}")
print(f"{row.shape[1]} samples in one row; padded to the longest there would be {padded}")

figure, axes = plt.subplots(2, 1, figsize=(7, 3), layout="constrained", height_ratios=[5, 2])
axes[0].barh(range(5), [max(lengths)] * 5, color="#dfe3e6", label="padding")
axes[0].barh(range(5), lengths, color=[f"C{i}" for i in range(5)])
axes[1].barh([0] * 5, lengths, left=starts, color=[f"C{i}" for i in range(5)])
axes[0].set(title="padded", yticks=[], xlim=(0, row.shape[1]))
axes[1].set(title="packed", yticks=[], xlim=(0, row.shape[1]), xlabel="samples")
axes[0].legend(loc="lower right")
figure.savefig("pack_sequences.svg")
