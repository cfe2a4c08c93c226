"""LinOSS: forced harmonic oscillators that share their input and output.

    x''(t) = -A x(t) + B u(t)        A >= 0 for each oscillator; B, C and x complex
    y(t)   = Re(C x(t)) + D u(t)     D acts channel by channel

with velocity z = x', discretised with a learned step s in (0, 1) for each oscillator by

    implicit ("im")               z_t = z_{t-1} + s (B u_t - A x_t)        x_t = x_{t-1} + s z_t
    implicit-explicit ("imex")    z_t = z_{t-1} + s (B u_t - A x_{t-1})    x_t = x_{t-1} + s z_t

"im" loses energy, more for faster oscillators: it forgets. "imex" conserves energy.

With irregular time the steps are s dt. "im" is used unchanged, and dissipates for all steps. "imex"
unchanged would not be stable: each step size conserves a different energy, and uneven steps can
increase it. Here an uneven step rotates the state by the angle of the rule, but along the ellipse
of the regular step, so that the energy of regular time is conserved for all steps; dt = 1 is the
paper's rule (`longstate.ops.oscillator_scan`). Neither rule is exact in time: two half steps are
only approximately one step.

Rusch, Rus, "Oscillatory State-Space Models", ICLR 2025, arXiv:2410.03943. Differs from the paper:
A is softplus(.) for "im", because the gradient of the paper's ReLU is 0 below 0, and
STABLE sigmoid(.) for "imex", where the paper has no bound although the rule is unstable at
A s^2 = 4; irregular time is not in the paper. Norm, activation, dropout and gate of its block are
in longstate.models.

Axes: b batch, t time, d channels, n oscillators.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._base import Layer, State, check_call, full_precision, of_no_rows
from longstate.layers._resized import put, resized
from longstate.ops import oscillator_scan
from longstate.ops._drive import read
from longstate.ops.oscillator_scan import STABLE, oscillator_step
from longstate.systems import DenseSystem, DiagonalSystem


class LinOSS(Layer):
    """A bank of oscillators with `d_model` inputs and outputs.

    Args:
        d_model: channels in and out.
        d_state: number of oscillators. Each has a velocity and a position, both complex.
        variant: "im" (implicit: dissipative) or "imex" (implicit-explicit: conserves energy).

    Raises:
        ValueError: `variant` does not exist, or `d_state` is not positive.
    """

    dynamics = ("frequency", "step_size", "B")

    def __init__(self, d_model: int, *, d_state: int = 64, variant: Literal["im", "imex"] = "im"):
        super().__init__()
        if variant not in ("im", "imex"):
            raise ValueError(f"variant must be 'im' or 'imex'; got {variant!r}")
        if d_state < 1:
            raise ValueError(f"d_state must be at least 1; got {d_state}")
        self.d_model, self.d_state, self.variant = d_model, d_state, variant
        A = torch.rand(d_state).clamp(min=1e-4)
        raw = A.expm1().log() if variant == "im" else torch.logit(A / STABLE)
        self.frequency = nn.Parameter(raw)
        self.step_size = nn.Parameter(torch.rand(d_state))
        self.B = nn.Parameter(_uniform(d_state, d_model, 2) * d_model**-0.5)
        self.C = nn.Parameter(_uniform(d_model, d_state, 2) * d_state**-0.5)
        self.D = nn.Parameter(torch.randn(d_model))

    def oscillators(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Squared angular frequency A and step s of each oscillator."""
        raw = self.frequency.to(self._dtype())
        A = F.softplus(raw) if self.variant == "im" else STABLE * torch.sigmoid(raw)
        return A, torch.sigmoid(self.step_size.to(raw.dtype))

    def system(self, rate: float = 1.0) -> DenseSystem:
        """The recurrence that the layer runs on regular samples, in real coordinates.

        The state (4 n) is `view_as_real(state).flatten(1)`: velocities times s, then positions.
        """
        A, B = self._folded()
        M, force = oscillator_step(A, rate, self.variant)
        lanes = torch.diag_embed(M.repeat_interleave(2, dim=0).permute(1, 2, 0))  # 2, 2, 2n, 2n
        into = torch.view_as_real(B).transpose(1, 2).flatten(0, 1)  # 2n, d
        into = (force.repeat_interleave(2, dim=0).mT[..., None] * into).flatten(0, 1)
        C = torch.view_as_real(self._complex(self.C).conj().resolve_conj()).flatten(1)
        return DenseSystem(
            lanes.transpose(1, 2).flatten(2).flatten(0, 1),
            into,
            torch.cat([torch.zeros_like(C), C], dim=1),
            torch.diag(self.D.to(C.dtype)),
            discrete=True,
        )

    def modes(self) -> DiagonalSystem:
        """The recurrence of regular samples as conjugate pairs, two for each oscillator: the real
        part of its position, and the imaginary part. "im" only.

        x_t = sum over l of g_l f_{t-l} of a force f, g_l = Im(p^{l+1}) / sqrt(A s^2), where the
        pole p = (1 + i sqrt(A s^2)) / (1 + A s^2).

        Raises:
            ValueError: the variant is "imex", whose poles are on the unit circle.
        """
        if self.variant != "im":
            raise ValueError("only LinOSS(variant='im') forgets, and has modes that die out")
        a, B = self._folded()
        C = self._complex(self.C)
        pole, weight = oscillation(a)
        into = torch.cat([B.real, B.imag]) * weight.repeat(2)[:, None]
        out = torch.cat([C.real, -C.imag], dim=1).to(pole.dtype)
        D = torch.diag(self.D.to(a.dtype))
        return DiagonalSystem(pole.repeat(2), into, out, D, conjugate=True, discrete=True)

    def with_oscillators(
        self, a: Float[Tensor, " n"], force: Float[Tensor, "n2 d"], read: Float[Tensor, "d n2"]
    ) -> "LinOSS":
        """A layer like this one ("im") with other oscillators.

        Args:
            a (n): A s^2 of each.
            force (2 n, d): B s^2, the real parts, then the imaginary parts.
            read (d, 2 n): what the real parts of the positions add to y, then the imaginary parts.
        """
        n = len(a)
        new = resized(self, d_state=n)
        new.d_state = n
        # only A s^2 and B s^2 count: every s is 1/2
        put(new, frequency=_before_softplus(4 * a), step_size=torch.zeros_like(a))
        put(new, B=4 * torch.complex(*force.chunk(2)))
        put(new, C=torch.complex(*read.chunk(2, dim=1)).conj())
        return new

    def init_state(self, batch: int) -> State:
        """Zero (b, 2, n): velocity, in units of a step, and position."""
        dtype = torch.promote_types(self._dtype(), torch.complex64)
        return torch.zeros(batch, 2, self.d_state, dtype=dtype, device=self.D.device)

    def forward(
        self,
        u: Float[Tensor, "b t d"],
        state: State = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """See `Layer`. `rate` is approximate, and better for smaller steps; the zero-order hold of
        S4D and S5 is exact."""
        state = check_call(self, u, state, dt, mask, reset, rate)
        if len(u) == 0:
            return of_no_rows(self, u)
        wide = u.to(self._dtype())
        if mask is not None:
            wide = torch.where(mask[..., None], wide, 0)
        with full_precision(u):
            A, B = self._folded()
            x, state = oscillator_scan(
                wide, A, state,
                B=B, dt=_steps(wide, dt, mask, rate), rule=self.variant, reset=reset,
            )  # fmt: skip
            y = read(x, self._complex(self.C)) + self.D * wide
        if mask is not None:
            y = torch.where(mask[..., None], y, 0)
        return y.to(u.dtype), state

    def _folded(self) -> tuple[Tensor, Tensor]:
        """A s^2 and B s^2: with the velocity in units of a step, the step is 1."""
        A, s = self.oscillators()
        return A * s**2, self._complex(self.B) * (s**2)[:, None]

    def _complex(self, pairs: Tensor) -> Tensor:
        return torch.view_as_complex(pairs.to(self._dtype()))

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.D.dtype, torch.float32)


def _steps(u: Tensor, dt: Tensor | None, mask: Tensor | None, rate: float) -> Tensor | None:
    """The length of each step; 0 where the mask is False. None is 1 everywhere."""
    if dt is None and mask is None and rate == 1:
        return None
    dt = u.new_ones(u.shape[:2]) if dt is None else dt.to(u.dtype)
    if mask is not None:
        dt = torch.where(mask, dt, 0)
    return dt * rate


def oscillation(a: Tensor) -> tuple[Tensor, Tensor]:
    """Pole and weight w of oscillators with A s^2 = a, by the implicit rule: positions after an
    impulse are 2 Re(w pole^l)."""
    root = a.sqrt()
    pole = torch.complex(torch.ones_like(a), root) / (1 + a)
    return pole, -0.5j * pole / root


def _before_softplus(y: Tensor) -> Tensor:
    """x with softplus(x) = y."""
    return y + torch.log(-torch.expm1(-y))


def _uniform(*shape: int) -> Tensor:
    return 2 * torch.rand(*shape) - 1
