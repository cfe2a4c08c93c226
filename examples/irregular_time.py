"""A sensor that skips samples: with the time between samples, the layer's output is exact.

The signal is constant between samples, as the zero-order hold assumes. So the layer's output on the
remaining samples is exactly the same as with all samples.
"""

import matplotlib.pyplot as plt
import torch

from longstate.layers import S5

torch.manual_seed(0)
layer = S5(d_model=4, d_state=32).double()
levels = torch.randn(1, 40, 4, dtype=torch.float64)
lasts = torch.randint(1, 6, (40,))  # how many regular samples each level lasts

every_sample = levels.repeat_interleave(lasts, dim=1)
at = lasts.cumsum(0) - 1  # the last sample of each level

with torch.no_grad():
    all_of_it, _ = layer(every_sample)
    told, _ = layer(levels, dt=lasts[None].double())
    not_told, _ = layer(levels)

expected = all_of_it[:, at]
print(f"{every_sample.shape[1]} samples, of which {levels.shape[1]} are kept")
print(f"error with dt      {(told - expected).abs().max():.1e}")
print(f"error without dt   {(not_told - expected).abs().max():.1e}")

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.plot(all_of_it[0, :, 0], lw=4, alpha=0.3, label="from every sample")
axis.plot(at, told[0, :, 0], "o", ms=4, label="from 40, with dt")
axis.plot(at, not_told[0, :, 0], "x", ms=4, label="from 40, without dt")
axis.set_xlabel("time")
axis.legend()
figure.savefig("irregular_time.svg")
