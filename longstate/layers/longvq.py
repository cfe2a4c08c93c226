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

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._cell import Cell, Parts, each_sample


class LongVQ(Cell):
    """Attention over codes and a window, with a state of fixed size.

    State: {"y": (b, d), "memory": (b, d n), "sums": (b, s d), "counts": (b, s), and of the samples
    in the window "k": (b, (w - 1) p), "v": (b, (w - 1) d), "there": (b, w - 1)}.

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
        memory = {"y": d, "memory": d * self.d_state}
        sums = {"sums": self.n_codes * d, "counts": self.n_codes}
        return {**memory, **sums, "k": w * p, "v": w * d, "there": w}

    def _run(
        self,
        x: Tensor,
        dt: Tensor | None,
        state: Parts,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, Parts]:
        cast = {name: p.to(x.dtype) for name, p in self.named_parameters()}
        v = F.silu(F.linear(x, cast["in_proj.weight"], cast["in_proj.bias"]))
        return each_sample(partial(self._advance, cast), (x, v), state, mask, reset)

    def _advance(self, w: dict[str, Tensor], now: Parts, state: Parts) -> Parts:
        (u, v), (_, memory, sums, counts, old_k, old_v, there) = now, state
        d, p = self.d_model, self.d_key
        decay = torch.sigmoid(w["decay"])
        memory = decay * memory.unflatten(-1, (d, -1)) + (1 - decay) * u[..., None]
        x = (w["read"] * memory).sum(-1)
        z, phi, gamma, h = F.linear(x, w["x_proj.weight"], w["x_proj.bias"]).split([p, d, d, d], -1)
        q, k = (F.silu(z)[:, None] * w["scale"] + w["shift"]).unbind(1)
        keys = torch.cat([old_k.unflatten(-1, (-1, p)), k[:, None]], 1)
        values = torch.cat([old_v.unflatten(-1, (-1, d)), v[:, None]], 1)
        there = torch.cat([there, torch.ones_like(there[:, :1])], 1)
        sums = sums.unflatten(-1, (-1, d))
        o = self._attend(w, q, keys, values, there, sums, counts)
        y = torch.sigmoid(phi) * F.silu(h + F.linear(F.silu(gamma) * o, w["mix.weight"]))
        y = y + (1 - torch.sigmoid(phi)) * u
        # the oldest sample leaves the window, into the sums of its code
        leaves = self._nearest(w, keys[:, 0]) * there[:, :1]
        sums = sums + leaves[..., None] * values[:, :1]
        parts = (memory, sums, counts + leaves, keys[:, 1:], values[:, 1:], there[:, 1:])
        return (y, *(part.flatten(1) for part in parts))

    def _attend(
        self,
        w: dict[str, Tensor],
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        there: Tensor,
        sums: Tensor,
        counts: Tensor,
    ) -> Tensor:
        """o (b, d) of q (b, p), the window (b, w, ...) and the sums of each code (b, s, d)."""
        size = self.d_key**-0.5
        near = self._nearest(w, keys) @ w["codes"] + keys - keys.detach()  # straight-through
        close = (near @ q[..., None])[..., 0] * size + w["bias"].flip(0)
        close = close.masked_fill(there == 0, -torch.inf)
        far = (F.linear(q, w["codes"]) * size).masked_fill(counts == 0, -torch.inf)
        top = torch.cat([close, far], 1).amax(1, keepdim=True).detach()
        close, far = (close - top).exp(), (far - top).exp()
        total = (close[..., None] * values).sum(1) + (far[..., None] * sums).sum(1)
        return total / (close.sum(1) + (far * counts).sum(1))[:, None]

    def _nearest(self, w: dict[str, Tensor], k: Tensor) -> Tensor:
        """One for the code nearest to each key (..., p), and zero for the others: (..., s)."""
        distance = (k[..., None, :] - w["codes"]).square().sum(-1)
        nearest = distance.argmin(-1, keepdim=True)
        return (torch.arange(self.n_codes, device=k.device) == nearest).to(k.dtype)
