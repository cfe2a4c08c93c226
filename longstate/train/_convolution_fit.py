"""Choose random filters for series, and solve for the linear map of their features.

Dilations are spread evenly in their logarithm, up to filters as long as the longest series.
Biases are quantiles of the response of one random case to the filter, as in MiniRocket.

Axes: n series, c channels, t time, k outputs.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from longstate.models._convolutions import ConvolutionRidge
from longstate.ops.convolution_pooling import TAPS, all_taps, response
from longstate.train._ridge import Ridge, ridge

FEATURES, FEWER = 10_000, 4_000
MANY = 4_000  # cases; with more, fewer features keep the smaller Gram matrix small
_DILATIONS = 12
_MOST_CHANNELS = 9  # of one filter


def make_convolutions(
    channels: int, outputs: int, lengths: Int[Tensor, " n"]
) -> tuple[ConvolutionRidge, list[int]]:
    """The module, and the dilations that fit the longest series."""
    longest = max(1.0, (int(lengths.max()) - 1) / (TAPS - 1))
    spread = np.geomspace(1, longest, _DILATIONS).astype(int)
    dilations = sorted({int(d) for d in spread})
    wanted = FEATURES if len(lengths) <= MANY else FEWER
    biases = max(1, round(wanted / (2 * len(all_taps()) * len(dilations))))
    return ConvolutionRidge(channels, outputs, len(dilations), biases), dilations


@torch.no_grad()
def choose_filters(
    model: ConvolutionRidge,
    dilations: list[int],
    x: Float[Tensor, "n c t"],
    lengths: Int[Tensor, " n"],
    seed: int,
) -> None:
    """Draw channels and biases of every filter; the same for the same seed."""
    random = np.random.default_rng(seed)
    kinds, (_, f, q) = len(all_taps()), model.bias.shape
    c = x.shape[1]
    golden = (math.sqrt(5) - 1) / 2  # quantiles that differ between filters, and fill (0, 1)
    for v in range(2):
        model.dilation[v] = torch.tensor(dilations).repeat_interleave(kinds)
        model.padded[v] = torch.arange(f) % 2 == v
        for k in range(f):
            n_used = int(2 ** random.uniform(0, math.log2(min(c, _MOST_CHANNELS) + 1)))
            used = random.choice(c, size=min(n_used, c), replace=False)
            model.channels[v, k] = False
            model.channels[v, k, torch.from_numpy(used)] = True
            case = int(random.integers(len(x)))
            series = model.views(x[case : case + 1, :, : int(lengths[case])])[v][0]
            y = response(
                series[torch.from_numpy(used)],
                model.taps[k],
                int(model.dilation[v, k]),
                bool(model.padded[v, k]),
            )
            levels = torch.tensor([(golden * (k * q + i + 1)) % 1 for i in range(q)])
            model.bias[v, k] = torch.quantile(y[: 2**20], levels)


@torch.no_grad()
def fit_convolutions(
    model: ConvolutionRidge,
    x: Float[Tensor, "n c t"],
    lengths: Int[Tensor, " n"],
    y: Float[Tensor, "n k"],
    weight: Float[Tensor, " n"] | None = None,
) -> Ridge:
    """Solve for the linear map; the filters are chosen before."""
    features = model.features(x, lengths)
    model.mean.copy_(features.mean(0))
    std = features.std(0, correction=0)
    model.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))
    found = ridge((features - model.mean) / model.std, y, weight)
    model.weight.copy_(found.weight)
    model.intercept.copy_(found.intercept)
    return found
