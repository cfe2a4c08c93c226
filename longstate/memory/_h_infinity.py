"""H-infinity of one channel: the largest singular value of its frequency response, enclosed.

Diagonal systems: the circle is divided into intervals, each with an upper bound from the distance
of the poles, and those with the highest bounds are divided again until the bounds meet (branch and
bound).

All others: a level g is attained at some frequency if and only if a Hamiltonian matrix has an
imaginary eigenvalue (Bruinsma and Steinbuch 1990). This finds the peak, but it is not a proof,
because of rounding. The proof is a symmetric matrix P (the bounded real lemma) with

    g^2 |u|^2 - |y|^2  >=  V(x_k, z_k) - V(x_{k-1}, z_{k-1})       V(w) = w' P w

for all x, z and u. It is checked for the computed P, rounding of the check included. Summed over
time the right side is zero. z is the state of the system that runs backwards in time, if any.

Axes: n poles or states, i inputs, o outputs, f frequencies.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from longstate.memory._enclosed import enclosed
from longstate.memory._powers import _UNIT

_ROUNDS, _MOST_INTERVALS = 60, 1 << 14
_IMAGINARY = 1e-9  # relative real part below which an eigenvalue counts as imaginary
_WIDER = (1.0, 4.0, 16.0, 64.0)  # multiples of the tolerance at which a proof is tried


class Peak(NamedTuple):
    """Bounds of H-infinity, and the frequency at which the lower one is attained."""

    low: float
    high: float
    frequency: float


class Poles(NamedTuple):
    """sum over n of C_n B_n / (1 - p_n e^-iw): conjugates included. C (o, n), B (n, i)."""

    p: Tensor
    B: Tensor
    C: Tensor


class Matrices(NamedTuple):
    """x_k = A x_{k-1} + B u_k, y_k = C x_k; real."""

    A: Tensor
    B: Tensor
    C: Tensor


def by_poles(ahead: Poles, behind: Poles | None, D: Tensor, tolerance: float) -> Peak:
    """Bounds for G(w) = ahead(w) + e^iw behind(-w) + D."""
    weight = _lengths(ahead) * ahead.p.abs()  # of the derivative of each term, times distance^2
    angle, size = ahead.p.angle(), ahead.p.abs()
    if behind is not None:
        weight = torch.cat([weight, _lengths(behind)])
        angle, size = torch.cat([angle, -behind.p.angle()]), torch.cat([size, behind.p.abs()])
    edges = _edges(angle, size)
    start, stop, low, at = edges[:-1], edges[1:], 0.0, 0.0
    for _ in range(_ROUNDS):
        middle, half = (start + stop) / 2, (stop - start) / 2
        value = torch.linalg.matrix_norm(_at(ahead, behind, D, middle), 2)
        steep = (weight / nearest(angle, size, middle, half)).sum(1)
        rounding = 64 * _UNIT * (steep + value)  # of the frequency and of the poles
        upper = value + half * steep + rounding
        best = int(value.argmax())
        if float(value[best] - rounding[best]) > low:
            low, at = float(value[best] - rounding[best]), float(middle[best])
        alive = upper > low * (1 + tolerance)
        if not bool(alive.any()) or int(alive.sum()) > _MOST_INTERVALS:
            break
        start, middle, stop = start[alive], middle[alive], stop[alive]
        start, stop = torch.cat([start, middle]), torch.cat([middle, stop])
    return Peak(low, max(low * (1 + tolerance), float(upper.max())), at)


def nearest(angle: Tensor, size: Tensor, middle: Tensor, half: Tensor) -> Tensor:
    """Squared distance (f, n) from each pole to the nearest point of each arc of the unit circle.

    Args:
        angle, size (n): of the poles.
        middle, half (f): of the arcs, and half of their lengths.
    """
    # the shorter of the two angles
    turn = torch.remainder(middle[:, None] - angle + math.pi, 2 * math.pi) - math.pi
    off = (turn.abs() - half[:, None]).clamp(min=0)
    return (1 - size) ** 2 + 4 * size * (off / 2).sin().square()


def _lengths(part: Poles) -> Tensor:
    return torch.linalg.vector_norm(part.C, dim=0) * torch.linalg.vector_norm(part.B, dim=1)


def _edges(angle: Tensor, size: Tensor) -> Tensor:
    """Edges of the first intervals: a grid on half of the circle, denser near the poles."""
    near, width = angle.abs(), (1 - size).clamp(min=1e-12)
    around = [(near + k * width).clamp(0, math.pi) for k in (-4, -1, 0, 1, 4)]
    return torch.cat([torch.linspace(0, math.pi, 33, dtype=torch.float64), *around]).unique()


def _at(ahead: Poles, behind: Poles | None, D: Tensor, w: Tensor) -> Tensor:
    """G (f, o, i)."""
    turn = torch.polar(torch.ones_like(w), w)[:, None]
    G = (ahead.C * (1 / (1 - ahead.p / turn))[:, None]) @ ahead.B + D
    if behind is None:
        return G
    return G + (behind.C * (turn / (1 - behind.p * turn))[:, None]) @ behind.B


def by_matrices(
    ahead: Matrices, behind: Matrices | None, D: Tensor, total: float, tolerance: float
) -> Peak:
    """Bounds for the same G, for any matrices. The upper bound is infinite if no proof succeeds.

    Args:
        total: bound of the sum over k of |A^k|, for both directions.
    """
    found, at = _find_peak(ahead, behind, D, tolerance)
    low = _attained(ahead, behind, D, at)
    if not 0 < found < math.inf:
        return Peak(low, math.inf, at)
    for wider in _WIDER:
        level = found * (1 + wider * tolerance)
        high = _prove(ahead, behind, D, level, total, wider * tolerance)
        if high <= found * (1 + 4 * wider * tolerance):
            return Peak(low, high, at)
    return Peak(low, math.inf, at)


def _attained(ahead: Matrices, behind: Matrices | None, D: Tensor, w: float) -> float:
    """Lower bound of the response at one frequency, with the rounding of the linear solve."""
    z = complex(math.cos(w), -math.sin(w))
    G, wrong = enclosed(*ahead, z)
    back, more = (0 * G, 0.0) if behind is None else enclosed(*behind, z.conjugate())
    G, wrong = G + back / z + D, wrong + more
    norm = torch.linalg.matrix_norm
    rounding = 16 * sum(G.shape) * _UNIT * float(norm(G) + D.abs().sum())
    low = float(norm(G, 2)) - wrong - rounding
    return low if 0 < low < math.inf else 0.0


def _response(part: Matrices, w: Tensor) -> Tensor:
    """C (I - A z)^-1 B (f, o, i); 0 where it is not finite."""
    z = torch.polar(torch.ones_like(w), -w)[:, None, None]
    M = torch.eye(len(part.A), dtype=z.dtype) - part.A * z
    states = torch.linalg.solve_ex(M, part.B.to(z.dtype)).result
    return (part.C.to(z.dtype) @ states).nan_to_num(0.0, 0.0, 0.0)


def _inverse(M: Tensor) -> Tensor:
    """The inverse; not finite if the matrix is singular."""
    return torch.linalg.inv_ex(M).inverse


def _find_peak(
    ahead: Matrices, behind: Matrices | None, D: Tensor, tolerance: float
) -> tuple[float, float]:
    """Raise the level to the response between the frequencies that attain it, until none does."""

    def largest(w: Tensor) -> tuple[float, float]:
        G = _response(ahead, w) + D
        if behind is not None:
            G = G + torch.polar(torch.ones_like(w), w)[:, None, None] * _response(behind, -w)
        values = torch.linalg.matrix_norm(G, 2)
        best = int(values.argmax())
        return float(values[best]), float(w[best])

    poles = torch.linalg.eigvals(ahead.A)
    if behind is not None:
        poles = torch.cat([poles, torch.linalg.eigvals(behind.A)])
    low, at = largest(_edges(poles.angle(), poles.abs().clamp(max=1)))
    A, B, C, E = _continuous(ahead, behind, D)
    for _ in range(_ROUNDS):
        level = low * (1 + tolerance)
        H = _hamiltonian(A, B, C, E, level, 0.0)
        if not bool(H.isfinite().all()):
            break
        values = torch.linalg.eigvals(H)
        on_axis = values.real.abs() <= _IMAGINARY * values.abs().clamp(min=1e-12)
        w = (2 * values.imag[on_axis].abs().atan()).sort().values
        if not len(w):
            break
        w = torch.cat([w.new_zeros(1), w, w.new_full((1,), math.pi)])
        higher, where = largest((w[1:] + w[:-1]) / 2)
        if higher > low:
            low, at = higher, where
        if higher <= level:  # a tangent point, or rounding
            break
    return low, at


def _continuous(
    ahead: Matrices, behind: Matrices | None, D: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Map the circle to the imaginary axis, z = (1 + s) / (1 - s): x' = A x + B u, y = C x + E u.

    For the backward direction the signs of A and B are reversed.
    """
    A, B, C, E = _moved(ahead.A, ahead.B, ahead.C @ ahead.A, D + ahead.C @ ahead.B)
    if behind is None:
        return A, B, C, E
    a, b, c, e = _moved(behind.A, behind.B, behind.C, torch.zeros_like(D))
    return torch.block_diag(A, -a), torch.cat([B, -b]), torch.cat([C, c], 1), E + e


def _moved(A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    eye = torch.eye(len(A), dtype=A.dtype)
    inverse, root = _inverse(A + eye), math.sqrt(2)
    return inverse @ (A - eye), root * inverse @ B, root * C @ inverse, D - C @ inverse @ B


def _hamiltonian(A: Tensor, B: Tensor, C: Tensor, D: Tensor, level: float, slack: float) -> Tensor:
    """The matrix whose imaginary eigenvalues are the frequencies that attain the level."""
    R = _inverse(level**2 * torch.eye(D.shape[1], dtype=A.dtype) - D.mT @ D)
    F, eye = A + B @ R @ D.mT @ C, torch.eye(len(A), dtype=A.dtype)
    weighed = C.mT @ (torch.eye(len(C), dtype=A.dtype) + D @ R @ D.mT) @ C + slack * eye
    return torch.cat([torch.cat([F, B @ R @ B.mT], 1), torch.cat([-weighed, -F.mT], 1)], 0)


def _prove(
    ahead: Matrices, behind: Matrices | None, D: Tensor, level: float, total: float, margin: float
) -> float:
    """A proved level near the one given; infinite if the proof fails."""
    if not math.isfinite(total):
        return math.inf
    A, B, C, E = _continuous(ahead, behind, D)
    states = _state_gain(ahead, behind)
    slack = level**2 * min(margin, 1.0) / (4 * max(states, 1e-150) ** 2)
    P = _storage(_hamiltonian(A, B, C, E, level, slack))
    if not bool(P.isfinite().all()):
        return math.inf
    least = _least(ahead, behind, D, P, level)
    if least >= 0:
        return level
    # a deficit of the check is bounded by the largest sum of the states
    reach = sum(float(torch.linalg.matrix_norm(m.B)) for m in (ahead, behind) if m is not None)
    return math.sqrt(level**2 - least * (1 + (total * reach) ** 2))


def _state_gain(ahead: Matrices, behind: Matrices | None) -> float:
    """Approximate largest gain from inputs to states, on a grid; used to choose a slack."""
    gain = 0.0
    for part in (ahead, behind):
        if part is None:
            continue
        poles = torch.linalg.eigvals(part.A)
        w = _edges(poles.angle(), poles.abs().clamp(max=1))
        states = _response(part._replace(C=torch.eye(len(part.A), dtype=torch.float64)), w)
        gain += float(torch.linalg.matrix_norm(states).max())
    return gain


def _storage(H: Tensor) -> Tensor:
    """P such that (I, P) spans the stable subspace of H, by the matrix sign of H."""
    sign, n = H, len(H) // 2
    for _ in range(_ROUNDS):
        inverse = _inverse(sign)
        scale = (torch.linalg.matrix_norm(inverse) / torch.linalg.matrix_norm(sign)).sqrt()
        after = (scale * sign + inverse / scale) / 2
        moved = torch.linalg.matrix_norm(after - sign) / torch.linalg.matrix_norm(after)
        sign = after
        if not float(moved) > 1e-9:  # it converges quadratically
            break
    stable = sign + torch.eye(2 * n, dtype=H.dtype)
    if not bool(stable.isfinite().all()):
        return torch.full((n, n), math.nan, dtype=H.dtype)
    P = torch.linalg.lstsq(stable[:, n:], -stable[:, :n]).solution
    return (P + P.mT) / 2


def _least(ahead: Matrices, behind: Matrices | None, D: Tensor, P: Tensor, level: float) -> float:
    """Lower bound of the least eigenvalue of level^2 |u|^2 - |y|^2 - V(after) + V(before), a
    quadratic form in (x_{k-1}, z_k, u_k)."""
    n, i = ahead.B.shape
    m = 0 if behind is None else len(behind.A)
    eye = torch.eye(n + m + i, dtype=P.dtype)
    x, z, u = eye[:n], eye[n : n + m], eye[n + m :]
    after = ahead.A @ x + ahead.B @ u
    y = ahead.C @ after + D @ u
    before = z
    if behind is not None:
        y, before = y + behind.C @ z, behind.A @ z + behind.B @ u
    new, old = torch.cat([after, z]), torch.cat([x, before])
    form = level**2 * u.mT @ u - y.mT @ y - new.mT @ P @ new + old.mT @ P @ old
    sizes = [float(torch.linalg.matrix_norm(v)) for v in (P, new, old, y)]
    read = sum(float(torch.linalg.matrix_norm(p.C)) for p in (ahead, behind) if p is not None)
    largest = sizes[0] * (sizes[1] ** 2 + sizes[2] ** 2) + (read * sizes[1] + sizes[3]) ** 2
    rounding = 8 * (n + m + i) * _UNIT * (largest + level**2)
    return float(torch.linalg.eigvalsh((form + form.mT) / 2)[0]) - rounding
