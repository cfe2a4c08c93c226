"""A linear system in both directions of time: a bidirectional layer as one operator.

    y_t = sum_{l >= 0} K_l u_{t-l}  +  sum_{l >= 0} K'_l u_{t+1+l}

K is the impulse response of `ahead`, which includes the current sample and the direct path; K' that
of `behind`, which runs backwards in time.
"""

from dataclasses import dataclass

from longstate.systems._dense import DenseSystem
from longstate.systems._diagonal import DiagonalSystem
from longstate.systems._shapes import expect


@dataclass(frozen=True, eq=False)
class TwoSidedSystem:
    """Two discrete systems, one for each direction of time, whose outputs are added.

    Args:
        ahead: from past and current samples.
        behind: from future samples. Its D must be zero: the current sample belongs to `ahead`.

    Raises:
        ValueError: one of them is continuous, or the D of `behind` is not zero.
    """

    ahead: DiagonalSystem | DenseSystem
    behind: DiagonalSystem | DenseSystem

    def __post_init__(self):
        expect(
            self.ahead.discrete and self.behind.discrete,
            "both directions must be discrete; call discretize(rule, dt) first",
        )
        expect(not bool(self.behind.D.any()), "the D of `behind` must be zero; put it in `ahead`")
