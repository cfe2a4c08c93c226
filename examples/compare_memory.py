"""The memory of layers before training: bits about each lag.

Read in half precision, a state holds a limited amount. The initial values of a layer decide what it
holds.
"""

import matplotlib.pyplot as plt
import torch

from longstate.layers import S4, S4D, S5, LinOSS
from longstate.memory import memory_curve

LAGS = 400
torch.manual_seed(0)
layers = {
    "S4": S4(d_model=1, d_state=32, dt_min=0.01, dt_max=0.01),
    "S4D": S4D(d_model=1, d_state=32, dt_min=0.01, dt_max=0.01),
    "S5": S5(d_model=1, d_state=32, dt_min=0.01, dt_max=0.01),
    "LinOSS": LinOSS(d_model=1, d_state=16),
}

figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
for name, layer in layers.items():
    with torch.no_grad():
        curve = memory_curve(layer.system(), LAGS, noise="fp16")
    bits = curve.bits.reshape(LAGS)
    print(f"{name:7s} {curve.kind}: {int(curve.horizon(0.01).max())} lags with 0.01 bits or more")
    axis.semilogy(bits.clamp(min=1e-4), label=name)
axis.set(xlabel="lag, in samples", ylabel="bits about that sample", ylim=(1e-4, None))
axis.legend()
figure.savefig("compare_memory.svg")
