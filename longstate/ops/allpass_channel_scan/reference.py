"""The equation as a loop: any device, gradients by PyTorch."""

from torch import Tensor
from torch.nn import functional as F

from longstate.ops.allpass_channel_scan import Inputs, allpass_matrices
from longstate.ops.channel_scan import reference


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    A, B = allpass_matrices(s.rho, s.C.shape[1])
    return reference.dense(s.u, A, B, F.pad(s.C, (1, 0)), s.h0, s.lengths)
