"""The equation as a loop: any dtype, any device, gradients by PyTorch."""

import torch
from torch import Tensor


def forward(
    x: Tensor,
    log_a: Tensor,
    weight: Tensor,
    own: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    h0: Tensor,
    reset: Tensor | None,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    per_group = x.shape[2] // B.shape[2]
    B, C = (v.repeat_interleave(per_group, dim=2) for v in (B, C))
    a = log_a.exp()
    h, outputs = h0, []
    for t in range(x.shape[1]):
        if reset is not None:
            h = torch.where(reset[:, t, None, None, None], 0, h)
        decayed = a[:, t, :, None, None] * h
        now = x[:, t, :, :, None] * B[:, t, :, None, :]
        after = decayed + weight[:, t, :, None, None] * now
        seen = decayed + own[:, t, :, None, None] * now
        y = (seen * C[:, t, :, None, :]).sum(-1) + D[:, None] * x[:, t]
        if mask is not None:
            y = torch.where(mask[:, t, None, None], y, 0)
            after = torch.where(mask[:, t, None, None, None], after, h)
        h = after
        outputs.append(y)
    return torch.stack(outputs, dim=1), h
