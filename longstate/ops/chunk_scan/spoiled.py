"""Samples that are not finite, kept from spreading to earlier ones of their chunk.

A product with a triangular matrix multiplies later samples by 0, and 0 times NaN is NaN. So if the
last state is not finite, the chunks run again without such samples, and the outputs and states that
the recurrence would spoil are set to NaN:

    the state from t on      x_t, B_t, weight_t, log_a_t or the state before, unless it is forgotten
    the output at t          x_t, B_t, log_a_t or the state before, unless it is forgotten

`own`, C and D reach their own output only, in either form.

Axes: b batch, t time, h heads, p channels per head, n state, g groups.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from longstate.ops._transforms import is_finite


class Clean(NamedTuple):
    """Finite inputs, and the results that become NaN by the others.

    Attributes:
        x, log_a, weight, B, h0: with 0 for what is not finite; log_a may be -inf.
        outputs (b, t, h, p): bool, whether y is spoiled.
        last (b, h, p): bool, whether the last state is.
    """

    x: Tensor
    log_a: Tensor
    weight: Tensor
    B: Tensor
    h0: Tensor
    outputs: Tensor
    last: Tensor


def without_spoiled(
    run: Callable[..., tuple[Tensor, Tensor, Tensor]], x: Tensor, log_a: Tensor, weight: Tensor,
    own: Tensor, B: Tensor, C: Tensor, D: Tensor, h0: Tensor, k: int, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The results of `run`: y, the last state, and what is kept; with NaN only where it belongs."""
    y, last, states = run(x, log_a, weight, own, B, C, D, h0, k, keep)
    if x.device.type != "cpu" or is_finite(last):  # every sample contributes to it
        return y, last, states
    c = clean(x, log_a, weight, B, h0)
    y, last, _ = run(c.x, c.log_a, c.weight, own, c.B, C, D, c.h0, k, False)
    y.masked_fill_(c.outputs, torch.nan)
    return y, last.masked_fill_(c.last[..., None], torch.nan), states


def clean(x: Tensor, log_a: Tensor, weight: Tensor, B: Tensor, h0: Tensor) -> Clean:
    """Shapes as in `chunk_scan`."""
    forgets = log_a == -torch.inf
    per_group = x.shape[2] // B.shape[2]
    bad_B = ~B.isfinite()
    bad_a = ~(log_a.isfinite() | forgets)
    bad_weight, bad_x, bad_h0 = ~weight.isfinite(), ~x.isfinite(), ~h0.isfinite()
    both = bad_x | (bad_B.any(-1).repeat_interleave(per_group, dim=2) | bad_a)[..., None]
    time = torch.arange(x.shape[1], device=x.device)[:, None]
    begun = torch.where(forgets, time, -1).cummax(1).values[..., None]  # the last forgetting, or -1
    into_state = torch.where(both | bad_weight[..., None], time[..., None], -2)
    into_state[:, 0] = into_state[:, 0].maximum(torch.where(bad_h0.any(-1), -1, -2))
    at = into_state.cummax(1).values  # the last sample that spoils; -1 is the start, -2 none
    before = torch.cat([torch.where(bad_h0.any(-1), -1, -2)[:, None], at[:, :-1]], dim=1)
    return Clean(
        torch.where(bad_x, 0, x), torch.where(bad_a, 0, log_a),
        torch.where(bad_weight, 0, weight), torch.where(bad_B, 0, B), torch.where(bad_h0, 0, h0),
        both | ((before >= -1) & (before >= begun)), (at >= -1)[:, -1] & (at >= begun)[:, -1],
    )  # fmt: skip
