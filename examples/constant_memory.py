"""Process a million samples in constant memory.

A state has a fixed size: it is as large after a million samples as after one.
"""

import matplotlib.pyplot as plt
import torch
from torch.utils._pytree import tree_leaves

from longstate.layers import Mamba
from longstate.stream import Stream

torch.manual_seed(0)
layer = Mamba(d_model=4, d_state=8)
stream = Stream(layer, chunk=8192)  # longer inputs are cut into pieces of this length


def signal(start: int, length: int) -> torch.Tensor:
    """Stands for a file or a socket."""
    t = torch.arange(start, start + length)[None, :, None]
    return torch.sin(t * torch.tensor([0.1, 0.011, 0.0013, 0.00017]))


def held() -> int:
    return sum(x.numel() * x.element_size() for x in tree_leaves(stream.state))


positions, sizes = [], []
for start in range(0, 1_000_000, 50_000):
    y = stream.push(signal(start, 50_000))
    positions.append(stream.position)
    sizes.append(held())

attention = [2 * 4 * 4 * n for n in positions]  # keys and values of one attention layer, float32
print(f"after {positions[0]:,} samples the state takes {sizes[0]:,} bytes")
print(f"after {positions[-1]:,} samples it takes {sizes[-1]:,}")
print(f"keys and values of as wide an attention layer would take {attention[-1]:,}")

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.loglog(positions, attention, "o--", ms=4, label="keys and values of attention")
axis.loglog(positions, sizes, "o-", ms=4, label="the state of a Mamba layer")
axis.set(xlabel="samples so far", ylabel="bytes to carry")
axis.legend(loc="center right")
figure.savefig("constant_memory.svg")
