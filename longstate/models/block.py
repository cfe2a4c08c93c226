"""One residual block around a layer that mixes along time.

    y = u + dropout(GLU(W gelu(mixer(norm(u)))))

Axes: b batch, t time, d channels.
"""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn


class Block(nn.Module):
    """Pre-norm, mixer, gate, residual. Obeys the contract of the mixer that it holds.

    Args:
        mixer: a layer, `y, state = mixer(u, state, dt=, mask=, reset=)`.
        d_model: channels.
        dropout: share of the gated output that is zeroed in training.
    """

    def __init__(self, mixer: nn.Module, d_model: int, *, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.mixer = mixer
        self.gate = nn.Linear(d_model, 2 * d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        u: Float[Tensor, "b t d"],
        state: Any = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t d"], Any]:
        y, state = self.mixer(self.norm(u), state, dt=dt, mask=mask, reset=reset)
        return u + self._gated(y), state

    def step(
        self,
        u_t: Float[Tensor, "b d"],
        state: Any,
        *,
        dt: Float[Tensor, "b"] | None = None,
        mask: Bool[Tensor, "b"] | None = None,
        reset: Bool[Tensor, "b"] | None = None,
    ) -> tuple[Float[Tensor, "b d"], Any]:
        """One time step."""
        y_t, state = self.mixer.step(self.norm(u_t), state, dt=dt, mask=mask, reset=reset)
        return u_t + self._gated(y_t), state

    def init_state(self, batch: int) -> Any:
        return self.mixer.init_state(batch)

    def _gated(self, y: Tensor) -> Tensor:
        return self.dropout(nn.functional.glu(self.gate(nn.functional.gelu(y)), dim=-1))
