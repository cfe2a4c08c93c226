"""Base of layers that are built around another layer."""

from longstate.layers._base import Layer, State


class Wrapper(Layer):
    """A layer around another one. Its state is that of the layer inside, unless a subclass adds to
    it.

    Args:
        layer: any layer; it is not changed.
    """

    def __init__(self, layer: Layer):
        super().__init__()
        self.layer = layer
        self.d_model, self.own_gate = layer.d_model, layer.own_gate

    @property
    def grows(self) -> bool:
        return self.layer.grows

    def init_state(self, batch: int) -> State:
        """That of the layer inside."""
        return self.layer.init_state(batch)
