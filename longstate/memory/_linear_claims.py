"""What a linear layer can never do: claims from its system.

Eigenvalues decide whether a state is finally forgotten. The part left after k steps, and the growth
before, are norms: here the 2-norm of the state in real coordinates, (Re x, Im x) if it is complex.
For a diagonal system (S4D, S5, DSS) norms and moduli of eigenvalues are the same.

Gains are for regular samples. A state whose modulus is below 1 by more than rounding is proved to
fade. One that cannot be distinguished from 1 counts as never forgotten, and so does one whose decay
rounds to 1 in the type in which the layer runs.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longstate.memory._certificate import Claim
from longstate.memory._gains import gains
from longstate.memory._gramians import System, real_matrices
from longstate.memory._limits import bounded, number_format
from longstate.memory._powers import _UNIT, Powers
from longstate.memory._recording import widened
from longstate.memory._threshold import event_threshold
from longstate.memory._timescales import eigenvalues
from longstate.systems import DiagonalSystem, TwoSidedSystem

KEPT = 0.01  # share of a state below which it counts as forgotten
REGULAR = ", regular samples"
"""How a claim ends that says nothing of other times between samples."""
_SUMMABLE = 1 - 1e-12  # with a larger modulus, sums over all time have no correct digits


class Fading(NamedTuple):
    """How the states of a system fade, in the worst channel.

    Attributes:
        size: largest |eigenvalue|.
        forgets: whether every state is proved to go to zero.
        growth: certified and found largest |A^k|.
        steps: certified and found number of steps after which at most 1 % is left.
    """

    size: float
    forgets: bool
    growth: tuple[float, float]
    steps: tuple[float, float]


def linear_claims(name: str, layer: Any, dt: tuple[float, float]) -> list[Claim]:
    """Claims about a layer with a `system`.

    Args:
        dt: shortest and longest time between samples.
    """
    wide = widened(layer)
    with torch.no_grad():
        system = wide.system()
        fading = _fading(system)
        narrow = _narrow_size(layer)
        claims = _of_fading(name, fading, narrow, number_format(layer))
        if fading.forgets and fading.size > _SUMMABLE:
            claims += [bounded(c, layer) for c in _endless(name)]
        elif fading.forgets:
            both = wide.two_sided() if getattr(layer, "bidirectional", False) else system
            claims += [bounded(c, layer) for c in _of_gains(name, both, system)]
        if dt != (1.0, 1.0):
            claims = [c._replace(what=f"{c.what}{REGULAR}") for c in claims]
            claims += _irregular(name, wide, dt)
        return claims


def _of_fading(name: str, f: Fading, narrow: float, format_name: str) -> list[Claim]:
    note = ""
    if f.forgets and narrow >= 1:
        note = f"in {format_name}, as the layer runs, it is 1 or more: nothing is forgotten"
    elif not f.forgets and f.size <= 1:
        note = "cannot be distinguished from 1: nothing is forgotten"
    size = 1.0 if not f.forgets and abs(f.size - 1) < 1e-9 else f.size
    grown, found = f.growth
    return [
        Claim(
            name, "largest |eigenvalue|", "exact", size, None, None, True,
            f.forgets and narrow < 1, note,
        ),
        Claim(
            name, "growth of a state on the way (2-norm), at most", "certified", grown, found, None,
            True, None,
        ),
        Claim(
            name, "steps until 1 % is left (2-norm), at most", "certified", *f.steps, None, True,
            None,
        ),
    ]  # fmt: skip


def _of_gains(name: str, both: System | TwoSidedSystem, system: System) -> list[Claim]:
    g = gains(both)
    worst = int(g.h_infinity.flatten().argmax())
    high, low = (float(v.flatten()[worst]) for v in (g.h_infinity, g.h_infinity_below))
    l1, below, h2 = float(g.l1.max()), float(g.l1_below.max()), float(g.h2.max())
    u = float(event_threshold(system).ratio.min())
    return [
        Claim(name, "gain of energy (H-infinity)", "certified", high, low, None, True, True),
        Claim(name, "gain of white noise (H2)", "exact", h2, None, None, True, None),
        Claim(name, "gain of amplitude (l1)", "upper_bound", l1, below, None, True, True),
        Claim(
            name, "|u| / |state| that cannot make it grow", "certified", u, None, None, False, None
        ),
    ]


def _endless(name: str) -> list[Claim]:
    """Claims of a system that forgets too slowly for sums in float64."""
    return [
        Claim(name, what, "upper_bound", math.inf, None, None, True, True)
        for what in ("gain of energy (H-infinity)", "gain of amplitude (l1)")
    ]


def _fading(system: System) -> Fading:
    values = eigenvalues(system).abs()
    size = float(values.max())
    if isinstance(system, DiagonalSystem):  # each state separately: norms are moduli
        forgets = size < 1 - 4 * _UNIT
        lost = -math.log(size) if size > 0 else math.inf
        steps = float(math.ceil(math.log(1 / KEPT) / lost * (1 + 1e-9))) if forgets else math.inf
        grown = 1.0 if size <= 1 else math.inf
        return Fading(size, forgets, (grown, grown), (max(steps, 1.0), max(steps, 1.0)))
    powers = Powers(real_matrices(system)[0])
    high, low = powers.growth()
    most, some = powers.steps(KEPT, high)
    return Fading(
        size,
        bool(powers.forgets().all()),
        (float(high.max()), float(low.max())),
        (float(most.max()), float(some.max())),
    )


def _narrow_size(layer: Any) -> float:
    """Largest |eigenvalue| of the system in the type that the layer runs in."""
    return float(eigenvalues(layer.system()).abs().max())


def _irregular(name: str, wide: Any, dt: tuple[float, float]) -> list[Claim]:
    """Claims of a diagonal system for a range of steps. The modulus of each state, as a function of
    the step, is largest at one end of the range (zero-order hold and bilinear rule)."""
    systems = [wide.system(rate=v) if v > 0 else None for v in dt]
    if not all(s is None or isinstance(s, DiagonalSystem) for s in systems):
        return []
    sizes = [1.0 if s is None else float(s.A.abs().max()) for s in systems]
    size = max(sizes)
    lost = -math.log(size) if size > 0 else math.inf
    steps = math.ceil(math.log(1 / KEPT) / lost * (1 + 1e-9)) if lost > 0 else math.inf
    between = f"dt between {dt[0]:g} and {dt[1]:g}"
    return [
        Claim(
            name, f"decay of a step, at most, {between}", "certified", size, None, None, True,
            size <= 1,
        ),
        Claim(
            name, f"steps until 1 % is left, at most, {between}", "certified", float(steps), None,
            None, True, None,
        ),
    ]  # fmt: skip


def growth_of(claims: list[Claim]) -> Tensor:
    """Certified growths (k) among claims."""
    found = [c.certified for c in claims if c.what.startswith("growth of a state")]
    return torch.tensor([1.0 if v is None else v for v in found], dtype=torch.float64)
