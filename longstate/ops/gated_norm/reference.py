"""The equation: any dtype, any device, gradients by PyTorch."""

from torch import Tensor
from torch.nn import functional as F

from longstate.ops._arguments import common_type
from longstate.ops.gated_norm import Inputs


def forward(s: Inputs) -> Tensor:
    wide = common_type(s.y, s.z, s.weight)
    v = (s.y.to(wide) * F.silu(s.z.to(wide))).unflatten(-1, (s.groups, -1))
    v = v * (v.square().mean(-1, keepdim=True) + s.eps).rsqrt()
    return (v.flatten(-2) * s.weight.to(wide)).to(s.y.dtype)
