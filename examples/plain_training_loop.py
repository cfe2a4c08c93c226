"""A layer in a plain PyTorch model and a plain training loop.

The task is to repeat the sample of 30 steps ago. `dynamics` has the names of the parameters that
determine the memory of a layer: they get a smaller learning rate and no weight decay, as in the
papers.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

from longstate.layers import S4D

DELAY = 30


class Echo(nn.Module):
    def __init__(self):
        super().__init__()
        self.widen, self.layer, self.narrow = (
            nn.Linear(1, 16),
            S4D(16, d_state=32),
            nn.Linear(16, 1),
        )

    def forward(self, u, state=None):
        y, state = self.layer(self.widen(u), state)
        return self.narrow(y), state


torch.manual_seed(0)
model = Echo()
dynamics = [getattr(model.layer, name) for name in model.layer.dynamics]
others = [p for p in model.parameters() if all(p is not q for q in dynamics)]
optimiser = torch.optim.AdamW(
    [
        {"params": others, "lr": 1e-2},
        {"params": dynamics, "lr": 3e-3, "weight_decay": 0.0},
    ]
)

losses = []
for _ in range(300):
    u = torch.randn(8, 256, 1)
    y, _ = model(u)
    loss = (y[:, DELAY:] - u[:, :-DELAY]).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())

print(f"error of guessing zero 1.00, before training {losses[0]:.2f}, after {losses[-1]:.2f}")

with torch.no_grad():
    impulse = torch.zeros(1, 100, 1)
    impulse[0, 10] = 1
    answer = model(impulse)[0] - model(0 * impulse)[0]

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
left.semilogy(losses)
left.set(xlabel="step", ylabel="error")
right.plot(impulse[0, :, 0], label="what goes in")
right.plot(answer[0, :, 0], label="what comes out")
right.set_xlabel("sample")
right.legend()
figure.savefig("plain_training_loop.svg")
