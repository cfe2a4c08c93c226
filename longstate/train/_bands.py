"""How often the bands of a forecast held, and whether chance explains the distance from what was
asked."""

from dataclasses import dataclass

import numpy as np

FAR = 0.04  # from the share that is asked of a band, for a remark
CHANCE = 0.95  # of calibrated bands hold a share that chance explains


@dataclass(frozen=True)
class Band:
    """How often the truth was between two quantiles.

    Args:
        level: the share that is asked for, such as 0.8 between the quantiles 0.1 and 0.9.
        observed: the observed share. before: the same without calibration.
        windows: number of scored windows without a common row; None if unknown.
        observed_by_step (h): the observed share at each step of the horizon.
    """

    level: float
    observed: float
    before: float
    windows: float | None = None
    observed_by_step: tuple[float, ...] = ()

    def words(self) -> str:
        """What the band held, with and without calibration."""
        return (
            f"The {_percent(self.level)} bands held {_percent(self.observed)} of the true "
            f"values; {_percent(self.before)} before calibration."
        )

    @property
    def chance(self) -> tuple[float, float] | None:
        """The shares that chance explains: where 95 % of calibrated bands are.

        A window counts as one trial, however many steps it has, because its errors are alike.
        """
        return None if self.windows is None else binomial_range(self.level, round(self.windows))

    @property
    def is_wrong(self) -> bool:
        """Whether the share is far from what is asked, and chance does not explain it."""
        if abs(self.observed - self.level) <= FAR:
            return False
        return self.chance is None or not self.chance[0] <= self.observed <= self.chance[1]

    def sentence(self) -> str | None:
        """A remark where the share is more than `FAR` from what is asked, with what chance
        explains; None where it is not."""
        if abs(self.observed - self.level) <= FAR:
            return None
        how = "too narrow" if self.observed < self.level else "too wide"
        held = f"held {_percent(self.observed)} of the true values"
        if self.chance is None:
            return f"The {_percent(self.level)} bands are {how}: they {held}."
        low, high = self.chance
        between = f"between {_percent(low)} and {_percent(high)}"
        on = f"on windows that are worth {self.windows:,.0f} independent ones"
        if not self.is_wrong:
            return (
                f"The {_percent(self.level)} bands {held}; {on} chance explains every share "
                f"{between}, so that they may still be right."
            )
        return (
            f"The {_percent(self.level)} bands are {how}: they {held}; {on} chance explains "
            f"only shares {between}."
        )


def binomial_range(share: float, trials: int) -> tuple[float, float]:
    """The middle 95 % of the share of successes, exactly: each tail has at most 2.5 %.

    Args:
        share: probability of a success, between 0 and 1.
        trials: at least 1; fewer count as 1.
    """
    n = max(1, trials)
    k = np.arange(n)
    ratios = np.log((n - k) / (k + 1) * share / (1 - share))  # of neighbours: p(k + 1) / p(k)
    below = np.exp(n * np.log1p(-share) + np.r_[0.0, np.cumsum(ratios)]).cumsum()
    tail = (1 - CHANCE) / 2
    low, high = np.searchsorted(below, [tail, 1 - tail])
    return float(low) / n, float(min(high, n)) / n


def _percent(share: float) -> str:
    return f"{round(100 * share, 6):.3g} %" if share < 0.995 else f"{100 * share:.0f} %"
