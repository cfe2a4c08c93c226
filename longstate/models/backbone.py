"""A stack of blocks. It carries a list with one state per block, so it is itself a layer.

Axes: b batch, t time, d channels.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate.errors import InputError, near
from longstate.models.block import Block


class Backbone(nn.Module):
    """Blocks one after another, and a last norm.

    Args:
        mixers: the layers, one per block; each `y, state = mixer(u, state, ...)`.
        d_model: channels.
        dropout: share of each block's output that is zeroed in training.
    """

    def __init__(self, mixers: Sequence[nn.Module], d_model: int, *, dropout: float = 0.0):
        super().__init__()
        self.blocks = nn.ModuleList(Block(m, d_model, dropout=dropout) for m in mixers)
        self.norm = nn.LayerNorm(d_model)

    def forward(
        self,
        u: Float[Tensor, "b t d"],
        state: list[Any] | None = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t d"], list[Any]]:
        states = [None] * len(self.blocks) if state is None else state
        new = []
        for block, s in zip(self.blocks, states, strict=True):
            u, s = block(u, s, dt=dt, mask=mask, reset=reset)
            new.append(s)
        return self.norm(u), new

    def step(
        self,
        u_t: Float[Tensor, "b d"],
        state: list[Any],
        *,
        dt: Float[Tensor, "b"] | None = None,
        mask: Bool[Tensor, "b"] | None = None,
        reset: Bool[Tensor, "b"] | None = None,
    ) -> tuple[Float[Tensor, "b d"], list[Any]]:
        new = []
        for block, s in zip(self.blocks, state, strict=True):
            u_t, s = block.step(u_t, s, dt=dt, mask=mask, reset=reset)
            new.append(s)
        return self.norm(u_t), new

    def init_state(self, batch: int) -> list[Any]:
        return [block.init_state(batch) for block in self.blocks]


def layer_class(name: str) -> type[nn.Module]:
    """The class in `longstate.layers` of that name, in any case."""
    from longstate import layers

    classes = {
        n.lower(): value
        for n, value in vars(layers).items()
        if isinstance(value, type) and issubclass(value, nn.Module)
    }
    if name.lower() not in classes:
        raise InputError(f"there is no layer {name!r}; {near(name, sorted(classes))}")
    return classes[name.lower()]
