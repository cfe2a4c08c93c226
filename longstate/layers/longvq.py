"""LongVQ: attention over a few codes that stand for all keys, behind a linear memory.

    m_t = a * m_{t-1} + (1 - a) * u_t        n averages of each channel; x_t = sum over n of c * m_t
    z_t = silu(W_z x_t)         q_t = f z_t + g         k_t = f' z_t + g'        v_t = silu(W_v u_t)
    k~_t = the code nearest to k_t
    o_t = sum over s <= t of w_ts v_s / sum over s <= t of w_ts
          w_ts = exp(q_t . k~_s / sqrt(p)), and times exp(bias_{t-s}) for the last `window` samples
    y_t = W_out (phi silu(W_h x_t + U_h (gamma o_t)) + (1 - phi) u_t)
    phi = sigmoid(W_phi x_t)                 gamma = silu(W_gamma x_t)

All keys of one code have one weight, so that samples before the window need two sums for each code,
of their values and of their count: the state has a fixed size, and nothing is approximated but the
keys. The linear memory is a set of exponential averages.

Liu et al., "LongVQ: Long Sequence Modeling with Vector Quantization on Structured Memory", IJCAI
2024, arXiv:2404.11163. Reconstruction: the paper's code was not available, and the gates are those
of Mega (Ma et al., 2023, arXiv:2209.10655). Differs from the paper: codes are parameters and learn
by gradients, not by moving averages with a commitment loss; keys learn through the window, by the
straight-through rule. Every sample waits for the one before it, in a loop.

Axes: b batch, t time, d channels, n averages, p key channels, s codes, w window.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._cell import Cell, Parts
from longstate.ops import chunk_scan, diagonal_channel_scan, diagonal_scan


class Line(NamedTuple):
    """Samples in the order of time, masked ones behind the others."""

    order: Tensor | None  # b, t; None without a mask
    number: Tensor  # b, 1: of samples that are not masked
    part: Tensor | None  # b, t + 1: resets up to each of these, and up to what follows; or none
    fresh: Tensor | None  # b, t + 1: whether there was a reset before it


def _line(x: Tensor, mask: Tensor | None, reset: Tensor | None) -> Line:
    """The samples of x (b, t, ...)."""
    b, t = x.shape[:2]
    order, number = None, torch.full((b, 1), t, device=x.device)
    if mask is not None:
        order = (~mask).long().argsort(stable=True, dim=1)
        number = mask.sum(1, keepdim=True)
    if reset is None:
        return Line(order, number, None, None)
    part = reset.long().cumsum(1)
    last = part[:, -1:]
    part = F.pad(part if order is None else part.gather(1, order), (0, 1))
    part = torch.where(_among(number, t + 1), part, last)
    return Line(order, number, part, part != F.pad(part[:, :-1], (1, 0)))


def _among(number: Tensor, t: int) -> Tensor:
    """Which of the first t places are less than a number (b, 1): (b, t)."""
    return torch.arange(t, device=number.device) < number


def _at(x: Tensor, place: Tensor) -> Tensor:
    """x (b, t, ...) at places (b, s)."""
    return x.gather(1, place[..., None].expand(-1, -1, x.shape[2]))


class Seen(NamedTuple):
    """The window of the state, and then the samples in line, (b, w - 1 + t, ...)."""

    k: Tensor
    v: Tensor
    code: Tensor
    there: Tensor
    part: Tensor | None


def _inside(seen: Seen, line: Line, window: int) -> Tensor:
    """Which samples of its window, (b, t, w), each one attends to. Always itself, so that no row is
    empty."""
    inside = seen.there.unfold(1, window, 1)
    if seen.part is not None and line.part is not None:
        inside = inside & (seen.part.unfold(1, window, 1) == line.part[:, :-1, None])
    return F.pad(inside[..., :-1], (0, 1), value=True)


def _left(seen: Seen, line: Line, t: int) -> tuple[Tensor, Tensor]:
    """Value (b, t + 1, d) and code of what has left the window at each step, which begins with
    nothing; zero where nothing did."""
    leaves = seen.there[:, :t] & _among(line.number, t)
    if seen.part is not None and line.part is not None:
        leaves = leaves & (seen.part[:, :t] == line.part[:, 1:])
    value, code = (torch.where(leaves[..., None], x[:, :t], 0) for x in (seen.v, seen.code))
    return F.pad(value, (0, 0, 1, 0)), F.pad(code, (0, 0, 1, 0))


def _last(seen: Seen, line: Line, size: int) -> Parts:
    """The window, `size` samples, after the last one."""
    k, v, there, part = seen.k, seen.v, seen.there, seen.part
    if line.order is None:
        k, v, there = (x[:, -size:] for x in (k, v, there))
        part = None if part is None else part[:, -size:]
    else:
        place = line.number + torch.arange(size, device=k.device)
        k, v, there = _at(k, place), _at(v, place), there.gather(1, place)
        part = None if part is None else part.gather(1, place)
    if part is not None and line.part is not None:
        there = there & (part == line.part[:, -1:])
    k, v = (torch.where(there[..., None], x, 0) for x in (k, v))
    return k.flatten(1), v.flatten(1), there.to(v.dtype)


class LongVQ(Cell):
    """Attention over codes and a window, with a state of fixed size.

    State: {"memory": (b, d n), "sums": (b, s d), "counts": (b, s), and of the samples in the window
    "k": (b, (w - 1) p), "v": (b, (w - 1) d), "there": (b, w - 1)}.

    Args:
        d_model: channels in and out.
        d_state: n, averages of each channel.
        d_key: p, channels of a key.
        n_codes: s, codes.
        window: w, samples with a bias of their own, the current one included; at least 2.

    Raises:
        ValueError: a size is too small, or `dt` or `rate` is given to a call: attention counts
            samples.
    """

    dynamics = ("decay",)
    own_gate = True
    no_time = "it counts samples. S4D takes them"

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 8,
        d_key: int = 16,
        n_codes: int = 32,
        window: int = 8,
    ):
        super().__init__()
        sizes = {"d_state": (d_state, 1), "d_key": (d_key, 1), "n_codes": (n_codes, 1)}
        for name, (value, least) in {**sizes, "window": (window, 2)}.items():
            if value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}")
        self.d_model, self.d_state, self.d_key = d_model, d_state, d_key
        self.n_codes, self.window = n_codes, window
        self.decay = nn.Parameter(torch.linspace(0.0, 5.0, d_state).repeat(d_model, 1))
        self.read = nn.Parameter(torch.randn(d_model, d_state) * d_state**-0.5)
        self.in_proj = nn.Linear(d_model, d_model)  # W_v
        self.x_proj = nn.Linear(d_model, d_key + 3 * d_model)  # W_z, W_phi, W_gamma, W_h
        self.scale = nn.Parameter(torch.randn(2, d_key))
        self.shift = nn.Parameter(torch.zeros(2, d_key))
        self.codes = nn.Parameter(0.1 * torch.randn(n_codes, d_key))  # about as large as keys
        self.bias = nn.Parameter(torch.zeros(window))
        self.mix = nn.Linear(d_model, d_model, bias=False)  # U_h
        self.out_proj = nn.Linear(d_model, d_model)

    def _sizes(self) -> dict[str, int]:
        d, p, w = self.d_model, self.d_key, self.window - 1
        sums = {"sums": self.n_codes * d, "counts": self.n_codes}
        return {"memory": d * self.d_state, **sums, "k": w * p, "v": w * d, "there": w}

    def _run(
        self,
        x: Tensor,
        dt: Tensor | None,
        state: Parts,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, Parts]:
        d, p = self.d_model, self.d_key
        w = {name: value.to(x.dtype) for name, value in self.named_parameters()}
        decay, memory = torch.sigmoid(w["decay"]), state[0].unflatten(1, (d, -1))
        averages, memory = diagonal_channel_scan(
            x, decay, 1 - decay, w["read"], memory, mask=mask, reset=reset
        )
        projected = F.linear(averages, w["x_proj.weight"], w["x_proj.bias"])
        z, phi, gamma, h = projected.split([p, d, d, d], -1)
        q, k = (F.silu(z)[..., None, :] * w["scale"] + w["shift"]).unbind(-2)
        v = F.silu(F.linear(x, w["in_proj.weight"], w["in_proj.bias"]))
        line = _line(v, mask, reset)
        if line.order is not None:
            q, k, v = (_at(part, line.order) for part in (q, k, v))
        o, after = self._attend(w, q, k, v, state[1:], line)
        if line.order is not None:
            o = _at(o, line.order.argsort(dim=1))
        y = torch.sigmoid(phi) * F.silu(h + F.linear(F.silu(gamma) * o, w["mix.weight"]))
        return y + (1 - torch.sigmoid(phi)) * x, (memory.flatten(1), *after)

    def _attend(
        self,
        w: dict[str, Tensor],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: Parts,
        line: Line,
    ) -> tuple[Tensor, Parts]:
        """o (b, t, d) of samples in line, and the state without the memory."""
        t, size = v.shape[1], self.d_key**-0.5
        sums, counts, *window = state
        seen = self._seen(w, k, v, window, line)
        keys = seen.code @ w["codes"] + seen.k - seen.k.detach()  # straight-through
        keys, values = (x.unfold(1, self.window, 1) for x in (keys, seen.v))  # b, t, ..., w
        inside = _inside(seen, line, self.window)
        close = (q[..., None] * keys).sum(-2) * size + w["bias"].flip(0)
        close = close.masked_fill(~inside, -torch.inf)
        # at every step one sample has left the window, into the sums of its code
        value, code = _left(seen, line, t)
        counted, counts = diagonal_scan(code, torch.ones_like(counts[0]), counts, reset=line.fresh)
        counted = counted[:, :t]
        far = (F.linear(q, w["codes"]) * size).masked_fill(counted == 0, -torch.inf)
        top = torch.cat([close, far], -1).amax(-1, keepdim=True).detach()
        close, far = (close - top).exp(), (far - top).exp()
        before = sums.unflatten(1, (-1, v.shape[2])).mT[:, None]  # b, 1, d, s
        total, sums = chunk_scan(
            value[:, :, None], value.new_zeros(*value.shape[:2], 1), code[:, :, None],
            F.pad(far, (0, 0, 0, 1))[:, :, None], before, reset=line.fresh,
        )  # fmt: skip
        values = torch.where(inside[:, :, None], values, 0)  # NaN times 0 would be NaN
        o = total[:, :t, 0] + (close[:, :, None] * values).sum(-1)
        o = o / (close.sum(-1) + (far * counted).sum(-1))[..., None]
        return o, (sums[:, 0].mT.flatten(1), counts, *_last(seen, line, self.window - 1))

    def _seen(
        self, w: dict[str, Tensor], k: Tensor, v: Tensor, window: list[Tensor], line: Line
    ) -> Seen:
        """The window of the state, and then the samples."""
        old, t = self.window - 1, v.shape[1]
        k, v = (
            torch.cat([before.unflatten(1, (old, -1)), now], 1)
            for before, now in zip(window, (k, v), strict=False)
        )
        there = torch.cat([window[2] > 0, _among(line.number, t)], 1)
        part = None if line.part is None else F.pad(line.part[:, :t], (old, 0))
        return Seen(k, v, self._nearest(w, k), there, part)

    def _nearest(self, w: dict[str, Tensor], k: Tensor) -> Tensor:
        """One for the code nearest to each key (..., p), and zero for the others: (..., s)."""
        distance = (k[..., None, :] - w["codes"]).square().sum(-1)
        nearest = distance.argmin(-1, keepdim=True)
        return (torch.arange(self.n_codes, device=k.device) == nearest).to(k.dtype)
