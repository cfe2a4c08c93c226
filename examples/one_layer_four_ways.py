"""A whole pass, pieces, single samples and packed sequences: the same layer, the same numbers."""

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
