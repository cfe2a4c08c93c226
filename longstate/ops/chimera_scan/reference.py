"""The two recurrences by PyTorch: any device, gradients by PyTorch.

g of a sample is a sum over variates at that time, and h of a variate is a scan over time, so a loop
over the variates with one scan each is the whole recurrence. Where there are more variates than
samples, as in a step, it is a loop over time with a scan over the variates.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._arguments import where_kept
from longstate.ops.chimera_scan import Inputs
from longstate.ops.diagonal_scan import diagonal_scan


def forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    if s.mask is not None:  # over a step of length 0 h stays
        x, steps, r, select = (where_kept(s.mask, part) for part in (s.x, s.s, s.r, s.select))
        s = s._replace(x=x, s=steps, r=r, select=select)
    run = over_variates if s.x.shape[1] >= s.x.shape[2] else over_time
    y, h, g = run(s)
    return where_kept(s.mask, y), h, g


class Site(NamedTuple):
    """What a site (..., k, p) needs."""

    x: Tensor
    s: Tensor
    r: Tensor
    select: Tensor  # ..., k, 6, n


def _along_time(s: Inputs, i: Site) -> tuple[Tensor, Tensor, Tensor]:
    """A1, A2 and B1 x (..., k, p, n)."""
    step = i.s[..., None]
    change = torch.expm1(step * s.a)
    coupling = -torch.expm1(step * s.a.real) * s.coupling[0]
    return change + 1, coupling, change / s.a * (i.x[..., None] * i.select[..., None, 0, :])


def _along_variates(s: Inputs, i: Site) -> tuple[Tensor, Tensor, Tensor]:
    """A3, A4 and B2 x (..., k, p, n)."""
    moved = i.r[..., None] * s.c
    lost = -torch.expm1(-moved)
    x = i.x[..., None] * i.select[..., None, 1, :]
    return lost * s.coupling[1], (-moved).exp(), lost / s.c * x


def _outputs(i: Site, h: Tensor, g: Tensor) -> Tensor:
    """y (..., k, p) of the states (..., k, p, n)."""
    C = i.select[..., None, 2:, :].unbind(-2)
    read = h.real * C[0] - h.imag * C[1] + (g.real * C[2] - g.imag * C[3])
    return read.sum(-1)


def over_variates(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """y (b, t, v, k, p), and the last h and g: a scan over time for each variate."""
    outputs, before = [], None
    for v in range(s.x.shape[2]):
        i = Site(s.x[:, :, v], s.s[:, :, v], s.r[:, :, v], s.select[:, :, v])
        A3, A4, new = _along_variates(s, i)
        now = new.to(s.h0.dtype) if before is None else A3 * before[0] + A4 * before[1] + new
        A1, A2, new = _along_time(s, i)
        past, g = _past(now, s.g0[:, v], s.mask, s.reset)
        drive = A2 * past + new
        shape = drive.shape[2:]
        states, h = diagonal_scan(
            drive.flatten(2), A1.flatten(2), s.h0[:, v].flatten(1), reset=s.reset
        )
        before = states.unflatten(2, shape), now
        outputs.append((_outputs(i, *before), h.view(len(h), *shape), g))
    y, last_h, last_g = zip(*outputs, strict=True)
    return torch.stack(y, 2), torch.stack(last_h, 1), torch.stack(last_g, 1)


def over_time(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The same: a scan over the variates for each sample."""
    outputs, h, g = [], s.h0, s.g0
    for t in range(s.x.shape[1]):
        i = Site(s.x[:, t], s.s[:, t], s.r[:, t], s.select[:, t])
        if s.reset is not None:  # NaN times 0 would be NaN
            h, g = (torch.where(_wide(s.reset[:, t], state), 0, state) for state in (h, g))
        A1, A2, new = _along_time(s, i)
        h = A1 * h + A2 * g + new
        A3, A4, new = _along_variates(s, i)
        drive = A3 * F.pad(h[:, :-1], (0, 0) * 3 + (1, 0)) + new
        now = diagonal_scan(drive.flatten(2), A4.flatten(2))[0].view_as(h)
        outputs.append(_outputs(i, h, now))
        g = now if s.mask is None else torch.where(_wide(s.mask[:, t], g), now, g)
    return torch.stack(outputs, 1), h, g


def _past(
    g: Tensor, start: Tensor, mask: Tensor | None, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """g (b, t, ...) of the sample before each one, masked ones left out, and after the last."""
    if mask is not None:
        missing = (~mask[..., None]).to(g.dtype).expand(*g.shape[:2], g[0, 0].numel())
        held = where_kept(mask, g).flatten(2)
        g = diagonal_scan(held, missing, start.flatten(1), reset=reset)[0].view_as(g)
    past = torch.cat([start[:, None], g[:, :-1]], 1)
    if reset is not None:
        past = torch.where(_wide(reset, past), 0, past)
    return past, g[:, -1]


def _wide(flag: Tensor, x: Tensor) -> Tensor:
    """A flag (b, ...) beside x, which has more axes."""
    return flag.view(*flag.shape, *[1] * (x.dim() - flag.dim()))
