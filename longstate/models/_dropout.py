"""Dropout whose random numbers cost little on a CPU.

On processors that are not Intel's PyTorch draws two random words of 32 bits for each element, one
after another on one thread: in a small model that takes as long as a third of its matrix products.
16 bits decide it as well.
"""

import torch
from torch import Tensor, nn

_BITS = 16
_CHOICES = 1 << _BITS


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, two to three times as fast on an AMD EPYC (on Intel's not measured).

    On a CPU p is rounded to 1 / 65,536. The elements that are set to zero follow PyTorch's seed and
    not the number of threads. Compiled code has PyTorch's own dropout.
    """

    def forward(self, input: Tensor) -> Tensor:
        dropped = round(self.p * _CHOICES)
        if not self.training or dropped == 0:
            return input
        if dropped == _CHOICES or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        kept = _drawn(input.shape) >= dropped - _CHOICES // 2
        return input * kept.to(input.dtype).mul_(_CHOICES / (_CHOICES - dropped))


def _drawn(shape: torch.Size) -> Tensor:
    """Random int16, all equally likely: four of each 64 random bits."""
    words = torch.empty(-(-shape.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.int16)[: shape.numel()].view(shape)
