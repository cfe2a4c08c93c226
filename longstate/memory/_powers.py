"""Bounds on the powers of a state matrix, in the 2-norm, rounding included.

Eigenvalues give the decay of a state for many steps only. A state may first grow (LinOSS turns a
position into a velocity of another size), and the part left after k steps is |A^k|, which may be
many times |eigenvalue|^k if the eigenvectors are nearly dependent (S4).

The powers A, A^2, A^4, A^8, ... are computed by squaring. If X, Y are computed matrices with errors
e, f, their computed product has an error of at most |X| f + e |Y| + e f + n u |X| |Y| (Frobenius
norms for the rounding term; u is the unit roundoff), so every norm here has an upper and a lower
bound.

Axes: n state in real coordinates, any leading batch axes (channels).
"""

from typing import NamedTuple

import torch
from torch import Tensor

_UNIT = 2.0**-52  # twice the unit roundoff of float64: margin for the rounding of the norms
_SMALLEST = 1e-18  # norm of a power at which squaring ends
_MOST = 62  # most squarings
_EVERY = 64  # number of powers that are checked one by one for growth


class Bounded(NamedTuple):
    """A computed matrix (..., n, n), and a bound (...) of its error in the 2-norm."""

    value: Tensor
    error: Tensor

    def high(self) -> Tensor:
        """Upper bound (...) of the 2-norm."""
        return norm2(self.value) * (1 + 8 * len_of(self.value) * _UNIT) + self.error

    def low(self) -> Tensor:
        """Lower bound (...) of the 2-norm."""
        least = norm2(self.value) * (1 - 8 * len_of(self.value) * _UNIT) - self.error
        return least.nan_to_num(nan=0.0).clamp(min=0)

    def times(self, other: "Bounded") -> "Bounded":
        x, y = self.high(), other.high()
        rounding = len_of(self.value) * _UNIT * _size(self.value) * _size(other.value)
        error = x * other.error + self.error * y + self.error * other.error + rounding
        return Bounded(self.value @ other.value, error)


class Powers:
    """A (..., n, n), float64, and its powers A^(2^j)."""

    def __init__(self, A: Tensor):
        self.squares = [Bounded(A, A.new_zeros(A.shape[:-2]))]
        self.norms = [self.squares[0].high()]
        for _ in range(_MOST):
            last = self.norms[-1]
            if bool((last < _SMALLEST).all()) or not bool((last < 1e100).all()):
                break
            if bool((self.squares[-1].error > 1).any() & (last > 0.5).any()):
                break  # only rounding errors are left
            self.squares.append(self.squares[-1].times(self.squares[-1]))
            self.norms.append(self.squares[-1].high())
        self.envelopes = []
        if bool((self.norms[0] > 1).any()):
            self.envelopes = [_of_eigenvectors(A), _envelope(A, self._reached())]
        for j in range(len(self.norms)):
            for e in self.envelopes:
                self.norms[j] = torch.minimum(self.norms[j], e.root * e.rate**2.0**j)

    def forgets(self) -> Tensor:
        """Whether it is proved (...) that A^k goes to zero, because some power is below 1."""
        proved = torch.stack(self.norms).amin(0) < 1
        for e in self.envelopes:
            proved = proved | (e.rate < 1) & e.root.isfinite()
        return proved

    def total(self, growth: Tensor) -> Tensor:
        """Upper bound (...) of the sum over k >= 0 of |A^k|; infinite if none is proved.

        The sum of the first 2^j terms is at most the product of 1 + |A^(2^i)| over i < j, and at
        most 2^j times the largest term; the rest is a geometric series in |A^(2^j)|.
        """
        product = torch.ones_like(self.norms[0])
        best = torch.full_like(product, torch.inf)
        for j, norm in enumerate(self.norms):
            first = torch.minimum(product, 2.0**j * growth)
            left = torch.where(norm < 1, first / (1 - norm).clamp(min=1e-300), torch.inf)
            best = torch.minimum(best, left)
            product = product * (1 + norm)
        for e in self.envelopes:
            sum_ = torch.where(e.rate < 1, e.root / (1 - e.rate).clamp(min=1e-300), torch.inf)
            best = torch.minimum(best, sum_)
        return best * (1 + 1e-9)

    def growth(self) -> tuple[Tensor, Tensor]:
        """Upper and lower bound (...) of the largest |A^k| over all k >= 0; at least 1, from k = 0.

        The upper bound is the square root of the condition number of a W with A W A' <= W, which is
        checked. Two W are tried: from the eigenvectors, and the sum of all A^k A'^k.
        """
        one = torch.ones_like(self.norms[0])
        if bool((self.norms[0] <= 1).all()):
            return one, one
        # a product whose factors are all at least 1 bounds every power between
        high = torch.stack(self.norms).clamp(min=1).prod(0)
        high = torch.where(self.forgets(), high, torch.inf)
        for e in self.envelopes:
            high = torch.minimum(high, e.root)
        high = torch.where(self.norms[0] <= 1, one, high)
        low, power = one, self.squares[0]
        for _ in range(_EVERY):  # growth occurs in the first powers
            low = torch.maximum(low, power.low())
            power = power.times(self.squares[0])
        for square in self.squares:
            low = torch.maximum(low, square.low())
        return high, low

    def steps(self, kept: float, growth: Tensor) -> tuple[Tensor, Tensor]:
        """Number of steps (...) after which |A^k| stays at most `kept`, and 1 plus the largest k
        found with a larger |A^k|; both infinite if nothing is proved.

        Args:
            kept: share of a state.
            growth (...): upper bound of |A^k| over all k, so that |A^(k+l)| <= growth |A^k|.
        """
        many = torch.full_like(growth, torch.inf)
        proved = torch.where(self.forgets(), self._last(kept, growth), many)
        for e in self.envelopes:  # of a state that grew so much that its powers lost their digits
            count = torch.ceil((e.root / kept).log() / -e.rate.log() * (1 + 1e-9))
            proved = torch.minimum(proved, torch.where(e.rate < 1, count, many))
        return proved, torch.where(self.forgets(), self._last(kept, None), many)

    def _last(self, kept: float, growth: Tensor | None) -> Tensor:
        """1 + a k (...) with |A^k| > kept and |A^(k+1)| <= kept."""
        A = self.squares[0].value
        here = Bounded(
            torch.eye(len_of(A), dtype=A.dtype).expand_as(A), torch.zeros_like(self.norms[0])
        )
        count = torch.zeros_like(self.norms[0])
        for j in reversed(range(len(self.squares))):
            there = here.times(self.squares[j])
            above = there.low() > kept if growth is None else there.high() * growth > kept
            if j == len(self.squares) - 1 and growth is not None:
                count = torch.where(above, torch.inf, count)  # squaring ended too early
            here = Bounded(
                torch.where(above[..., None, None], there.value, here.value),
                torch.where(above, there.error, here.error),
            )
            count = torch.where(above, count + 2.0**j, count)
        return count + 1

    def _reached(self) -> Tensor:
        """The sum of A^k A'^k over the powers that were squared."""
        A = self.squares[0].value
        total = torch.eye(A.shape[-1], dtype=A.dtype).expand_as(A)
        for square in self.squares:
            total = total + square.value @ total @ square.value.mT
        return total


def norm2(M: Tensor) -> Tensor:
    """The 2-norm (...): the square root of the largest eigenvalue of M'M, which is accurate."""
    scale = M.abs().amax((-2, -1)).clamp(min=1e-300)
    M = M / scale[..., None, None]  # so that squares neither overflow nor vanish
    return torch.linalg.eigvalsh(M.mT @ M)[..., -1].clamp(min=0).sqrt() * scale


def len_of(M: Tensor) -> int:
    return M.shape[-1]


def _size(M: Tensor) -> Tensor:
    """Frobenius norm (...)."""
    return torch.linalg.matrix_norm(M)


class Envelope(NamedTuple):
    """|A^k| <= root rate^k for all k, if proved; otherwise root is infinite. Each (...)."""

    root: Tensor
    rate: Tensor


def _of_eigenvectors(A: Tensor) -> Envelope:
    """From |A^k| <= |V| |V^-1| |V^-1 A V|^k, for the computed eigenvectors V. Their computed
    inverse T has |V^-1| <= |T| / d and |V^-1 A V| <= |T A V| / d, where d = 1 - |I - T V|."""
    V = torch.linalg.eig(A).eigenvectors
    T, _ = torch.linalg.inv_ex(V)
    eye, unit = torch.eye(len_of(A), dtype=V.dtype), 16 * len_of(A) * _UNIT
    v, t = _size(V), _size(T)
    d = 1 - _size(eye - T @ V) - unit * (1 + v * t)
    moved = T @ A.to(V.dtype) @ V
    ok = (d > 0) & moved.isfinite().all(-1).all(-1)
    moved, T = (torch.where(ok[..., None, None], m, eye) for m in (moved, T))
    wide, back, rate = (torch.linalg.matrix_norm(m, 2) * (1 + unit) for m in (V, T, moved))
    rate = (rate + 2 * unit * t * _size(A) * v) / d
    ok = ok & (rate <= 1)
    return Envelope(torch.where(ok, wide * back / d, torch.inf), torch.where(ok, rate, 1.0))


def _envelope(A: Tensor, W: Tensor) -> Envelope:
    """From A W A' <= rate^2 W, which is checked; root is the root of W's condition number."""
    eye = torch.eye(len_of(A), dtype=A.dtype)
    ok = W.isfinite().all(-1).all(-1)
    W = torch.where(ok[..., None, None], (W + W.mT) / 2, eye)
    values = torch.linalg.eigvalsh(W)
    margin = 8 * len_of(A) * _UNIT * values[..., -1]
    least = values[..., 0] - margin
    root = ((values[..., -1] + margin) / least.clamp(min=1e-300)).sqrt()
    L, failed = torch.linalg.cholesky_ex(W)
    L = torch.where((failed == 0)[..., None, None], L, eye)
    within = norm2(torch.linalg.solve_triangular(L, A @ L, upper=False)).square()
    moved, rounding = A @ W @ A.mT, 8 * len_of(A) * _UNIT * _size(W) * (1 + _size(A) ** 2)
    root, rate = torch.where(ok & (least > 0), root, torch.inf), torch.ones_like(root)
    proved = torch.zeros_like(ok)
    for share in (0.0, 0.5, 0.9):  # from a rate of 1 towards the computed one
        square = (1 - share * (1 - within)).clamp(min=0, max=1)
        rest = square[..., None, None] * W - moved
        shrinks = torch.linalg.eigvalsh((rest + rest.mT) / 2)[..., 0] >= rounding
        rate = torch.where(shrinks, square.sqrt() * (1 + _UNIT), rate)
        proved = proved | shrinks
    return Envelope(torch.where(proved, root, torch.inf), rate)
