"""A linear system that looks ahead too: what a bidirectional layer computes, as one operator.

    y_t = sum_{l >= 0} K_l u_{t-l}  +  sum_{l >= 0} K'_l u_{t+1+l}

K is the impulse response of `ahead`, which has the present sample and the direct path; K' that of
`behind`, which runs against time.
"""

from dataclasses import dataclass

from longstate.systems._dense import DenseSystem
from longstate.systems._diagonal import DiagonalSystem
from longstate.systems._shapes import expect


@dataclass(frozen=True, eq=False)
class TwoSidedSystem:
    """Two discrete systems, one for each direction of time, whose outputs are added.

    Args:
        ahead: from the past and the present.
        behind: from the future. Its D must be zero: the present belongs to `ahead`.

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
