"""One step of one oscillator as a matrix: what the kernels compute on the fly."""

import torch
from torch import Tensor

STABLE = 3.9
"""Largest A dt^2 of the implicit-explicit rule: a turn of 162 degrees. At 4 its matrix is
defective, beyond it explodes."""


def oscillator_step(A: Tensor, dt: Tensor | float, rule: str) -> tuple[Tensor, Tensor]:
    """(z, y)_t = M (z, y)_{t-1} + F x_t.

    Args:
        A (...): squared angular frequency; below 4 for "imex", and STABLE where it is more.
        dt (...): length of the step, broadcast against `A`.
        rule: "im" or "imex".

    Returns:
        M (..., 2, 2) and F (..., 2).
    """
    A, dt = torch.broadcast_tensors(A, torch.as_tensor(dt, dtype=A.dtype, device=A.device))
    if rule == "im":
        s = 1 / (1 + dt * dt * A)
        rows = (s, -dt * s * A), (dt * s, s)
        force = dt * s, dt * dt * s
    else:
        A = A.clamp(max=STABLE)
        too_long = A * dt * dt > STABLE
        dt = torch.where(too_long, (STABLE / torch.where(too_long, A, 1)).sqrt(), dt)
        cosine = 1 - A * dt * dt / 2
        # the sine, by that of a step of 1
        sine = dt * ((1 - A * dt * dt / 4) / (1 - A / 4)).sqrt()
        rows = (cosine + sine * A / 2, -sine * A), (sine, cosine - sine * A / 2)
        force = sine, (dt * dt + sine) / 2
    return torch.stack([torch.stack(row, -1) for row in rows], -2), torch.stack(force, -1)
