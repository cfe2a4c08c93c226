"""Fit a codec to a model: coordinates for each state, and the step of their rounding.

P is the covariance of a state, and e' Q e the energy of the later outputs that an error e of the
state causes. With the eigenvectors V of Q^1/2 P Q^1/2, the numbers V' Q^1/2 (x - mean) are
uncorrelated, the energies of their errors add up to that of all later outputs, and their variances
are the squared Hankel singular values. By reverse water-filling one step for all of them is best.
Numbers that are always rounded to 0 take no bits.

Axes: b samples of states, g groups, r rows of a group, m numbers of a row, k = g r m.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from longstate.compress._codec import (
    NUMBERS,
    StateCodec,
    place_of,
    state_places,
    structure_of,
)
from longstate.compress._future import Source, loaded, sources
from longstate.compress._parts import Rotated, Rounded
from longstate.compress._quantizer import (
    gaussian_step,
    ranges,
    sample_step,
    symmetric_root,
    to_whole,
)
from longstate.compress._seen import Data, Seen, collect
from longstate.errors import InputError
from longstate.memory import gaussian_rd
from longstate.stream._tree import init_state

_OUTLIER_BITS = 16  # of an outlier: its place and its value
_LEAST_ROWS = 64  # states that the step is computed from, at least
_ROOM = 1 << 20  # numbers that the step is computed from, at most, if this allows so many states
_FINEST, _COARSEST = 1e-9, 0.99  # share of the energy that may be lost


def fit_codec(
    model: nn.Module,
    data: Data | None = None,
    *,
    error: float | None = None,
    bits: float | None = None,
    at: int | Sequence[int] | None = None,
    rest: str = "float16",
    rows: int = 1024,
    rotate: bool = True,
) -> StateCodec:
    """A codec for the states of a model.

    Args:
        model: a layer, a stack or a language model: `y, state = model(u, state)`. Layers with a
            `system` or a `trace` are encoded so that later outputs change least.
        data: what the model reads, (b, t, ...), or several such batches. None: white noise of
            variance 1, for linear layers only.
        error: energy of the allowed change of each layer's later outputs, as a share of the energy
            that the state adds to them; between 0 and 1. Give this or `bits`.
        bits: per sequence, in fixed lengths, for all tensors of the state together.
        at: samples after which states are parked. None: at five places in the middle of the data.
        rest: how to encode tensors that are not the state of a recurrence, such as the past inputs
            of a short convolution; see `plain_codec`.
        rows: largest number of states to use, drawn at random from all states on the data.
        rotate: False keeps the original coordinates, for comparison. The numbers are then
            correlated and their errors do not simply add up, so `error` is only an estimate, and
            `shannon` treats every number separately.

    Raises:
        InputError: neither or both of `error` and `bits` are given, or one is out of range; the
            model has no state that can be encoded; a selective layer has no data; or the data is
            too short.
    """
    if (error is None) == (bits is None):
        raise InputError("fit_codec takes either error= or bits=; give exactly one of them")
    if error is not None and not _FINEST <= error <= _COARSEST:
        raise InputError(f"error must be between {_FINEST} and {_COARSEST}; got {error}")
    made = maker(model, data, at, rest, rows, rotate)
    if error is not None:
        return made(error)[0]
    assert bits is not None
    return within(made, bits)


Maker = Callable[[float], tuple[StateCodec, float]]
"""From the allowed share of energy to a codec and its bits per sequence."""


def maker(
    model: nn.Module,
    data: Data | None,
    at: int | Sequence[int] | None,
    rest: str,
    rows: int,
    rotate: bool = True,
) -> Maker:
    """Everything in `fit_codec` that does not depend on the allowed error."""
    if rest not in NUMBERS:
        raise InputError(f"rest must be one of {', '.join(NUMBERS)}; got {rest!r}")
    if rows < 2:
        raise InputError(f"rows must be at least 2; got {rows}")
    found = sources(model)
    drafts = _from_systems(found) if data is None else _from_data(model, found, data, at, rows)
    parts = [draft(rotate) for draft in drafts]
    names = {s.place.name for s in found}
    tensors, structure = state_places(model), structure_of(init_state(model, 1))
    others = {
        name: Rounded(
            place=place_of(name, t), number=rest if t.dtype.is_floating_point else "exact"
        )
        for name, t in tensors.items()
        if name not in names
    }

    def made(share: float) -> tuple[StateCodec, float]:
        fitted = [p.at(share) for p in parts]
        mine = {p.place.name: p for p, _ in fitted}
        codec = StateCodec(tuple(mine.get(n) or others[n] for n in tensors), structure)
        return codec, codec.fixed_bits + _OUTLIER_BITS * sum(outside for _, outside in fitted)

    return made


def within(made: Maker, bits: float) -> StateCodec:
    """The codec with the smallest error that takes at most `bits` per sequence."""
    low, high = math.log(_FINEST), math.log(_COARSEST)
    best, least = made(_COARSEST)
    if least > bits:
        raise InputError(
            f"bits must be at least {math.ceil(least)} for this model, of which "
            f"{8 * sum(p.row_bytes for p in best.rounded)} are for tensors that are not the state "
            f"of a recurrence (see rest); got {bits}"
        )
    for _ in range(14):
        middle = (low + high) / 2
        codec, size = made(math.exp(middle))
        if size <= bits:
            best, high = codec, middle
        else:
            low = middle
    return best


class _Draft:
    """A layer's states in the new coordinates; makes a part of a codec for any allowed error."""

    def __init__(
        self, source: Source, R: Tensor, R_back: Tensor, L: tuple[Tensor, Tensor] | None,
        mean: Tensor, c: Tensor, deviation: Tensor | None, exact: bool,
    ):  # fmt: skip
        self.source, self.right, self.right_back, self.left = source, R, R_back, L
        self.mean, self.deviation, self.exact = mean, deviation, exact
        self.ordered = c.sort(0).values
        count = max(_LEAST_ROWS, _ROOM // max(c.shape[1], 1))
        self.c = c[:count]
        self.variance = c.square().mean(0) if deviation is None else deviation.square()
        centre = mean @ R if L is None else L[0] @ mean @ R
        self.total = float(self.variance.sum() + centre.square().sum())

    def at(self, share: float) -> tuple[Rotated, float]:
        """The part that loses this share of the energy, and the mean outliers of a row."""
        target = min(share * self.total, 0.999 * float(self.variance.sum()))
        if self.deviation is None:
            step = sample_step(self.c, target)
        else:
            step = gaussian_step(self.deviation, target)
        whole = to_whole(self.ordered, step)
        low, levels, outside = ranges(whole)
        rate = gaussian_rd(self.variance, share * self.total)
        left, left_back = (None, None) if self.left is None else self.left
        part = Rotated(
            place=self.source.place, right=self.right, right_back=self.right_back,
            left=left, left_back=left_back, mean=self.mean, step=step, low=low.int(),
            levels=levels.int(), deviation=(self.variance.sqrt() / step).clamp(min=0.02),
            target=share, total=self.total, shannon=rate.bits,
            active=int((rate.per_number > 0).sum()), gaussian=self.exact,
        )  # fmt: skip
        return part, outside


def _from_systems(found: list[Source]) -> list[Callable[[bool], _Draft]]:
    selective = [type(s.layer).__name__ for s in found if s.reach is None]
    if selective:
        raise InputError(
            f"a codec for {selective[0]} needs data, because its readout depends on the input"
        )

    def drafted(s: Source, rotate: bool) -> _Draft:
        assert s.observe is not None
        assert s.reach is not None
        R, R_back = _coordinates(s.observe, s.reach, rotate)
        deviation = (R.mT @ s.reach @ R).diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt().flatten()
        normal = torch.Generator().manual_seed(0)
        c = torch.randn(1024, len(deviation), generator=normal, dtype=torch.float64) * deviation
        return _Draft(s, R, R_back, None, torch.zeros(s.shape).double(), c, deviation, rotate)

    return [partial(drafted, s) for s in found]


def _from_data(
    model: nn.Module, found: list[Source], data: Data, at: int | Sequence[int] | None, rows: int
) -> list[Callable[[bool], _Draft]]:
    def drafted(s: Source, seen: Seen, rotate: bool) -> _Draft:
        mean = seen.states.mean(0)
        z = seen.states - mean
        P = torch.einsum("bgri,gr,bgrj->gij", z, seen.weight, z) / len(z)
        R, R_back = _coordinates(seen.observe, P, rotate)
        left = None if s.shape[1] == 1 else _row_coordinates(z @ R, seen.weight, rotate)
        c = (z @ R if left is None else left[0] @ (z @ R)).flatten(1)
        return _Draft(s, R, R_back, left, mean, c, None, False)

    pairs = zip(found, collect(model, found, data, at, rows), strict=True)
    return [partial(drafted, *pair) for pair in pairs]


def _coordinates(Q: Tensor, P: Tensor, rotate: bool) -> tuple[Tensor, Tensor]:
    """R and its inverse (g, m, m), the coordinate with the largest variance first."""
    Q = loaded(Q)
    if not rotate:
        root = Q.diagonal(dim1=-2, dim2=-1).sqrt()
        return torch.diag_embed(root), torch.diag_embed(1 / root)
    root, inverse = symmetric_root(Q)
    vectors = torch.linalg.eigh(root @ P @ root).eigenvectors.flip(-1)
    return root @ vectors, vectors.mT @ inverse


def _row_coordinates(z: Tensor, weight: Tensor, rotate: bool) -> tuple[Tensor, Tensor]:
    """L and its inverse (g, r, r), for states z (b, g, r, m) after R."""
    root = weight.sqrt()
    if not rotate:
        return torch.diag_embed(root), torch.diag_embed(1 / root)
    z = root[:, :, None] * z
    turned = torch.linalg.eigh(torch.einsum("bgri,bgsi->grs", z, z)).eigenvectors.flip(-1)
    return turned.mT * root[:, None, :], turned / root[:, :, None]
