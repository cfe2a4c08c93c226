"""A stack of blocks. It carries a list with one state per block, so it is itself a layer.

Axes: b batch, t time, d channels.
"""

from collections.abc import Sequence
from typing import cast

from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate.errors import InputError, near
from longstate.layers._base import Layer, State, check_call
from longstate.models._block import Block


class Backbone(Layer):
    """Blocks one after another, and a last norm.

    Args:
        mixers: the layers, one per block.
        d_model: channels.
        dropout: share of each block's output that is zeroed in training.
    """

    def __init__(self, mixers: Sequence[Layer], d_model: int, *, dropout: float = 0.0):
        super().__init__()
        self.d_model = d_model
        self.blocks = nn.ModuleList(Block(m, d_model, dropout=dropout) for m in mixers)
        self.norm = nn.LayerNorm(d_model)

    def init_state(self, batch: int) -> list[State]:
        return [cast(Block, block).mixer.init_state(batch) for block in self.blocks]

    def forward(
        self,
        u: Float[Tensor, "b t d"],
        state: list[State] | None = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t d"], list[State]]:
        states = check_call(self, u, state, dt, mask, reset)
        x, new = u.to(self.norm.weight.dtype), []
        if mask is not None:  # what is not there may be NaN, and must not reach a gradient
            x = x.masked_fill(~mask[..., None], 0)
        for block, s in zip(self.blocks, states, strict=True):
            x, s = block(x, s, dt=dt, mask=mask, reset=reset)
            new.append(s)
        y = self.norm(x)
        if mask is not None:
            y = y.masked_fill(~mask[..., None], 0)
        return y.to(u.dtype), new


def layer_class(name: str) -> type[Layer]:
    """The class in `longstate.layers` of that name, in any case.

    Raises:
        InputError: there is none.
    """
    from longstate import layers

    classes = {
        n.lower(): value
        for n, value in vars(layers).items()
        if isinstance(value, type) and issubclass(value, layers.Layer) and value != layers.Layer
    }
    if name.lower() not in classes:
        raise InputError(f"there is no layer {name!r}; {near(name, sorted(classes))}")
    return classes[name.lower()]
