"""Train on one very long sequence: carry the state, and cut the gradient."""

import matplotlib.pyplot as plt
import torch
from torch.utils._pytree import tree_map

from longstate.layers import S4D

torch.manual_seed(0)
layer = S4D(d_model=1, d_state=16)
optimiser = torch.optim.AdamW(layer.parameters(), lr=1e-1, weight_decay=0.0)

# The task: how far the last 64 samples have drifted, from a sequence of 16,384.
u = torch.randn(1, 16_384, 1) / 8
wanted = u.cumsum(1) - torch.nn.functional.pad(u.cumsum(1), (0, 0, 64, 0))[:, :-64]

state, losses = None, []
for chunk, target in zip(u.split(512, dim=1), wanted.split(512, dim=1), strict=True):
    y, state = layer(chunk, state)
    loss = (y - target).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    state = tree_map(torch.Tensor.detach, state)  # the truncation
    losses.append(loss.item())

print(f"loss on the first chunks {sum(losses[:4]) / 4:.3f}, on the last {sum(losses[-4:]) / 4:.3f}")

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.semilogy(range(1, len(losses) + 1), losses, "o-", ms=4)
axis.set(xlabel="chunk of 512 samples", ylabel="loss")
figure.savefig("truncated_backprop.svg")
