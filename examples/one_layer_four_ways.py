"""A whole pass, pieces, single samples and packed sequences give the same results."""

import matplotlib.pyplot as plt
import torch

from longstate.layers import S4D

torch.manual_seed(0)
layer = S4D(d_model=8, d_state=32).double()
u = torch.randn(1, 200, 8, dtype=torch.float64)

with torch.no_grad():
    whole, _ = layer(u)

    first, state = layer(u[:, :120])
    second, _ = layer(u[:, 120:], state)
    pieces = torch.cat([first, second], dim=1)

    state = layer.init_state(batch=1)
    outputs = []
    for t in range(u.shape[1]):
        y, state = layer.step(u[:, t], state)
        outputs.append(y)
    steps = torch.stack(outputs, dim=1)

    # Two sequences of 120 and 80 samples in one row: `reset` is True where the second begins.
    reset = torch.zeros(1, 200, dtype=torch.bool)
    reset[:, 120] = True
    packed, _ = layer(u, reset=reset)
    alone, _ = layer(u[:, 120:])

print(f"pieces against the whole   {(pieces - whole).abs().max():.1e}")
print(f"steps against the whole    {(steps - whole).abs().max():.1e}")
print(f"packed against separate    {(packed[:, 120:] - alone).abs().max():.1e}")

figure, axes = plt.subplots(2, 1, figsize=(7, 4), sharex=True, layout="constrained")
axes[0].plot(whole[0, :, 0], lw=4, alpha=0.3, label="the whole at once")
axes[0].plot(pieces[0, :, 0], lw=1.2, label="two pieces")
axes[0].plot(steps[0, :, 0], ".", ms=3, markevery=3, label="sample by sample")
axes[1].plot(range(120, 200), alone[0, :, 0], lw=4, alpha=0.3, label="the second alone")
axes[1].plot(packed[0, :, 0], lw=1.2, label="both in one row, reset between them")
axes[1].set_xlabel("sample")
for axis in axes:
    axis.legend(loc="upper left", ncols=3)
figure.savefig("one_layer_four_ways.svg")
