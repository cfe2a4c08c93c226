"""PyTorch's product of matrices."""

from torch import Tensor
from torch.nn import functional as F


def forward(x: Tensor, W: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, W, bias)
