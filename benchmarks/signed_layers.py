"""Two layers that differ in the sign of their decays alone, for `longstate tasks run`.

    h_t = a_t h_{t-1} + B u_t,   y_t = C h_t        a_t = tanh(W u_t) or sigmoid(W u_t)

With a_t in [0, 1] no such layer computes parity at all lengths; with a_t in [-1, 1] one does:
a_t = 1 - 2 u_t (Sarrof et al., 2024, arXiv:2405.17394; Grazzi et al., 2024, arXiv:2411.12537).

    cd benchmarks && longstate tasks run --tasks parity --blocks 1 \
        --layers signed_layers:Signed,signed_layers:NonNegative
"""

import torch
from torch import Tensor, nn

from longstate.layers import Layer
from longstate.ops import diagonal_scan


class Decays(Layer):
    """A diagonal recurrence whose decays depend on the input. Subclasses define `decay`.

    State: (b, n). Takes neither `dt` nor `mask`.

    Args:
        d_model: channels.
        d_state: n, states.
    """

    def __init__(self, d_model: int, d_state: int = 16):
        super().__init__()
        self.d_model, self.d_state = d_model, d_state
        self.W, self.B = nn.Linear(d_model, d_state), nn.Linear(d_model, d_state)
        self.C = nn.Linear(d_state, d_model)

    def decay(self, v: Tensor) -> Tensor:
        raise NotImplementedError

    def init_state(self, batch: int) -> Tensor:
        return self.C.weight.new_zeros(batch, self.d_state)

    def forward(self, u: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        state = self.init_state(len(u)) if state is None else state
        h, state = diagonal_scan(self.B(u), self.decay(self.W(u)), state)
        return self.C(h), state


class Signed(Decays):
    """Decays in [-1, 1]."""

    def decay(self, v: Tensor) -> Tensor:
        return torch.tanh(v)


class NonNegative(Decays):
    """Decays in [0, 1]."""

    def decay(self, v: Tensor) -> Tensor:
        return torch.sigmoid(v)
