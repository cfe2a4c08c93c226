"""Choose random filters for series, and solve for the linear map of their features.

Dilations are spread evenly in their logarithm, up to filters as long as the longest series.
Biases are quantiles of the response of one random case to the filter, as in MiniRocket. The filters
of each dilation are split at random into groups that compete, as in Hydra; both papers are named in
`longstate.ops`.

Axes: n series, c channels, t time, k outputs.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from longstate.models._convolutions import RIVALS, ConvolutionRidge
from longstate.ops.convolution_pooling import KINDS, TAPS, response
from longstate.train._ridge import Ridge, ridge

FEATURES, FEWER = 10_000, 4_000  # shares
MANY = 4_000  # cases; with more, fewer features keep the smaller Gram matrix small
_DILATIONS, _SPLITS = 12, 2
_MOST_CHANNELS = 9  # of one filter


def make_convolutions(
    channels: int, outputs: int, lengths: Int[Tensor, " n"]
) -> tuple[ConvolutionRidge, list[int]]:
    """The module, and the dilations that fit the longest series."""
    longest = max(1.0, (int(lengths.max()) - 1) / (TAPS - 1))
    spread = np.geomspace(1, longest, _DILATIONS).astype(int)
    dilations = sorted({int(d) for d in spread})
    wanted, splits = (FEATURES, _SPLITS) if len(lengths) <= MANY else (FEWER, 0)
    biases = max(1, round(wanted / (2 * KINDS * len(dilations))))
    return ConvolutionRidge(channels, outputs, len(dilations), biases, splits), dilations


@torch.no_grad()
def choose_filters(
    model: ConvolutionRidge,
    dilations: list[int],
    x: Float[Tensor, "n c t"],
    lengths: Int[Tensor, " n"],
    seed: int,
) -> None:
    """Draw channels and biases of every filter, and the groups; the same for the same seed."""
    random = np.random.default_rng(seed)
    _, f, q = model.bias.shape
    golden = (math.sqrt(5) - 1) / 2  # quantiles that differ between filters, and fill (0, 1)
    for v in range(2):
        model.dilation[v] = torch.tensor(dilations).repeat_interleave(KINDS)
        model.padded[v] = torch.arange(f) % 2 == v
        for k in range(f):
            used = _draw_channels(random, x.shape[1])
            model.channels[v, k] = used
            case = int(random.integers(len(x)))
            series = model.views(x[case : case + 1, :, : int(lengths[case])])[v][0]
            y = response(
                series[used],
                model.taps[k],
                int(model.dilation[v, k]),
                bool(model.padded[v, k]),
            )
            levels = torch.tensor([(golden * (k * q + i + 1)) % 1 for i in range(q)])
            model.bias[v, k] = torch.quantile(y[: 2**20], levels)
    if model.splits:
        _draw_groups(model, dilations, random)


def _draw_channels(random: np.random.Generator, c: int) -> Bool[Tensor, " c"]:
    n_used = int(2 ** random.uniform(0, math.log2(min(c, _MOST_CHANNELS) + 1)))
    used = torch.zeros(c, dtype=torch.bool)
    used[torch.from_numpy(random.choice(c, size=min(n_used, c), replace=False))] = True
    return used


def _draw_groups(
    model: ConvolutionRidge, dilations: list[int], random: np.random.Generator
) -> None:
    times = KINDS // RIVALS * model.splits
    for v in range(2):
        drawn = [random.permutation(KINDS) for _ in range(len(dilations) * model.splits)]
        model.rivals[v] = torch.from_numpy(np.concatenate(drawn)).view(-1, RIVALS)
        model.rivals_dilation[v] = torch.tensor(dilations).repeat_interleave(times)
        for g in range(len(model.rivals[v])):
            model.rivals_channels[v, g] = _draw_channels(random, model.channels.shape[2])


@torch.no_grad()
def fit_convolutions(
    model: ConvolutionRidge,
    x: Float[Tensor, "n c t"],
    lengths: Int[Tensor, " n"],
    y: Float[Tensor, "n k"],
    weight: Float[Tensor, " n"] | None = None,
) -> Ridge:
    """Solve for the linear map; the filters are chosen before.

    Shares have variance 1. Wins have one that makes the total of both kinds the same.
    """
    features = model.features(x, lengths)
    model.mean.copy_(features.mean(0))
    std = features.std(0, correction=0)
    model.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))
    wins = len(std) - model.shares
    model.std[model.shares :] *= math.sqrt(wins / model.shares)
    found = ridge((features - model.mean) / model.std, y, weight)
    model.weight.copy_(found.weight)
    model.intercept.copy_(found.intercept)
    return found
