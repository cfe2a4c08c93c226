"""How a selective layer chooses, for every input it can get: what certificates are computed from.

    v_t = into u_t + offset                                              (c)
    x_t = act(bias + sum over j of taps_j v_{t-j})                       (c), act: SiLU or nothing
    raw_t = shift + direct u_t + low x_t,  within shift +- spread        (o)
    step_t = softplus(raw_t), within limit
    decay_t = exp(-rate_t step_t)                                        (o, n)
    rate_t = rate, or rate_of(rate_shift + rate_direct u_t) where the input sets it
    what is written into a state in one step: at most step_t |x| |write x|; where the gain is split
    in two, a part of it comes with this sample's step and the rest with the next one's

A layer that normalises its steering says how far it reaches (`spread`, `write_cap`) and gives no
maps. A regression (Longhorn) has no rates: its decays lie in (0, 1] whatever the input.

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
        into (c, d), offset (c): what enters the convolution.
        taps (c, k), bias (c): the convolution, the present sample last; one tap of 1 for none.
        silu: whether SiLU follows.
        inner: the first so many of the c channels are the scan's input x.
        shift (o): of the raw step.
        rate (o, n): decay rates. None for a regression.
        rate_direct (o, d), rate_shift (o), rate_of: of rates that depend on the input; `rate_of`
            never falls. `rate` is the least of them then. None: they do not.
        split: whether the gain of a sample comes in two parts, the second with the next step.
        direct (o, d), low (o, c): maps to the raw step. None: no part in it.
        spread (o): how far the raw step lies from `shift` where its map is normalised.
        write (g n, c): map from the convolved channels to what x is written along.
        write_cap (g n): bound of it where it is normalised.
        groups: g, of states that are written alike.
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
