"""The output of a layer as a matrix times its input: how far the two are apart, in float64.

    python benchmarks/hidden_attention.py

For each layer the hidden attention of random inputs is computed by `longstate.memory`, with the
convolution and the gate of the selective layers (their convolutions have no bias here, which is
no part of a matrix). The matrix times the input, through the last projection, is compared with what
the layer gives. The error is the largest difference over the largest output, and the figure the
largest one over three random layers.
"""

from collections.abc import Callable
from typing import Any

import torch
from command import parser
from measure import machine, save
from torch import Tensor

from longstate.layers import S4D, S5, LinOSS, Longhorn, Mamba, Mamba2
from longstate.memory import hidden_attention

LENGTH, WIDTH, SEEDS = 200, 16, 3
SELECTIVE: dict[str, Callable[[], Any]] = {
    "Mamba": lambda: Mamba(WIDTH),
    "Mamba2": lambda: Mamba2(WIDTH, d_state=16, d_head=8),
    "Longhorn": lambda: Longhorn(WIDTH),
}
LINEAR: dict[str, Callable[[], Any]] = {
    "S4D": lambda: S4D(WIDTH),
    "S5": lambda: S5(WIDTH),
    "LinOSS": lambda: LinOSS(WIDTH),
}


@torch.no_grad()
def selective(name: str, u: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer gives, and the matrix times the input."""
    layer = SELECTIVE[name]().double()
    layer.conv1d.bias.zero_()
    trace = layer.trace(u).double()
    weights = hidden_attention(trace, conv=True, gate=True).weights
    assert trace.conv is not None
    return layer(u)[0], layer.out_proj(torch.einsum("bcts,bsc->btc", weights, trace.conv.v))


@torch.no_grad()
def linear(name: str, u: Tensor) -> tuple[Tensor, Tensor]:
    """The same for a layer that does not depend on the data."""
    layer = LINEAR[name]().double()
    weights = hidden_attention(layer.system(), length=u.shape[1]).weights
    if weights.dim() == 5:  # a system for each channel
        return layer(u)[0], torch.einsum("doits,bsd->btd", weights, u)
    return layer(u)[0], torch.einsum("oits,bsi->bto", weights, u)


def error(name: str) -> float:
    """The largest relative error over the seeds."""
    found = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        u = torch.randn(2, LENGTH, WIDTH).double()
        y, product = selective(name, u) if name in SELECTIVE else linear(name, u)
        found.append(float((y - product).abs().max() / y.abs().max()))
    return max(found)


def main() -> None:
    parser(__doc__).parse_args()
    lines = [
        "# The hidden attention of layers", "", machine(), "",
        f"{SEEDS} random layers of {WIDTH} channels, inputs of {LENGTH} samples, float64.", "",
        "Command: `python benchmarks/hidden_attention.py`", "",
        "| layer | largest relative error |", "| --- | ---: |",
        *(f"| {name} | {error(name):.1e} |" for name in (*SELECTIVE, *LINEAR)),
    ]  # fmt: skip
    save("hidden_attention", "\n".join(lines))


if __name__ == "__main__":
    main()
