"""Scans over a sequence that is cut over ranks, for layers whose state goes through nothing else.

A layer of this kind names its scans in `Layer.scans`. Each is linear in the state, with factors
that the input sets and the state does not: a piece takes a state h to M h + s. The scan runs twice,
once for s and once from the state that `before` brings; all else in the layer runs once.

Axes: b batch, t time, d channels, n state, h heads, p channels per head, k taps.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.layers._base import State
from longstate.layers._trapezoid import Projection, Tokens, along, angles, at_last, scan
from longstate.ops import chunk_scan, longhorn_scan, selective_scan, short_conv
from longstate.ops.diagonal_scan import diagonal_scan
from longstate.ops.zoh_scan import zoh_scan
from longstate.parallel._line import Line
from longstate.parallel._prefix import before

Scan = Callable[..., Any]
_UNUSED = ("z", "D")  # of a scan's arguments, for its last state


def sharded(op: Scan, line: Line) -> Scan | None:
    """The scan over all ranks, None if there is none. Only on rank 0 may its state not be zero."""
    if op is scan:
        return _trapezoid(line)
    if op not in _BEFORE:
        return None
    start, form = ("taps" if op is short_conv else "h0"), inspect.signature(op)

    def run(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        call = form.bind(*args, **options).arguments
        if call[start].numel():
            call[start] = call[start] + _BEFORE[op](call, line)
        return op(**call)

    return run


def _state(op: Scan, call: dict[str, Any], **changes: Tensor) -> Tensor:
    """The last state."""
    return op(**{k: v for k, v in call.items() if k not in _UNUSED} | changes)[1]


def _taps(call: dict[str, Any], line: Line) -> Tensor:
    """The oldest taps leave for every sample that enters, and all at a reset."""
    x, taps, mask, reset = call["x"], call["taps"], call.get("mask"), call.get("reset")
    k = taps.shape[1]
    entered = x.new_full((len(x),), x.shape[1]) if mask is None else mask.sum(1).to(x)
    if reset is not None:
        entered = torch.where(reset.any(1), k, entered)
    row = torch.arange(k, device=x.device)
    M = (row - row[:, None] == entered[:, None, None]).to(x.dtype)[:, None]
    return before(line, M, _state(short_conv, call).mT).mT


def _selective(call: dict[str, Any], line: Line) -> Tensor:
    """M = exp(A times the sum of the steps)."""
    dt, A, mask, reset = call["dt"], call["A"], call.get("mask"), call.get("reset")
    dt = dt.to(A.dtype)
    dt = F.softplus(dt) if call.get("dt_softplus") else dt
    dt = dt if mask is None else dt.masked_fill(~mask[..., None], 0)
    M = (dt.sum(1)[..., None] * A).exp()
    M = M if reset is None else torch.where(reset.any(1)[:, None, None], 0, M)
    return _elementwise(line, M, _state(selective_scan, call))


def _heads(call: dict[str, Any], line: Line) -> Tensor:
    """The last state by one product over the piece, which is less than the scan."""
    x, B, h0, mask, reset = call["x"], call["B"], call["h0"], call.get("mask"), call.get("reset")
    log_a, weight = call["log_a"].to(h0.dtype), call["weight"].to(h0.dtype)
    if mask is not None:
        log_a, weight = (v.masked_fill(~mask[..., None], 0) for v in (log_a, weight))
    if reset is not None:
        log_a = log_a.masked_fill(reset[..., None], -torch.inf)
    left = log_a.flip(1).cumsum(1).flip(1)  # from each sample on
    into = x * (weight * F.pad(left[:, 1:], (0, 0, 0, 1)).exp())[..., None]
    into = into.unflatten(2, (B.shape[2], -1))
    s = torch.einsum("btgqp,btgn->bgqpn", into, B.to(into.dtype)).flatten(1, 2)
    M = left[:, 0].exp()[..., None, None]
    return before(line, M, (M * h0 + s).flatten(2)).view_as(h0)


def _running(op: Scan) -> Callable[[dict[str, Any], Line], Tensor]:
    """M is the last state from ones, without input."""

    def found(call: dict[str, Any], line: Line) -> Tensor:
        drive = next(iter(call))  # of every scan the sequence is the first argument
        silence, ones = torch.zeros_like(call[drive]), torch.ones_like(call["h0"])
        M = _state(op, call, **{drive: silence, "h0": ones})
        return _elementwise(line, M, _state(op, call))

    return found


_BEFORE: dict[Scan, Callable[[dict[str, Any], Line], Tensor]] = {
    short_conv: _taps,
    selective_scan: _selective,
    chunk_scan: _heads,
    longhorn_scan: _running(longhorn_scan),
    diagonal_scan: _running(diagonal_scan),
    zoh_scan: _running(zoh_scan),
}
"""What the ranks to the left add to the state in front of this rank's piece."""


def _elementwise(line: Line, M: Tensor, s: Tensor) -> Tensor:
    """`before` for M of the shape of s."""
    return before(line, M.flatten(1)[..., None, None], s.flatten(1)[..., None]).view_as(s)


def _trapezoid(line: Line) -> Scan:
    """Mamba-3: the angle first, then the last k and v, which it turns, then the matrix state."""
    of_heads = sharded(chunk_scan, line)
    assert of_heads is not None

    def run(
        new: Tokens, D: Tensor, state: State, mask: Tensor | None, reset: Tensor | None,
        by: Projection,
    ) -> tuple[Tensor, State]:  # fmt: skip
        kept = torch.ones_like(new.v[:, :, 0, 0], dtype=torch.bool) if mask is None else mask
        clear = torch.zeros_like(kept[:, 0]) if reset is None else reset.any(1)

        def passed(same: Tensor, s: Tensor) -> Tensor:
            """From the left, where a piece adds s (b, h, k), and keeps what was in rows `same`."""
            return before(line, same.to(s)[:, None, None, None], s)

        first = state["angle"]
        end = angles(new.turn, first, mask, reset)[:, -1]
        angle = first + passed(~clear, end)
        end = angles(new.turn, angle, mask, reset)[:, -1:]

        def last(v: Tensor) -> Tensor:
            return at_last(v, torch.zeros_like(v[:, 0]), kept, reset)[:, None]

        k = along(new._replace(k=last(new.k), q=last(new.q)), end, by)[0]
        own = torch.cat([k, last(new.v)], -1)[:, 0]
        given = torch.cat([state["k"], state["v"]], -1)
        same = ~(clear | kept.any(1))
        both = given + passed(same, own + same[:, None, None] * given)
        k, v = both.tensor_split([k.shape[-1]], -1)
        return scan(new, D, {**state, "angle": angle, "k": k, "v": v}, mask, reset, by, of_heads)

    return run
