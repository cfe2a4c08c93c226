"""Layers whose drift is bounded, and searches for inputs that make it large."""

import torch

from longstate.layers import S4D, Mamba, Mamba2

RADIUS = 30.0


class LeakyBank(S4D):
    """32 real states of one channel that forget within a few hundred samples."""

    def __init__(self):
        super().__init__(1, d_state=32, init="real", dt_min=0.01, dt_max=0.01)


def limited(kind):
    """A selective layer whose step is at least 0.05, so that there is a certified rate below 1."""
    torch.manual_seed(2)
    if kind == "mamba":
        return Mamba(3, d_state=4, dt_limit=(0.05, 0.2)).double()
    return Mamba2(4, d_state=4, d_head=4, dt_limit=(0.05, 0.2)).double()


def tensor_of(state):
    return state["ssm"] if isinstance(state, dict) else state


def tree(change, state):
    if isinstance(state, dict):
        return {name: tree(change, v) for name, v in state.items()}
    return [tree(change, v) for v in state] if isinstance(state, list) else change(state)


def searched(quantized, u, dt=None, width=12):
    """The largest distance of every stored state that a search finds. At each sample it tries
    inputs in the directions of u (k, t, d), at random sizes, and goes on from the one after which
    the rounded state is furthest from the exact one. It knows nothing of the bound."""
    layer, draw = quantized.layer, torch.Generator().manual_seed(5)
    exact, rounded = layer.init_state(1), quantized.init_state(1)
    worst = torch.zeros_like(tensor_of(exact).abs().flatten())
    for t in range(u.shape[1]):
        which = torch.randint(len(u), (width,), generator=draw)
        sizes = torch.rand(width, 1, 1, generator=draw, dtype=torch.float64)
        tries = u[which, t : t + 1] * sizes
        times = {}
        if dt is not None:
            low, high = dt
            times["dt"] = low + (high - low) * torch.rand(
                width, 1, generator=draw, dtype=torch.float64
            )
        many = [tree(lambda v: v.expand(width, *v.shape[1:]), s) for s in (exact, rounded)]
        with torch.no_grad():
            _, exact = layer(tries, many[0], **times)
            _, rounded = quantized(tries, many[1], **times)
        h, q = tensor_of(exact), tensor_of(quantized._whole(rounded))
        miss = (h - q).abs().flatten(1)
        worst = torch.maximum(worst, miss.amax(0))
        best = int(miss.sum(1).argmax()) if t % 3 else int(miss.amax(1).argmax())
        exact, rounded = (tree(lambda v, i=best: v[i : i + 1], s) for s in (exact, rounded))
    return worst


def worst_case(quantized, layer, length=400):
    """One real state, and the input that puts it just below the middle of two values, each time."""
    grid, a = quantized.grids[0], float(layer.system().A.detach())
    written, step = float(layer.system().B.detach()), float(grid.step)
    exact = rounded = 0.0
    for _ in range(length):
        target = step * (torch.floor(torch.tensor(a * rounded / step)).item() + 0.4999999)
        u = (target - a * rounded) / written
        exact = a * exact + written * u
        x = torch.tensor(a * rounded + written * u, dtype=torch.float64)
        rounded = float(grid.round(x.reshape(1, 1, 1, 1)).value)
    return abs(exact - rounded)
