"""Time stamps of series: their checks, and the usual interval between them.

Axes: t time.
"""

from collections.abc import Sequence

import numpy as np

from longstate.errors import InputError


def stamp_channel(channel: int, channels: int) -> int:
    """The number of the channel that holds the stamps, from 0.

    Raises:
        InputError: there is no such channel, or no other one.
    """
    if isinstance(channel, bool) or not isinstance(channel, int | np.integer):
        raise InputError(f"time_channel must be the number of a channel; got {channel!r}")
    if not -channels <= channel < channels:
        raise InputError(
            f"time_channel must be from {-channels} to {channels - 1}, as X has {channels} "
            f"channels; got {channel}"
        )
    if channels == 1:
        raise InputError(
            "X has one channel, the stamps (time_channel); values are needed beside it"
        )
    return int(channel) % channels


def check_stamps(stamps: np.ndarray, where: str) -> None:
    """Refuse stamps that are missing or do not increase.

    Args:
        stamps (t): of one series. where: the beginning of the sentence, such as "case 3 of X".

    Raises:
        InputError: names the first wrong one.
    """
    wrong = np.flatnonzero(~np.isfinite(stamps))
    if len(wrong):
        t = int(wrong[0])
        raise InputError(
            f"{where} has the stamp {stamps[t]} at sample {t}; every sample needs a finite one"
        )
    wrong = np.flatnonzero(np.diff(stamps) <= 0)
    if not len(wrong):
        return
    t = int(wrong[0]) + 1
    if stamps[t] == stamps[t - 1]:
        raise InputError(f"{where} has two samples with the stamp {stamps[t]}; keep one of them")
    raise InputError(
        f"{where} has the stamp {stamps[t]} behind {stamps[t - 1]}; stamps must increase within a "
        "case"
    )


def gaps_between(stamps: Sequence[np.ndarray]) -> np.ndarray:
    """All intervals between two samples of the same series."""
    return np.concatenate([np.diff(one) for one in stamps])


def usual_interval(stamps: Sequence[np.ndarray]) -> float:
    """The median interval.

    Raises:
        InputError: no series has two samples.
    """
    between = gaps_between(stamps)
    if not len(between):
        raise InputError(
            "every case of X has one sample, so that the stamps (time_channel) tell no interval; "
            "leave time_channel out"
        )
    return float(np.median(between))


def irregular(stamps: Sequence[np.ndarray]) -> bool:
    """Whether more than one interval in 20 differs from the median by more than a fifth of it."""
    between = gaps_between(stamps)
    if not len(between):
        return False
    usual = np.median(between)
    return bool((np.abs(between - usual) > usual / 5).mean() > 1 / 20)
