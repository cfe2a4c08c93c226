"""S4: a structured state space model for each channel, diagonal plus low rank (DPLR).

    x'(t) = (Lambda - P P*) x(t) + B u(t)        y(t) = 2 Re(C x(t)) + D u(t)

initialised with the HiPPO matrices, discretised by the bilinear rule with a learned step for each
channel. It is stable because both low-rank factors are P and Re(Lambda) < 0.

Gu, Goel, Re, "Efficiently Modeling Long Sequences with Structured State Spaces", ICLR 2022,
arXiv:2111.00396. Differs from the paper: the parameter is C and not C (I - A_bar^L), so no length
is stored in a checkpoint; the layer runs the recurrence, which is diagonal plus low rank again
(longstate.ops.dplr_channel_scan), and so has a state. The paper computes the impulse response with
a Cauchy kernel and convolves by a Fourier transform. A convolution with
`system().impulse_response()` gives the same numbers; the tests compare both.

Axes: b batch, t time, d channels, n state (real coordinates), m = n / 2 stored modes, r rank.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from longstate.layers._channelwise import (
    ChannelwiseLayer,
    complex_normal,
    complex_parameter,
    log_uniform,
    matrices,
    undone,
)
from longstate.layers._resized import put, resized
from longstate.ops.dplr_channel_scan import dplr_channel_scan
from longstate.systems import (
    Bilinear,
    DenseSystem,
    DiagonalSystem,
    DPLRSystem,
    diagonalize,
    fout,
    legs,
    legt,
)

_INITIAL = {"legs": legs, "legt": legt, "fout": fout}


class S4(ChannelwiseLayer):
    """One DPLR system per channel.

    Args:
        d_model: channels in and out.
        d_state: states of each channel; even.
        init: initial HiPPO matrix: "legs", "legt" (rank 2) or "fout".
        dt_min, dt_max: range of the initial steps, as a fraction of the time constant of A.
        bidirectional: add a kernel that looks ahead. There is no state and no step then.

    Raises:
        ValueError: an option does not exist, `d_state` is odd, or `dt` is given to a call: a
            separate step for every sample would need a dense matrix for every sample; use S4D.
    """

    dynamics = ("log_dt", "log_decay", "frequency", "P", "B")

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: Literal["legs", "legt", "fout"] = "legs",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
    ):
        super().__init__()
        if init not in _INITIAL:
            raise ValueError(f"init must be one of {', '.join(_INITIAL)}; got {init!r}")
        self.d_model, self.d_state, self.bidirectional = d_model, d_state, bidirectional
        spectrum = diagonalize(_INITIAL[init](d_state))
        A, B, P = (x.expand(d_model, *x.shape) for x in (spectrum.A, spectrum.B, spectrum.P))
        directions = (2,) if bidirectional else ()
        self.log_dt = nn.Parameter(log_uniform((d_model,), dt_min, dt_max))
        # the normal parts of LegT and FouT do not decay; a small decay keeps the logarithm finite
        self.log_decay = nn.Parameter((-A.real).clamp(min=1e-4).log().float())
        self.frequency = nn.Parameter(A.imag.float().clone())
        self.P = complex_parameter(P)
        self.B = complex_parameter(B)
        self.C = complex_parameter(complex_normal(*directions, *A.shape))
        self.D = nn.Parameter(torch.randn(d_model))

    def continuous_system(self) -> DPLRSystem:
        """Lambda, P, B, C, D of the differential equation (both directions' C: 2, d)."""
        dtype = self._dtype()
        A = torch.complex(-self.log_decay.to(dtype).exp(), self.frequency.to(dtype))
        P, B, C = (torch.view_as_complex(x.to(dtype)) for x in (self.P, self.B, self.C))
        D = self.D.to(dtype)[:, None, None]
        return DPLRSystem(A, P, P, B[..., None], C[..., None, :], D, conjugate=True)

    def system(self, rate: float = 1.0) -> DenseSystem:
        """The recurrence that the layer runs, in real coordinates (Re x, Im x)."""
        return self._recurrence(rate).to_dense()

    def _recurrence(self, rate: float) -> DPLRSystem:
        return self.continuous_system().bilinear(2 * self._half_steps(rate)[:, 0])

    def with_system(self, system: DiagonalSystem) -> "S4":
        """A layer like this one that runs a diagonal recurrence with conjugate pairs: S4 whose
        low-rank part P is zero. See `S4D.with_system`."""
        n = 2 * system.d_state
        new = resized(self, d_state=n)
        new.d_state = n
        A, weight = undone(system, Bilinear(), self.log_dt)
        rank = self.P.shape[-2]
        zero = self.P.new_zeros(*A.shape, rank, 2)
        put(
            new, log_decay=(-A.real).log(), frequency=A.imag, P=zero, B=torch.ones_like(A), C=weight
        )
        return new

    def _zero_state(self, batch: int) -> Tensor:
        shape = (batch, self.d_model, self.d_state)
        return torch.zeros(shape, dtype=self._dtype(), device=self.D.device)

    def _scan(self, u, state, dt, lengths, *, rate, direction=0):
        system = self._recurrence(rate)
        A, B, C = matrices(system, direction if self.bidirectional else None)
        state = torch.complex(*state.chunk(2, dim=-1))
        y, state = dplr_channel_scan(u, A, system.P, system.Q, B, C, state, lengths=lengths)
        return y, torch.cat([state.real, state.imag], dim=-1)

    def _advance(self, u, state, dt, rate):
        """The bilinear step by Woodbury's identity, in fewer calls than the recurrence takes.

        (I - A s/2) x = (I + A s/2) x_0 + s B u. Without P the matrices are diagonal; the part of P
        follows from w = 2 Re(P* x), a system of r equations.
        """
        system, half = self.continuous_system(), self._half_steps(rate)
        P, B, C = system.P, system.B[..., 0], system.C[..., 0, :]

        def along(x: Tensor) -> Tensor:
            return 2 * (P.conj() * x[..., None]).real.sum(-2)  # (..., d, r)

        def back(w: Tensor) -> Tensor:
            return (P * w[..., None, :]).sum(-1)  # (..., d, m)

        x = torch.complex(*state.contiguous().chunk(2, dim=-1))
        x = x + half * (system.A * x - back(along(x))) + 2 * half * B * u[..., None]
        resolvent = 1 / (1 - half * system.A)
        eye = torch.eye(P.shape[-1], dtype=half.dtype, device=half.device)
        small = eye + 2 * half[..., None] * (P.mH @ (resolvent[..., None] * P)).real
        known = along(resolvent * x)
        # of one shape: vmap batches only one of the two in the wrong way
        w = torch.linalg.solve(small.expand(*known.shape, -1), known[..., None])[..., 0]
        x = resolvent * (x - half * back(w))
        return 2 * (C * x).real.sum(-1), torch.cat([x.real, x.imag], dim=-1)

    def _half_steps(self, rate: float) -> Tensor:
        return self.log_dt.to(self._dtype()).exp()[:, None] * (rate / 2)

    def _check_dt(self, dt):
        if dt is not None:
            raise ValueError(
                "S4 takes no dt: each step size would need its own dense matrix. S4D takes "
                "irregular time; for one new sampling rate, pass rate="
            )
