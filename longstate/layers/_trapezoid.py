"""The recurrence of Mamba-3: by matrix products for a sequence, and for one sample.

    theta_t = theta_{t-1} + turn_t                                k, q: pairs rotated by theta
    h_t = alpha_t (h_{t-1} + (1 - share_t) step_t v_{t-1} k_{t-1}^T) + share_t step_t v_t k_t^T
    y_t = h_t q_t + D v_t

A sample enters twice: with weight share_t step_t at its own step, and with (1 - share_s) step_s at
the next step, s. The scan uses the sum as one weight; the sample's own output uses the first part
only. The last sample of a call is kept in the state, as k and v, until its second part is known.

Axes: b batch, t time, h heads, p channels per head, n state, s angles; ... is (b, t) or (b).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.layers._base import State
from longstate.layers._projected import project
from longstate.ops import chunk_scan
from longstate.ops._double import widen
from longstate.ops._transforms import can_look, is_finite

Projection = tuple[Tensor, Tensor] | None
"""W and V (h, n, r), by which the rotated k and q are multiplied. None: they stay."""


class Tokens(NamedTuple):
    """The inputs of the recurrence.

    Attributes:
        v (..., h, p): input.
        k, q (..., h, n): directions of writing and reading; not yet rotated.
        step (..., h): length of the step.
        log_a (..., h): logarithm of the decay alpha.
        share (..., h): lambda, the current sample's share of the step.
        turn (..., h, s): angle by which each pair of columns rotates, in radians.
    """

    v: Tensor
    k: Tensor
    q: Tensor
    step: Tensor
    log_a: Tensor
    share: Tensor
    turn: Tensor


def rotate(v: Tensor, theta: Tensor) -> Tensor:
    """Rotate the pairs (0, 1), (2, 3), ... of v (..., n) by theta (..., s); keep the rest."""
    s = theta.shape[-1]
    cos, sin = theta.cos(), theta.sin()
    first, second = v[..., 0 : 2 * s : 2], v[..., 1 : 2 * s : 2]
    turned = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1)
    return torch.cat((turned.flatten(-2), v[..., 2 * s :]), dim=-1)


def along(new: Tokens, theta: Tensor, by: Projection) -> tuple[Tensor, Tensor]:
    """k and q as the recurrence has them, for angles theta."""
    k, q = rotate(new.k, theta), rotate(new.q, theta)
    return (k, q) if by is None else project(k, q, *by)


def advance(new: Tokens, D: Tensor, state: State, by: Projection = None) -> tuple[Tensor, State]:
    """y (b, h, p) of one sample, and the next state."""
    theta = (state["angle"] + new.turn).remainder(2 * torch.pi)
    k, q = along(new, theta, by)
    second = ((1 - new.share) * new.step)[..., None] * state["v"]
    before = state["ssm"] + second[..., None] * state["k"][..., None, :]
    v, log_a, k, q, share = (x[:, None] for x in (new.v, new.log_a, k, q, new.share * new.step))
    y, h = chunk_scan(v, log_a, k, q, before, weight=share, D=D)
    return y[:, 0], {"angle": theta, "ssm": h, "k": k[:, 0], "v": new.v}


def scan(
    new: Tokens,
    D: Tensor,
    state: State,
    mask: Tensor | None,
    reset: Tensor | None,
    by: Projection = None,
    of_heads: Callable[..., tuple[Tensor, Tensor]] = chunk_scan,
) -> tuple[Tensor, State]:
    """y (b, t, h, p) of a sequence, and the state after it.

    Args:
        new: inputs of the sequence; finite also where `mask` is False.
        D (h): weight of v in y.
        state: before the sequence.
        mask (b, t), reset (b, t): bool, as in `Layer`.
        by: of k and q.
        of_heads: the scan of the matrix states.
    """
    k, q, first, weight, h0, theta = as_scan(new, state, mask, reset, by)
    y, ssm = of_heads(
        new.v, new.log_a, k, q, h0, weight=weight, own=first, D=D, mask=mask, reset=reset
    )
    last = {"k": k, "v": new.v}
    if mask is None:
        # a view would keep the whole sequence in memory
        last = {name: v[:, -1].clone() for name, v in last.items()}
    else:
        last = {name: at_last(v, state[name], mask, reset) for name, v in last.items()}
    return y, {"angle": theta[:, -1].clone(), "ssm": ssm, **last}


def as_scan(
    new: Tokens, state: State, mask: Tensor | None, reset: Tensor | None, by: Projection = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The arguments of a plain scan: k and q rotated, the first part of each weight, the whole
    weight, the state with the pending sample included, and the angles."""
    theta = angles(new.turn, state["angle"], mask, reset)
    k, q = along(new, theta, by)
    second = _of_next((1 - new.share) * new.step, mask)  # (b, 1 + t, h)
    waiting = second[:, 0, :, None] * state["v"]
    h0 = state["ssm"] + waiting[..., None] * state["k"][..., None, :]
    first = new.share * new.step
    return k, q, first, first + second[:, 1:], h0, theta


def angles(turn: Tensor, start: Tensor, mask: Tensor | None, reset: Tensor | None) -> Tensor:
    """theta (b, t, h, s) in [0, 2 pi). Summed in double precision, because only the remainder of a
    long sum is used."""
    dtype, turn = turn.dtype, widen(turn)
    if mask is not None:
        turn = torch.where(mask[..., None, None], turn, 0)
    start = widen(start)[:, None]
    if reset is None:
        return (start + turn.cumsum(1)).remainder(2 * torch.pi).to(dtype)
    time = torch.arange(reset.shape[1], device=reset.device)
    at = torch.where(reset, time, -1).cummax(1).values[..., None, None]  # the last reset
    theta = _since(turn, start, at)
    if turn.device.type == "cpu" and not (can_look() and is_finite(theta[:, -1])):
        # no sum but that of its own sequence is to be NaN
        bad = ~turn.isfinite()
        spoiled = _since(bad.to(turn), torch.zeros_like(start), at) > 0
        theta = _since(turn.masked_fill(bad, 0), start, at).masked_fill(spoiled, torch.nan)
    return theta.remainder(2 * torch.pi).to(dtype)


def _since(v: Tensor, start: Tensor, at: Tensor) -> Tensor:
    """Sums of v (b, t, h, s) from the last reset on, or from `start` where `at` (b, t) is -1."""
    total = v.cumsum(1)
    before = (total - v).gather(1, at.clamp(min=0).expand_as(total))
    return torch.where(at < 0, start, -before) + total


def _of_next(v: Tensor, mask: Tensor | None) -> Tensor:
    """v (b, t, h) of the first unmasked sample from i on, 0 if there is none: (b, 1 + t, h)."""
    padded = F.pad(v, (0, 0, 0, 1))
    if mask is None:
        return padded
    t = mask.shape[1]
    time = torch.arange(t, device=mask.device)
    following = torch.where(mask, time, t).flip(1).cummin(1).values.flip(1)
    following = F.pad(following, (0, 1), value=t)
    return padded.gather(1, following[..., None].expand_as(padded))


def at_last(v: Tensor, before: Tensor, mask: Tensor, reset: Tensor | None) -> Tensor:
    """v (b, t, ...) at the last unmasked sample; `before` if there is none, 0 after a reset."""
    time = torch.arange(mask.shape[1], device=mask.device)
    at = torch.where(mask, time, -1).amax(1)
    row = torch.arange(len(v), device=v.device)
    chosen = torch.where((at < 0)[:, None, None], before, v[row, at.clamp(min=0)])
    if reset is None:
        return chosen
    forgotten = (reset & (time > at[:, None])).any(1)
    return torch.where(forgotten[:, None, None], 0, chosen)
