"""A time-invariant layer is a linear system: get the system and analyse its memory."""

import matplotlib.pyplot as plt
import torch

from longstate.layers import S4D

torch.manual_seed(0)
layer = S4D(d_model=16, d_state=64, dt_min=1e-3, dt_max=1e-1)

with torch.no_grad():
    system = layer.system()  # a dataclass with A, B, C, D, independent of the layer
    constants = -1 / system.A.abs().log()
    energy = system.impulse_response(4096).square().sum(dim=(0, 2, 3))

share = energy.cumsum(0) / energy.sum()
quantiles = torch.quantile(constants, torch.tensor([0.0, 0.5, 1.0]))
print(f"{system.A.numel()} stored states in {system.A.shape[0]} channels")
print(
    "time constants, in samples: fastest {:.0f}, median {:.0f}, slowest {:.0f}".format(*quantiles)
)
for part in (0.5, 0.9, 0.99):
    lag = int((share < part).sum()) + 1
    print(f"{100 * part:.0f} % of the answer to one sample comes within {lag} samples")

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.semilogx(range(1, 2049), 100 * share[:2048])
axis.set(xlabel="samples after an impulse", ylabel="% of the answer that has come")
figure.savefig("what_it_remembers.svg")
