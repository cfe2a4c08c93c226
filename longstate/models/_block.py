"""One residual block around a layer that mixes along time.

    y = u + dropout(GLU(W gelu(mixer(norm(u)))))

Axes: b batch, t time, d channels.
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate.layers._base import Layer, State


class Block(nn.Module):
    """Pre-norm, mixer, gate, residual. Carries the state of the mixer that it holds.

    Args:
        mixer: any layer.
        d_model: channels.
        dropout: share of the gated output that is zeroed in training.
    """

    def __init__(self, mixer: Layer, d_model: int, *, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.mixer = mixer
        self.gate = nn.Linear(d_model, 2 * d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        u: Float[Tensor, "b t d"],
        state: State = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        y, state = self.mixer(self.norm(u), state, dt=dt, mask=mask, reset=reset)
        y = nn.functional.glu(self.gate(nn.functional.gelu(y)), dim=-1)
        return u + self.dropout(y), state
