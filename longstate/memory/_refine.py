"""H2-optimal reduction: move the poles of a small system until its impulse response fits best.

    minimise  sum over l of |K_l - K'_l|^2        K'_l = C_r A_r^l B_r

For given poles and inputs (A_r, B_r) the best C_r solves a linear system, with inner products of
responses in closed form: sum over l of (a_i^l b_i)(a_j^l b_j)* = b_i b_j* / (1 - a_i conj(a_j)).
So the gradient search changes only A_r and B_r, starting from the result of a truncation. It finds
a local optimum and gives no bound; the error is computed afterwards.

Axes: n states, m stored modes of the small system, i inputs, o outputs, any leading batch axes.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from longstate.systems import DiagonalSystem

_RATE, _RIDGE = 0.03, 1e-12


class Poles(NamedTuple):
    """A family of small systems, and the parameters of the search.

    Attributes:
        start: initial values of the parameters, each with the batch axes first.
        modes: computes A (..., m) and B (..., m, i) from the parameters.
        first: whether the output depends only on the real part of each mode.
    """

    start: Sequence[Tensor]
    modes: Callable[..., tuple[Tensor, Tensor]]
    first: bool = False


class Fit(NamedTuple):
    """The best system that was found.

    Attributes:
        values: of the parameters.
        A (..., m), B (..., m, i): of the small system.
        C (..., o, k): weights of the real parts of its modes, then, unless `first`, of the
            imaginary parts.
        error (...): energy of the error of the impulse response, as a share of its energy.
    """

    values: list[Tensor]
    A: Tensor
    B: Tensor
    C: Tensor
    error: Tensor


def refine(true: DiagonalSystem, near: DiagonalSystem, *, steps: int = 150) -> DiagonalSystem:
    """Improve `near` by a gradient search.

    Args:
        true: discrete and stable.
        near: with fewer modes; with conjugate pairs if `true` has them.
        steps: number of steps of the search.
    """
    A, B = near.A.detach(), near.B.detach()
    batch = torch.broadcast_shapes(true.A.shape[:-1], true.B.shape[:-2], true.C.shape[:-2])
    A, B = A.expand(*batch, -1), B.expand(*batch, *B.shape[-2:])
    size = A.abs().clamp(1e-30, 1 - 1e-15)
    decay = -size.log()
    one = B.shape[-1] == 1  # then C has the size of each mode
    B = torch.ones_like(B) if one else B / B.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    width = decay.clamp(max=1)
    family: Poles
    if near.conjugate:
        angle = A.angle()

        def pairs(p: Tensor, q: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
            A = torch.polar(torch.exp(-p.exp()), angle + width * q)
            return A, torch.view_as_complex(rest[0]) if rest else B

        parts = [decay.log(), torch.zeros_like(angle)]
        family = Poles(parts if one else [*parts, torch.view_as_real(B).clone()], pairs)
    else:
        sign = torch.where(A < 0, -1.0, 1.0).double()

        def reals(p: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
            return sign * torch.exp(-p.exp()), rest[0] if rest else B

        family = Poles([decay.log()] if one else [decay.log(), B.clone()], reals)
    found = search(true, family, steps=steps)
    C = found.C
    if near.conjugate:  # C x = 2 Re(c z), in z's coordinates (Re z, Im z)
        C = torch.complex(*C.chunk(2, dim=-1)).conj().resolve_conj() / 2
    return DiagonalSystem(found.A, found.B, C, near.D, conjugate=near.conjugate, discrete=True)


def search(true: DiagonalSystem, family: Poles, *, steps: int = 150) -> Fit:
    """Minimise the error by gradient descent; each channel keeps its best values."""
    A, B, C = (v.detach().cpu() for v in (true.A, true.B, true.C))
    wide = torch.complex128 if true.conjugate else torch.float64
    A, B, C = (v.to(wide) for v in (A, B, C))
    if true.conjugate:
        C = 2 * torch.cat([C.real, -C.imag], dim=-1)
    own = C @ inner(A, B, A, B) @ C.mT
    whole = own.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=1e-300)
    values = [v.detach().clone().double().requires_grad_() for v in family.start]
    optimiser = torch.optim.Adam(values, lr=_RATE)
    best = [v.detach().clone() for v in values]
    least = torch.full(whole.shape, torch.inf, dtype=torch.float64)

    def missed() -> tuple[Tensor, Tensor]:
        weights, explained = _weights(*family.modes(*values), A, B, C, family.first)
        return 1 - explained / whole, weights

    for step in range(steps + 1):
        with torch.enable_grad():
            error, _ = missed()
        better = error.detach() < least
        least = torch.where(better, error.detach(), least)
        for kept, value in zip(best, values, strict=True):
            kept[better] = value.detach()[better]
        if step == steps:
            break
        optimiser.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * step / steps)) / 2
        optimiser.zero_grad()
        # errors relative to the best so far, so that channels with small errors improve too
        (error / error.detach().clamp(min=1e-12)).sum().backward()
        for value in values:
            if value.grad is not None:
                value.grad.nan_to_num_(0, 0, 0)
        optimiser.step()
    with torch.no_grad():
        for value, kept in zip(values, best, strict=True):
            value.copy_(kept)
        error, weights = missed()
        made, into = family.modes(*values)
    return Fit([v.detach() for v in values], made.detach(), into.detach(), weights, error)


def inner(A: Tensor, B: Tensor, Z: Tensor, W: Tensor) -> Tensor:
    """sum over l of x_l z_l' for x_l = A^l B and z_l = Z^l W: (..., k, k').

    In coordinates (Re, Im) if they are complex.
    """
    one = (B @ W.mH) / (1 - A[..., :, None] * Z.conj()[..., None, :])
    if not A.is_complex():
        return one
    two = (B @ W.mT) / (1 - A[..., :, None] * Z[..., None, :])
    total, rest = one + two, one - two
    above = torch.cat([total.real, -rest.imag], dim=-1)
    return torch.cat([above, torch.cat([total.imag, rest.real], dim=-1)], dim=-2) / 2


def _weights(
    a: Tensor, b: Tensor, A: Tensor, B: Tensor, C: Tensor, first: bool
) -> tuple[Tensor, Tensor]:
    """The best C (..., o, k) for modes a, b, and the energy (...) that they explain."""
    own, cross = inner(a, b, a, b), inner(a, b, A, B)
    if first:
        m = a.shape[-1]
        own, cross = own[..., :m, :m], cross[..., :m, :]
    scale = own.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300).rsqrt()
    eye = torch.eye(own.shape[-1], dtype=own.dtype)
    scaled = own * scale[..., :, None] * scale[..., None, :] + _RIDGE * eye
    target = (cross @ C.mT) * scale[..., None]  # k, o
    solved = torch.linalg.solve(scaled, target)
    explained = (2 * target * solved - solved * (scaled @ solved)).sum((-2, -1))
    return (solved * scale[..., None]).mT, explained
