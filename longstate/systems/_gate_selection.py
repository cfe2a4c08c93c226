"""The constants of a linear recurrence with a gate, from which certificates are computed.

    g_t = floor + (1 - floor) sigmoid(gate u_t + shift)                           (n)
    h_t = (1 - lost g_t) * h_{t-1} + g_t * into u_t

If the gate is hard, some entries are not written at a sample, and their g is `floor` in the decay.

Axes: d model channels, n state.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GateSelection:
    """Constants of a layer with a gate, taken from its parameters.

    Args:
        gate (n, d), shift (n): linear map from the layer's input to the gate before its sigmoid.
        floor: smallest gate.
        hard: whether some entries of the state are not written at every sample.
        lost (n): share of a state that is lost at a gate of 1, between 0 and 1.
        into (n, d): linear map from the layer's input to what is written.
    """

    gate: Float[Tensor, "n d"]
    shift: Float[Tensor, " n"]
    floor: float
    hard: bool
    lost: Float[Tensor, " n"]
    into: Float[Tensor, "n d"]
