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
    if op not in _FACTORS:
        return None
    start, form = ("taps" if op is short_conv else "h0"), inspect.signature(op)

    def run(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        call = form.bind(*args, **options).arguments
        s = op(**{k: v for k, v in call.items() if k not in _UNUSED})[1]
        if s.numel():
            M = _FACTORS[op](call)
            if op is short_conv:
                h = before(line, M, s.mT).mT
            else:
                h = before(line, M, s.reshape(*M.shape[:2], -1)).view_as(s)
            call[start] = call[start] + h
        return op(**call)

    return run


def _of_taps(call: dict[str, Any]) -> Tensor:
    """Taps (b, 1, k, k): the oldest leave for every sample that enters, and all at a reset."""
    x, taps, mask, reset = call["x"], call["taps"], call.get("mask"), call.get("reset")
    k = taps.shape[1]
    entered = torch.full_like(x[:, 0, 0], x.shape[1]) if mask is None else mask.sum(1).to(x)
    if reset is not None:
        entered = torch.where(reset.any(1), k, entered)
    row = torch.arange(k, device=x.device)
    return (row - row[:, None] == entered[:, None, None]).to(x.dtype)[:, None]


def _of_steps(call: dict[str, Any]) -> Tensor:
    """Mamba (b, d n, 1, 1): exp(A sum of the steps)."""
    dt = call["dt"].to(call["A"].dtype)
    dt = F.softplus(dt) if call.get("dt_softplus") else dt
    return _kept((_sum(dt, call)[..., None] * call["A"]).exp().flatten(1), call)[..., None, None]


def _of_heads(call: dict[str, Any]) -> Tensor:
    """Mamba-2 and Mamba-3 (b, h, 1, 1): exp(sum of log_a)."""
    return _kept(_sum(call["log_a"], call).exp(), call)[..., None, None]


def _by_running(op: Scan) -> Callable[[dict[str, Any]], Tensor]:
    """The last state (b, states, 1, 1) from ones, without input."""

    def run(call: dict[str, Any]) -> Tensor:
        drive = next(iter(call))  # of every scan the sequence is the first argument
        silent = {k: v for k, v in call.items() if k not in _UNUSED}
        silent |= {drive: torch.zeros_like(call[drive]), "h0": torch.ones_like(call["h0"])}
        return op(**silent)[1].flatten(1)[..., None, None]

    return run


_FACTORS: dict[Scan, Callable[[dict[str, Any]], Tensor]] = {
    short_conv: _of_taps,
    selective_scan: _of_steps,
    chunk_scan: _of_heads,
    longhorn_scan: _by_running(longhorn_scan),
    diagonal_scan: _by_running(diagonal_scan),
    zoh_scan: _by_running(zoh_scan),
}


def _sum(v: Tensor, call: dict[str, Any]) -> Tensor:
    """v (b, t, ...) over the samples that are not masked."""
    mask = call.get("mask")
    return v.sum(1) if mask is None else v.masked_fill(~mask[..., None], 0).sum(1)


def _kept(M: Tensor, call: dict[str, Any]) -> Tensor:
    """M (b, ...), 0 where the row has a reset."""
    reset = call.get("reset")
    return M if reset is None else torch.where(reset.any(1)[:, None], 0, M)


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
