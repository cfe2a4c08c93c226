"""Random convolution features and a linear map of them: a strong simple classifier.

    shares   = how often the response of a filter is above a bias
    wins     = roots of how much and how often a filter answers most or least in its group of 7
    features = shares and wins, of the series and of its differences
    scores   = W (features - mean) / std + intercept

Nothing is trained by gradients. `longstate.train` draws biases and groups of the fixed filters and
solves for W. See `longstate.ops.convolution_pooling` for shares, after MiniRocket, and
`longstate.ops.convolution_competition` for wins, after Hydra; both papers are named there. A root
makes a count less skewed; that of a sum below 0 is 0.

Axes: n series, c channels, t time, v views (the series, its differences), f filters, q biases,
g groups, p = 2 f q + 2 g 7 2 features, k outputs.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from longstate.ops.convolution_competition import Groups, convolution_competition
from longstate.ops.convolution_pooling import KINDS, Filters, all_taps, convolution_pooling

RIVALS = 7  # filters of a group
_CASES = 256  # per call, which bounds the memory for features


class ConvolutionRidge(nn.Module):
    """The filters of both views, and the linear map.

    Args:
        channels: c.
        outputs: k.
        dilations: dilations per kind of taps; f = 84 times this.
        biases: q.
        splits: how many times the filters of each dilation are split into groups; g = 12 dilations
            times this. 0: there are no wins, as in files of older versions.
    """

    dilation: Tensor
    padded: Tensor
    channels: Tensor
    bias: Tensor
    rivals: Tensor
    rivals_dilation: Tensor
    rivals_channels: Tensor
    mean: Tensor
    std: Tensor
    weight: Tensor
    intercept: Tensor

    def __init__(self, channels: int, outputs: int, dilations: int, biases: int, splits: int = 0):
        super().__init__()
        self.dilations, self.splits = dilations, splits
        self.taps = all_taps().repeat(dilations, 1)
        f = len(self.taps)
        g = KINDS // RIVALS * dilations * splits
        self.shares, wins = 2 * f * biases, 2 * g * RIVALS * 2
        p = self.shares + wins
        self.register_buffer("dilation", torch.ones(2, f, dtype=torch.int64))
        self.register_buffer("padded", torch.zeros(2, f, dtype=torch.bool))
        self.register_buffer("channels", torch.ones(2, f, channels, dtype=torch.bool))
        self.register_buffer("bias", torch.zeros(2, f, biases))
        if splits:
            self.register_buffer("rivals", torch.zeros(2, g, RIVALS, dtype=torch.int64))
            self.register_buffer("rivals_dilation", torch.ones(2, g, dtype=torch.int64))
            self.register_buffer("rivals_channels", torch.ones(2, g, channels, dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(p))
        self.register_buffer("std", torch.ones(p))
        self.register_buffer("weight", torch.zeros(p, outputs))
        self.register_buffer("intercept", torch.zeros(outputs))

    def views(self, x: Float[Tensor, "n c t"]) -> tuple[Tensor, Tensor]:
        """The series, and its differences; the first difference is 0."""
        return x, torch.diff(x, dim=2, prepend=x[:, :, :1])

    def filters(self, view: int) -> Filters:
        taps = self.taps.to(self.bias.device)
        own = (self.dilation, self.padded, self.channels, self.bias)
        return Filters(taps, *(x[view] for x in own))

    def groups(self, view: int) -> Groups:
        own = (self.rivals, self.rivals_dilation, self.rivals_channels)
        return Groups(*(x[view] for x in own))

    @torch.no_grad()
    def features(
        self, x: Float[Tensor, "n c t"], lengths: Int[Tensor, " n"]
    ) -> Float[Tensor, "n p"]:
        """The features before scaling: first the shares, then the wins."""
        found = []
        for part, own in zip(x.split(_CASES), lengths.split(_CASES), strict=True):
            views = list(enumerate(self.views(part)))
            parts = [convolution_pooling(u, own, self.filters(v)) for v, u in views]
            if self.splits:
                wins = [convolution_competition(u, own, self.groups(v)) for v, u in views]
                parts += [w.clamp_min_(0).sqrt_() for w in wins]
            found.append(torch.cat([y.flatten(1) for y in parts], dim=1))
        return torch.cat(found)

    def forward(
        self, x: Float[Tensor, "n c t"], lengths: Int[Tensor, " n"]
    ) -> Float[Tensor, "n k"]:
        scaled = (self.features(x, lengths) - self.mean) / self.std
        # in float64, so that the scores of a case do not depend on the others
        return scaled.double() @ self.weight.double() + self.intercept.double()
