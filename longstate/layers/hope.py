"""HOPE: a linear system for each channel, given by the Markov parameters of its Hankel operator.

    y = sum_{k=1..n} h_k o^k + D u
    o^0 = u     o^k_t = o^{k-1}_{t-1} - rho o^{k-1}_t + rho o^k_{t-1}     rho = (1 - dt) / (1 + dt)

o^k is u behind k all-pass sections (z^-1 - rho) / (1 - rho z^-1), so that every h gives a stable
system and the energy of the input is kept in each o^k. With dt = 1 the sections are delays, and h
are the taps of a filter of length n. A smaller dt reaches further back, at a coarser resolution.

Yu, Mahoney, Erichson, "HOPE for a Robust Parameterization of Long-memory State Space Models",
ICLR 2025, arXiv:2405.13975. Verified against Algorithm 1 of the paper: the same response, on a
circle that is long enough. **A reconstruction**: the causal recurrence, and its state. Differs from
the paper: Algorithm 1 convolves on a circle of the length of the sequence, by which the end of a
sequence reaches its beginning; this layer is causal. h is real, because imaginary parts change
nothing there. The official training code appends the reversed input and has a second h, which this
layer does not have.

Axes: b batch, t time, d channels, n Markov parameters; the state has n + 1 numbers, u_t and o^k_t.
"""

import torch
from torch import Tensor, nn

from longstate.layers._channelwise import ChannelwiseLayer, log_uniform
from longstate.ops.allpass_channel_scan import allpass_channel_scan, allpass_matrices
from longstate.systems import DenseSystem


class HOPE(ChannelwiseLayer):
    """One system per channel, a sum of `d_state` all-pass responses.

    Args:
        d_model: channels in and out.
        d_state: n, Markov parameters of each channel.
        dt_min, dt_max: range of the initial dt; 1 is a filter of `d_state` taps.

    Raises:
        ValueError: `d_state` is below 1, or `dt` is given to a call: a separate step for every
            sample would need a dense matrix for every sample; use S4D.
    """

    dynamics = ("log_dt", "h")

    def __init__(
        self, d_model: int, *, d_state: int = 64, dt_min: float = 1e-1, dt_max: float = 1.0
    ):
        super().__init__()
        if d_state < 1:
            raise ValueError(f"d_state must be at least 1; got {d_state}")
        self.d_model, self.d_state = d_model, d_state
        self.log_dt = nn.Parameter(log_uniform((d_model,), dt_min, dt_max))
        self.h = nn.Parameter(torch.randn(d_model, d_state) * d_state**-0.5)
        self.D = nn.Parameter(torch.randn(d_model))

    def system(self, rate: float = 1.0) -> DenseSystem:
        """The recurrence of x = (u, o^1, ..., o^n) that the layer runs."""
        rho, h = self._chain(rate)
        A, B = allpass_matrices(rho, self.d_state)
        C, D = nn.functional.pad(h, (1, 0))[:, None], self.D.to(self._dtype())[:, None, None]
        return DenseSystem(A, B[..., None], C, D, discrete=True)

    def _chain(self, rate: float) -> tuple[Tensor, Tensor]:
        """rho (d) and h (d, n)."""
        dt = self.log_dt.to(self._dtype()).exp() * rate
        return (1 - dt) / (1 + dt), self.h.to(self._dtype())

    def _zero_state(self, batch: int) -> Tensor:
        shape = (batch, self.d_model, self.d_state + 1)
        return torch.zeros(shape, dtype=self._dtype(), device=self.D.device)

    def _scan(self, u, state, dt, lengths, *, rate, direction=0):
        return allpass_channel_scan(u, *self._chain(rate), state, lengths=lengths)

    def _advance(self, u, state, dt, rate):
        y, state = self._scan(u[:, None], state, dt, None, rate=rate)
        return y[:, 0], state

    def _check_dt(self, dt):
        if dt is not None:
            raise ValueError(
                "HOPE takes no dt: each step size would need its own dense matrix. S4D takes "
                "irregular time; for one new sampling rate, pass rate="
            )
