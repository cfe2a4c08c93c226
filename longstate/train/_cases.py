"""Series from the outside, as one padded tensor.

Accepted: an array (cases, channels, time); an array or a data frame (cases, time) of one channel;
a list with one array (channels, time) or (time) per case, of unequal lengths. NaN is missing. After
a fit to a table (cases, time), other tables need the same columns; the other forms may have any
length.

Axes: n cases, t time, c channels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from longstate.errors import InputError
from longstate.models._time_channel import TimeChannel
from longstate.train._stamps import check_stamps, stamp_channel, usual_interval

LARGEST = 1e30  # larger values overflow when they are squared in float32
_SHAPES = "(cases, channels, time), (cases, time), or a list with one array per case"


class Cases(NamedTuple):
    """values (n, t, c): NaN where missing and after the end of a series. lengths (n).
    time: the channel with the stamps, if there is one."""

    values: Float[Tensor, "n t c"]
    lengths: Int[Tensor, " n"]
    time: TimeChannel | None = None

    def take(self, places: Int[Tensor, " m"]) -> "Cases":
        """Some of the cases, as long as the longest of them."""
        lengths = self.lengths[places]
        return self._replace(values=self.values[places, : int(lengths.max())], lengths=lengths)

    def rows(self, shares: Float[Tensor, "n m"]) -> Int[Tensor, "n m"]:
        """The number of samples in these shares of every case, at least 1: a share of its samples,
        or of its time if there are stamps."""
        if self.time is None:
            return (self.lengths[:, None] * shares).ceil().long().clamp_min(1)
        stamps = self.time.split(self.values)[1]
        at = ((stamps - stamps[:, :1]) / self.time.interval).float()
        last = at.gather(1, self.lengths[:, None] - 1)
        until = (last + 1) * shares  # the last sample lasts one interval
        return torch.searchsorted(at.nan_to_num(torch.inf), until.float()).clamp_min(1)

    def seen(self, share: float) -> "Cases":
        """The first `share` of every case; see `rows`."""
        lengths = self.rows(torch.full((len(self.lengths), 1), share))[:, 0]
        t = int(lengths.max())
        later = torch.arange(t) >= lengths[:, None]
        values = self.values[:, :t].masked_fill(later[..., None], torch.nan)
        return self._replace(values=values, lengths=lengths)

    def split(self) -> tuple[Tensor, Tensor | None]:
        """The channels without the stamps, and the time since the previous sample in usual
        intervals, 1 after the end; None without stamps."""
        if self.time is None:
            return self.values, None
        values, stamps = self.time.split(self.values)
        dt, _ = self.time.between(stamps, self.time.init_state(stamps[:, 0]))
        return values, torch.where(stamps.isnan(), 1.0, dt)


def read_cases(
    X: Any,
    channels: int | None = None,
    time_channel: int | None = None,
    time: TimeChannel | None = None,
) -> Cases:
    """Check and convert `X`.

    Args:
        X: see the top of this file.
        channels: how many are expected; None accepts any.
        time_channel: the channel that holds the stamps, from the end if it is negative; None if
            there is none, or `time` tells it.
        time: of a fitted estimator. None: the usual interval is the median of these cases.

    Raises:
        InputError: X has another shape, is not numeric, a case cannot be used, or its stamps.
    """
    series = _listed(X)
    if not series:
        raise InputError("X has no cases; at least 1 is needed")
    found = {len(one) for one in series}
    if len(found) > 1:
        raise InputError(f"all cases need the same channels; X has cases of {sorted(found)}")
    c = found.pop()
    if channels is not None and c != channels:
        raise InputError(f"X has {c} channels, but the model was fitted to {channels}")
    stamped = None if time is None else time.channel
    if time_channel is not None:
        stamped = stamp_channel(time_channel, c)
    if stamped is not None:  # a sample that is NaN throughout is none
        series = [one[:, ~np.isnan(one).all(0)] for one in series]
    for i, one in enumerate(series):
        if stamped is not None:
            check_stamps(one[stamped], f"case {i} of X")
        _check(one, i, stamped)
    if stamped is not None and time is None:
        time = TimeChannel(stamped, usual_interval([one[stamped] for one in series]))
    lengths = torch.tensor([one.shape[1] for one in series])
    values = torch.full((len(series), int(lengths.max()), c), torch.nan, dtype=torch.float64)
    for i, one in enumerate(series):
        values[i, : one.shape[1]] = torch.from_numpy(one.T.copy())
    return Cases(values, lengths, time)


def columns_of(X: Any) -> int | None:
    """The columns of a table (cases, time): an array, a data frame or a list of lists of numbers.

    None for other forms.
    """
    if isinstance(X, list) and X and all(isinstance(row, list) for row in X):
        widths = {len(row) for row in X}
        return widths.pop() if len(widths) == 1 and np.ndim(X[0]) == 1 else None
    shape = tuple(getattr(X, "shape", ()))
    return int(shape[1]) if len(shape) == 2 else None


def _check(one: np.ndarray, i: int, stamped: int | None) -> None:
    if stamped is not None:
        one = np.delete(one, stamped, 0)
    if one.shape[1] == 0 or len(one) == 0:
        raise InputError(f"case {i} of X is empty: its shape (channels, time) is {one.shape}")
    if np.isinf(one).any():
        raise InputError(f"case {i} of X contains infinity; replace it, or use NaN for missing")
    if np.isnan(one).all():
        raise InputError(f"case {i} of X has only missing values (NaN): there is nothing to read")
    if np.nanmax(np.abs(one)) > LARGEST:
        raise InputError(f"case {i} of X has values above {LARGEST:g}; scale them")


def _listed(X: Any) -> list[np.ndarray]:
    """One array (channels, time) per case, float64."""
    if hasattr(X, "tocsr") or type(X).__module__.startswith("scipy.sparse"):
        raise TypeError(f"X is a sparse matrix, which is not supported; expected {_SHAPES}")
    ragged = isinstance(X, list | tuple) or (
        isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1
    )
    if ragged and len(X) and np.ndim(X[0]) > 0:
        series = [_numbers(one) for one in X]
        if len({one.ndim for one in series}) == 1 and series[0].ndim in (1, 2):
            return [one if one.ndim == 2 else one[None] for one in series]
        raise InputError(
            f"the cases of X must be arrays (channels, time) or (time); case 0 is {series[0].ndim}D"
        )
    array = _numbers(X)
    if array.ndim == 2:
        if array.shape[1] == 0:
            raise InputError(
                f"Found array with 0 feature(s) (shape={array.shape}) while a minimum of 1 is "
                "required: X has no samples in time"
            )
        array = array[:, None]
    if array.ndim != 3:
        raise InputError(
            f"X must be {_SHAPES}; got an array of shape {array.shape}. Reshape your data: a "
            "single case is X[None]"
        )
    return list(array)


def _numbers(X: Any) -> np.ndarray:
    array = np.asarray(X)
    if np.iscomplexobj(array):
        raise InputError("Complex data not supported: X must hold real numbers")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as e:
        kind = TypeError if isinstance(e, TypeError) else InputError
        raise kind(f"X must hold numbers ({e}); argument must be a string or a number") from None


def split(labels: Sequence[int] | None, n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Places of the training and of the validation cases.

    Args:
        labels: class of each case; every class keeps a case for training, and its share of the
            validation cases follows its size. None draws from all cases.
        n: number of cases.
        share: of the validation cases.
        seed: of the drawing.

    Returns:
        Both, sorted. The second is empty if there are too few cases.
    """
    random = np.random.default_rng([seed, 17])
    groups = [np.arange(n)] if labels is None else []
    if labels is not None:
        kinds = np.asarray(labels)
        groups = [np.flatnonzero(kinds == k) for k in np.unique(kinds)]
    held: list[int] = []
    owed = 0.0
    for group in groups:
        owed += share * len(group)
        count = min(int(owed + 0.5), len(group) - 1)
        owed -= count
        held += random.permutation(group)[:count].tolist()
    validation = torch.tensor(sorted(held), dtype=torch.int64)
    training = torch.tensor(sorted(set(range(n)) - set(held)), dtype=torch.int64)
    return training, validation


def spread(cases: Cases) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel over the observed values, (c)."""
    values = cases.split()[0].flatten(0, 1)
    observed = ~torch.isnan(values)
    for c, count in enumerate(observed.sum(0).tolist()):
        if count == 0:
            raise InputError(
                f"channel {c} of X has only missing values (NaN) in all training cases; leave it "
                "out"
            )
    mean = values.nanmean(0)
    return mean, ((values - mean) ** 2).nanmean(0).sqrt()


def between(values: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c"]:
    """Each channel with its gaps on straight lines between the observed values beside them; at both
    ends the nearest value goes on. A channel without any value is 0."""
    n, t, c = values.shape
    observed = ~torch.isnan(values)
    at = torch.arange(t)[None, :, None].expand(n, t, c)
    before = at.masked_fill(~observed, -1).cummax(1).values
    after = at.masked_fill(~observed, t).flip(1).cummin(1).values.flip(1)
    left = torch.where(before < 0, after, before).clamp_max(t - 1)
    right = torch.where(after == t, left, after)
    share = (at - left) / (right - left).clamp_min(1)
    one, other = (values.gather(1, place) for place in (left, right))
    return (one + share.to(values.dtype) * (other - one)).nan_to_num(0.0)
