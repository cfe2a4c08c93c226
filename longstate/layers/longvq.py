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
keys. These sums are a linear attention with one code as the key, which `chunk_scan` computes. The
linear memory is a set of exponential averages.

Liu et al., "LongVQ: Long Sequence Modeling with Vector Quantization on Structured Memory", IJCAI
2024, arXiv:2404.11163. Reconstruction: the paper's code was not available, and the gates are those
of Mega (Ma et al., 2023, arXiv:2209.10655). Differs from the paper: codes are parameters and learn
by gradients, not by moving averages with a commitment loss; keys learn through the window, by the
straight-through rule.

Axes: b batch, t time, d channels, n averages, p key channels, s codes, w window.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._cell import Cell, Parts, each_sample
from longstate.ops import chunk_scan, diagonal_channel_scan, diagonal_scan
from longstate.ops._ragged import run_ragged
from longstate.ops._transforms import batched


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
        if batched(mask, reset):  # one sample after another: nothing depends on values
            y = torch.zeros_like(x[:, 0])
            y, after = each_sample(self._advance, (x,), (y, *state), mask, reset)
            return y, after[1:]
        return run_ragged(
            lambda u, state, _, lengths: self._sequence(u, state, lengths), x, state, None, mask,
            reset,
        )  # fmt: skip

    def _advance(self, now: Parts, state: Parts) -> Parts:
        y, after = self._sequence(now[0][:, None], state[1:], None)
        return y[:, 0], *after

    def _sequence(self, x: Tensor, state: Parts, lengths: Tensor | None) -> tuple[Tensor, Parts]:
        """Outputs, and the state after `lengths` samples, or after all of them."""
        d, p = self.d_model, self.d_key
        w = {name: value.to(x.dtype) for name, value in self.named_parameters()}
        decay, memory = torch.sigmoid(w["decay"]), state[0].unflatten(1, (d, -1))
        averages, memory = diagonal_channel_scan(
            x, decay, 1 - decay, w["read"], memory, lengths=lengths
        )
        projected = F.linear(averages, w["x_proj.weight"], w["x_proj.bias"])
        z, phi, gamma, h = projected.split([p, d, d, d], -1)
        q, k = (F.silu(z)[..., None, :] * w["scale"] + w["shift"]).unbind(-2)
        v = F.silu(F.linear(x, w["in_proj.weight"], w["in_proj.bias"]))
        o, after = self._attend(w, q, k, v, state[1:], lengths)
        y = torch.sigmoid(phi) * F.silu(h + F.linear(F.silu(gamma) * o, w["mix.weight"]))
        return y + (1 - torch.sigmoid(phi)) * x, (memory.flatten(1), *after)

    def _attend(
        self,
        w: dict[str, Tensor],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: Parts,
        lengths: Tensor | None,
    ) -> tuple[Tensor, Parts]:
        """o (b, t, d), and the state without the memory."""
        (t, d), old, size = v.shape[1:], self.window - 1, self.d_key**-0.5
        sums, counts, old_k, old_v, there = state
        k = torch.cat([old_k.unflatten(1, (old, -1)), k], 1)
        v = torch.cat([old_v.unflatten(1, (old, -1)), v], 1)
        there = torch.cat([there, there.new_ones(len(v), t)], 1)
        code = self._nearest(w, k)
        # at every step, and after the last, one sample has left the window, into sums of its code
        leaves = there[:, :t] if lengths is None else there[:, :t] * _below(lengths, t)
        left = F.pad(code[:, :t] * leaves[..., None], (0, 0, 1, 0))  # b, t + 1, s
        counted, counts = diagonal_scan(left, torch.ones_like(counts[0]), counts)
        counted = counted[:, :t]
        far = (F.linear(q, w["codes"]) * size).masked_fill(counted == 0, -torch.inf)
        near = code @ w["codes"] + k - k.detach()  # straight-through
        near, values, inside = (_windows(x, self.window) for x in (near, v, there))
        close = (q[..., None] * near).sum(-2) * size + w["bias"].flip(0)
        close = close.masked_fill(inside == 0, -torch.inf)
        top = torch.cat([close, far], -1).amax(-1, keepdim=True).detach()
        close, far = (close - top).exp(), (far - top).exp()
        total, sums = chunk_scan(
            F.pad(v[:, :t], (0, 0, 1, 0))[:, :, None], v.new_zeros(len(v), t + 1, 1),
            left[:, :, None], F.pad(far, (0, 0, 0, 1))[:, :, None],
            sums.unflatten(1, (-1, d)).mT[:, None],
        )  # fmt: skip
        o = total[:, :t, 0] + (close[:, :, None] * values).sum(-1)
        o = o / (close.sum(-1) + (far * counted).sum(-1))[..., None]
        parts = (_last(x, lengths, old).flatten(1) for x in (k, v, there[..., None]))
        return o, (sums[:, 0].mT.flatten(1), counts, *parts)

    def _nearest(self, w: dict[str, Tensor], k: Tensor) -> Tensor:
        """One for the code nearest to each key (..., p), and zero for the others: (..., s)."""
        distance = (k[..., None, :] - w["codes"]).square().sum(-1)
        nearest = distance.argmin(-1, keepdim=True)
        return (torch.arange(self.n_codes, device=k.device) == nearest).to(k.dtype)


def _below(lengths: Tensor, t: int) -> Tensor:
    """Which of the first t places are below a length (b): (b, t)."""
    return torch.arange(t, device=lengths.device) < lengths[:, None]


def _windows(x: Tensor, w: int) -> Tensor:
    """x (b, w - 1 + t, ...) as the w samples up to each of the last t: (b, t, ..., w)."""
    t = x.shape[1] - w + 1
    return torch.stack([x[:, i : i + t] for i in range(w)], -1)


def _last(x: Tensor, lengths: Tensor | None, size: int) -> Tensor:
    """The `size` samples of x (b, size + t, ...) up to the end of each row."""
    if lengths is None:
        return x[:, x.shape[1] - size :].clone()  # a view would keep the whole sequence
    place = lengths[:, None] + torch.arange(size, device=x.device)
    return x.gather(1, place[..., None].expand(-1, -1, x.shape[2]))
