"""The constants of a selective layer from which certificates for all inputs are computed.

    v_t = into u_t + offset                                              (c)
    x_t = act(bias + sum over j of taps_j v_{t-j})                       (c), act: SiLU or nothing
    raw_t = shift + direct u_t + low x_t,  within shift +- spread        (o)
    step_t = softplus(raw_t), within limit
    decay_t = exp(-rate_t step_t)                                        (o, n)
    rate_t = rate, or rate_of(rate_shift + rate_direct u_t) where the input sets it
    written into a state in one step: at most step_t |x| |write x|; if the gain is split in two,
    one part belongs to this sample's step and the rest to the next one's

A layer that normalises its step and write vectors gives their bounds (`spread`, `write_cap`)
instead of maps. A regression (Longhorn) has no rates: its decays lie in (0, 1] for every input.

Axes: d model channels, c inner channels, o steps (channels or heads), n state, k taps, g groups.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Selection:
    """Constants of a selective layer, taken from its parameters.

    Args:
        into (c, d), offset (c): linear map from the layer's input to the convolution's input.
        taps (c, k), bias (c): the convolution, the current sample last; one tap of 1 for none.
        silu: whether SiLU follows the convolution.
        inner: number of the first channels, of c, that are the scan's input x.
        shift (o): constant part of the raw step.
        rate (o, n): decay rates. None for a regression.
        rate_direct (o, d), rate_shift (o), rate_of: for rates that depend on the input; `rate_of`
            is monotonically increasing, and `rate` is then the least rate. None: constant rates.
        split: whether the gain of a sample has two parts, the second with the next step.
        direct (o, d), low (o, c): linear maps to the raw step. None: not used.
        spread (o): largest distance of the raw step from `shift`, if its map is normalised.
        write (g n, c): linear map from the convolved channels to the write vector.
        write_cap (g n): bound of the write vector, if it is normalised.
        groups: g, number of groups of states with the same write vector.
        limit: smallest and largest step; None in the second place is no limit.
    """

    into: Float[Tensor, "c d"]
    offset: Float[Tensor, " c"]
    taps: Float[Tensor, "c k"]
    bias: Float[Tensor, " c"]
    silu: bool
    inner: int
    shift: Float[Tensor, " o"]
    rate: Float[Tensor, "o n"] | None
    direct: Float[Tensor, "o d"] | None = None
    low: Float[Tensor, "o c"] | None = None
    spread: Float[Tensor, " o"] | None = None
    write: Float[Tensor, "w c"] | None = None
    write_cap: Float[Tensor, " w"] | None = None
    limit: tuple[float, float | None] = (0.0, None)
    rate_direct: Float[Tensor, "o d"] | None = None
    rate_shift: Float[Tensor, " o"] | None = None
    rate_of: Callable[[Tensor], Tensor] | None = None
    split: bool = False
    groups: int = 1
