"""Mean and maximum of what a stack made of a series, after some samples or after each.

Axes: b batch, t time, f frames, d channels of the stack, m times, p = 2 d pooled.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Pooled(NamedTuple):
    """What the head reads, after some or all samples.

    Args:
        h (b, f, d): what the stack made of each sample or frame.
        kept (b, f): whether it counts.
        start: sum, largest values and number of what counted before.
        ready (b, t): frames that have ended after each sample; None if each sample is one.
    """

    h: Float[Tensor, "b f d"]
    kept: Bool[Tensor, "b f"]
    start: tuple[Float[Tensor, "b d"], Float[Tensor, "b d"], Float[Tensor, " b"]]
    ready: Int[Tensor, "b t"] | None

    def at(self, times: Int[Tensor, "b m"]) -> Float[Tensor, "b m p"]:
        """After the samples with these numbers."""
        ended = times + 1 if self.ready is None else self.ready.gather(1, times)
        before = torch.arange(self.h.shape[1], device=times.device) < ended[..., None]
        counted = (before & self.kept[:, None]).to(self.h.dtype)
        total, _, seen = self.start
        return self._summary(
            total[:, None] + counted @ self.h, seen[:, None] + counted.sum(-1), ended
        )

    def each(self) -> Float[Tensor, "b t p"]:
        """After each sample."""
        total, _, seen = self.start
        keep = self.kept.to(self.h.dtype)
        totals = torch.cat([total[:, None], self.h * keep[..., None]], 1).cumsum(1)
        counts = torch.cat([seen[:, None], keep], 1).cumsum(1)
        ended = torch.arange(1, counts.shape[1], device=keep.device).expand(len(keep), -1)
        ended = ended if self.ready is None else self.ready
        return self._summary(_taken(totals, ended), counts.gather(1, ended), ended)

    def end(self) -> tuple[Tensor, Tensor, Tensor]:
        """`start` of what follows."""
        total, largest, seen = self.start
        kept = self.kept[..., None]
        least = torch.finfo(self.h.dtype).min
        most = self.h.masked_fill(~kept, least).amax(1)
        most = torch.where(seen[:, None] > 0, torch.maximum(largest, most), most)
        count = seen + self.kept.sum(1)
        most = most.masked_fill(count[:, None] == 0, 0)
        return total + (self.h * kept).sum(1), most, count

    def _summary(self, total: Tensor, count: Tensor, ended: Tensor) -> Tensor:
        """Mean and maximum (b, m, p) of what counted until `ended` frames; 0 where nothing has.

        The maximum's places are found without gradient, so that few times cost little on the way
        back.
        """
        _, largest, seen = self.start
        least = torch.finfo(self.h.dtype).min
        first = torch.where(seen[:, None, None] > 0, largest[:, None], least)
        known = torch.cat([first, self.h.masked_fill(~self.kept[..., None], least)], 1)
        place = _places_of_largest(known.detach(), ended)
        most = known.gather(1, place).masked_fill(count[..., None] == 0, 0)
        return torch.cat([total / count.clamp_min(1)[..., None], most], -1)


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """values (b, f, d) at places (b, m): (b, m, d)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def _places_of_largest(values: Tensor, ends: Tensor) -> Tensor:
    """The places (b, m, d) of the largest of values[:, : end + 1]: values (b, f, d), ends (b, m).

    For few ends by blocks of about sqrt(f) samples: a running maximum of all samples, with its
    places, takes many times as long as a reduction.
    """
    b, f, d = values.shape
    size, m = math.isqrt(f) + 1, ends.shape[1]
    if m * size >= f:
        return _taken(values.cummax(1).indices, ends)
    blocks = F.pad(values, (0, 0, 0, -f % size), value=-math.inf).unflatten(1, (-1, size))
    best, which = F.pad(blocks.amax(2), (0, 0, 1, 0), value=-math.inf).cummax(1)
    last, rows = ends // size, torch.arange(size, device=ends.device)

    def rows_of(block: Tensor) -> Tensor:
        """(b, m, size, d) of blocks (b, m, d)."""
        at = (block[:, :, None] * size + rows[:, None]).clamp_max(f - 1).flatten(1, 2)
        return values.gather(1, at).unflatten(1, (m, size))

    before = _taken(which, last) - 1  # -1 if there is none
    here = last[..., None].expand(b, m, d)
    late = (rows > (ends % size)[..., None])[..., None]
    newest = rows_of(here).masked_fill(late, -math.inf).amax(2)
    most = _taken(best, last)  # of the blocks before
    block = torch.where((newest < most) | most.isnan(), before, here)
    found = rows_of(block).masked_fill(late & (block == here)[:, :, None], -math.inf)
    return block * size + found.argmax(2)
