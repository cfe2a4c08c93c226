"""Random convolution features and a linear map of them: a strong simple classifier.

    features = pooled responses of fixed filters, of the series and of its differences
    scores   = W (features - mean) / std + intercept

Nothing is trained by gradients. `longstate.train` chooses the filters and solves for W.

Axes: n series, c channels, t time, v views (the series, its differences), f filters, q biases,
p = 2 f q features, k outputs.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from longstate.ops.convolution_pooling import Filters, all_taps, convolution_pooling

_CASES = 256  # per call, which bounds the memory for features


class ConvolutionRidge(nn.Module):
    """The filters of both views, and the linear map.

    Args:
        channels: c.
        outputs: k.
        dilations: dilations per kind of taps; f = 84 times this.
        biases: q.
    """

    dilation: Tensor
    padded: Tensor
    channels: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    weight: Tensor
    intercept: Tensor

    def __init__(self, channels: int, outputs: int, dilations: int, biases: int):
        super().__init__()
        self.dilations = dilations
        self.taps = all_taps().repeat(dilations, 1)
        f = len(self.taps)
        p = 2 * f * biases
        self.register_buffer("dilation", torch.ones(2, f, dtype=torch.int64))
        self.register_buffer("padded", torch.zeros(2, f, dtype=torch.bool))
        self.register_buffer("channels", torch.ones(2, f, channels, dtype=torch.bool))
        self.register_buffer("bias", torch.zeros(2, f, biases))
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

    @torch.no_grad()
    def features(
        self, x: Float[Tensor, "n c t"], lengths: Int[Tensor, " n"]
    ) -> Float[Tensor, "n p"]:
        """The features before scaling."""
        found = []
        for part, own in zip(x.split(_CASES), lengths.split(_CASES), strict=True):
            views = enumerate(self.views(part))
            pooled = [convolution_pooling(u, own, self.filters(v)).flatten(1) for v, u in views]
            found.append(torch.cat(pooled, dim=1))
        return torch.cat(found)

    def forward(
        self, x: Float[Tensor, "n c t"], lengths: Int[Tensor, " n"]
    ) -> Float[Tensor, "n k"]:
        scaled = (self.features(x, lengths) - self.mean) / self.std
        # in float64, so that the scores of a case do not depend on the others
        return scaled.double() @ self.weight.double() + self.intercept.double()
