"""The state before each rank's piece, for layers whose state is a linear recurrence that the input
does not steer: S4, HOPE, S4D, DSS, S5, LinOSS.

A piece takes a state h to M h + s, where s is its last state from zero and M the product of its
steps. Two neighbouring pieces are one: (M, s) then (M', s') is (M' M, M' s + s'). Doubling the
distance in each round, ranks combine all pieces to their left in log2(ranks) messages.

State and M are split into lanes that do not mix, with k numbers each: 1 in a diagonal layer, 2 in
LinOSS (velocity and position), n in S4 and n + 1 in HOPE.

Axes: b batch, t time, d channels, l lanes, k numbers of a lane.
"""

from typing import Any

import torch
from torch import Tensor

from longstate.layers import DSS, HOPE, S4, S4D, S5, LinOSS
from longstate.layers._base import full_precision
from longstate.ops.oscillator_scan import oscillator_step
from longstate.parallel._line import Line

LINEAR = (S4, HOPE, S4D, DSS, S5, LinOSS)
_DENSE = (S4, HOPE)


def state_before(
    layer: Any, line: Line, u: Tensor, given: Tensor, options: dict[str, Any]
) -> Tensor:
    """The state before the first sample of this rank's piece.

    Args:
        u (b, t, d): the rank's piece.
        given: state before the sequence; zero on ranks other than 0.
        options: dt, mask, reset and rate of the call.
    """
    forward = type(layer).forward
    s = _lanes(layer, forward(layer, u, given, **options)[1])
    with full_precision(u):
        M = transfer(layer, u, given, options).to(s.dtype)
        h = before(line, M, s)
        return given + (h.mT if isinstance(layer, LinOSS) else h.reshape(given.shape))


def before(line: Line, M: Tensor, s: Tensor) -> Tensor:
    """The state (b, l, k) in front of this rank's piece, of the pieces to the left alone.

    Args:
        M (b, l, k, k): products of the steps of a piece. An axis b or l of 1 stands for all; a last
            axis of 1 for one factor of all k numbers.
        s (b, l, k): the piece's last state.
    """
    by = 1
    while by < line.size:
        M_left, s_left = line.move(by, M, s)
        s = s + _times(M, s_left[..., None])[..., 0]
        M = _times(M, M_left)
        by *= 2
    return line.move(1, s)[0]


def transfer(layer: Any, u: Tensor, given: Tensor, options: dict[str, Any]) -> Tensor:
    """M (b, l, k, k) of a piece; b is 1 where it is the same for all rows."""
    dt, mask, reset = (options.get(name) for name in ("dt", "mask", "reset"))
    if dt is not None:
        return _by_running(layer, u, given, options)
    if mask is None:
        counts = torch.full((1,), u.shape[1], device=u.device)
    else:
        counts = mask.sum(1)
    M = power(_step(layer, options.get("rate", 1.0)), counts)
    return M if reset is None else torch.where(reset.any(1)[:, None, None, None], 0, M)


def power(A: Tensor, counts: Tensor) -> Tensor:
    """A (l, k, k) to the power of each of counts (b): (b, l, k, k)."""
    product = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device).expand(len(counts), *A.shape)
    bits = int(counts.max()).bit_length()
    for bit in range(bits):
        odd = (counts >> bit & 1).bool()[:, None, None, None]
        product = torch.where(odd, _times(product, A), product)
        if bit + 1 < bits:
            A = _times(A, A)
    return product


def _step(layer: Any, rate: float) -> Tensor:
    """The matrices (l, k, k) of one regular step."""
    if isinstance(layer, LinOSS):
        return oscillator_step(layer._folded()[0], rate, layer.variant)[0]
    A = layer.system(rate).A
    return A if isinstance(layer, _DENSE) else A.reshape(-1, 1, 1)


def _by_running(layer: Any, u: Tensor, given: Tensor, options: dict[str, Any]) -> Tensor:
    """M (b, l, k, k), one column for each run of the layer without input."""
    columns = []
    for number in range(2 if isinstance(layer, LinOSS) else 1):
        start = torch.zeros_like(given)
        if isinstance(layer, LinOSS):
            start[:, number] = 1
        else:
            start += 1
        silence = torch.zeros_like(u)
        columns.append(_lanes(layer, type(layer).forward(layer, silence, start, **options)[1]))
    return torch.stack(columns, -1)


def _lanes(layer: Any, state: Tensor) -> Tensor:
    """A state as lanes (b, l, k)."""
    if isinstance(layer, _DENSE):
        return state
    return state.mT if isinstance(layer, LinOSS) else state.flatten(1)[..., None]


def _times(a: Tensor, b: Tensor) -> Tensor:
    return a * b if a.shape[-1] == 1 else a @ b
