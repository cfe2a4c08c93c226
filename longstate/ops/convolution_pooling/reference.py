"""The equation, one series and one filter at a time."""

from jaxtyping import Float, Int
from torch import Tensor

from longstate.ops.convolution_pooling import Filters, response


def forward(
    x: Float[Tensor, "n c t"], lengths: Int[Tensor, " n"], filters: Filters
) -> Float[Tensor, "n f q"]:
    pooled = x.new_zeros(len(x), *filters.bias.shape)
    for i, length in enumerate(lengths.tolist()):
        for k, (taps, dilation, padded, channels, bias) in enumerate(zip(*filters, strict=True)):
            y = response(x[i, channels, :length], taps, int(dilation), bool(padded))
            pooled[i, k] = (y > bias[:, None]).to(x.dtype).mean(1)
    return pooled
