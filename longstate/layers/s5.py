"""S5: one diagonal state space model shared by all channels.

    x'(t) = A x(t) + B u(t)          A diagonal, Re A < 0 by construction
    y(t)  = 2 Re(C x(t)) + D u(t)    one of each conjugate pair is stored; D acts channel by channel

discretised with a learned step for each state, by zero-order hold or by the bilinear rule, and run
as a scan. Under the zero-order hold an irregular step costs about as much as a regular one.

Bidirectional: a second scan runs backwards with the same A and B. Both scans include the current
sample, and y = 2 Re(C (x_forward, x_backward)) + D u. With irregular time a step of the forward
scan is the time since the previous sample; a step of the backward scan is the time until the next
sample, which is 1 for the last one.

Smith, Warrington, Linderman, "Simplified State Space Layers for Sequence Modeling", ICLR 2023,
arXiv:2208.04933. Differs from the paper: Re A = -exp(log_decay), where the paper's is free and
optionally clipped below 0; norm, activation and dropout of the paper's block are in
longstate.models.

Axes: b batch, t time, d channels, n stored states (d_state / 2).
"""

import math
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate.layers._base import Layer, State, check_call, full_precision, no_step, of_no_rows
from longstate.layers._channelwise import complex_parameter, log_uniform
from longstate.layers._resized import put, resized
from longstate.ops import diagonal_scan, zoh_scan
from longstate.ops._drive import drive, read
from longstate.ops._ragged import Ragged
from longstate.systems import (
    Bilinear,
    DiagonalSystem,
    TwoSidedSystem,
    ZeroOrderHold,
    diagonalize,
    legs,
)


class S5(Layer):
    """One linear system with `d_model` inputs and outputs.

    Args:
        d_model: channels in and out.
        d_state: size of the real state; half as many complex numbers are stored.
        n_blocks: the initial A has this many copies of the HiPPO-LegS normal matrix, each of size
            d_state / n_blocks. With more blocks the fastest mode is slower.
        variant: "zoh" (exact under changes of rate and for irregular time, and cheap there)
            or "bilinear" (with irregular time it stores a decay for every sample and state).
        dt_min, dt_max: range of the initial steps, as a fraction of the time constant of A.
        bidirectional: add a scan that runs backwards. There is no state and no step then.

    Raises:
        ValueError: an option does not exist, or `d_state` is not an even multiple of `n_blocks`.
    """

    dynamics = ("log_dt", "log_decay", "frequency", "B")

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        n_blocks: int = 1,
        variant: Literal["zoh", "bilinear"] = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
    ):
        super().__init__()
        if variant not in ("zoh", "bilinear"):
            raise ValueError(f"variant must be 'zoh' or 'bilinear'; got {variant!r}")
        if n_blocks < 1 or d_state < 2 or d_state % (2 * n_blocks):
            raise ValueError(
                f"d_state must be an even multiple of n_blocks; got {d_state} and {n_blocks}"
            )
        self.d_model, self.d_state, self.bidirectional = d_model, d_state, bidirectional
        self.variant = variant
        A, B, C = _initial(d_model, d_state, n_blocks, 2 if bidirectional else 1)
        self.log_dt = nn.Parameter(log_uniform((d_state // 2,), dt_min, dt_max))
        self.log_decay = nn.Parameter((-A.real).log().float())
        self.frequency = nn.Parameter(A.imag.float())
        self.B = complex_parameter(B)
        self.C = complex_parameter(C if bidirectional else C[0])
        self.D = nn.Parameter(torch.randn(d_model))

    def continuous_system(self) -> DiagonalSystem:
        """A (n), B (n, d), C (d, n) and D (d, d) of the differential equation, at a step of 1.

        The learned step of each state is not included; `system` includes it. Both directions' C:
        (2, d, n).
        """
        dtype = self._dtype()
        A = torch.complex(-self.log_decay.to(dtype).exp(), self.frequency.to(dtype))
        B, C = (torch.view_as_complex(x.to(dtype)) for x in (self.B, self.C))
        return DiagonalSystem(A, B, C, torch.diag(self.D.to(dtype)), conjugate=True)

    def system(self, rate: float = 1.0) -> DiagonalSystem:
        """The recurrence that the layer runs on regular samples (both directions' C: 2, d, n)."""
        s = self.continuous_system()
        A, scale = self._rule().diagonal(s.A, self._steps(rate))
        return DiagonalSystem(A, scale[:, None] * s.B, s.C, s.D, conjugate=True, discrete=True)

    def with_system(self, system: DiagonalSystem) -> "S5":
        """A layer like this one that runs another recurrence, of any size.

        Args:
            system: discrete, with |A| < 1 and conjugate pairs: A (n), B (n, d), C (d, n) or (2, d,
                n). D stays as it is.

        Other steps than the regular one see the slowest A that fits.
        """
        n = system.d_state
        new = resized(self, d_state=2 * n, n_blocks=1)
        new.d_state = 2 * n
        step = self.log_dt.detach().to(system.A.real.dtype).mean().exp()
        A = self._rule().undo(system.A, step)
        into = system.B / self._rule().diagonal(A, step)[1][:, None]
        # only the product of B and C counts; of equal length they learn alike
        out = system.C if system.C.dim() == 2 else system.C.flatten(0, 1)
        scale = (into.norm(dim=1) / out.norm(dim=0).clamp(min=1e-30)).clamp(min=1e-30).sqrt()
        put(new, log_dt=step.log().expand(n), log_decay=(-A.real).log(), frequency=A.imag)
        put(new, B=into / scale[:, None], C=system.C * scale)
        return new

    def two_sided(self, rate: float = 1.0) -> TwoSidedSystem:
        """Both directions as one operator, for `longstate.memory`.

        Both scans of S5 read the current sample; here its whole effect is in the forward direction.

        Raises:
            ValueError: the layer is not bidirectional.
        """
        if not self.bidirectional:
            raise ValueError("this S5 has one direction; call system()")
        both = self.system(rate)
        ahead, behind = both.C
        return TwoSidedSystem(
            replace(both, C=ahead, D=both.D + 2 * (behind @ both.B).real),
            replace(both, C=behind * both.A, D=torch.zeros_like(both.D)),
        )

    def init_state(self, batch: int) -> State:
        """Zero (b, n). Empty when bidirectional: nothing is carried between calls then."""
        return () if self.bidirectional else self._zero_state(batch)

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
        """See `Layer`. `rate` is exact under the zero-order hold when the signal is constant
        between samples."""
        state = check_call(self, u, state, dt, mask, reset, rate)
        if len(u) == 0:
            return of_no_rows(self, u)
        wide = u.to(self._dtype())
        dt = None if dt is None else dt.to(wide.dtype)
        if mask is not None:
            wide = torch.where(mask[..., None], wide, 0)
        with full_precision(u):
            C = 2 * torch.view_as_complex(self.C.to(wide.dtype))
            if self.bidirectional:
                y = self._both_ways(wide, C, dt, mask, reset, rate)
            else:
                h, state = self._scan(wide, state, dt, mask, reset, rate)
                y = read(h, C)
            y = y + self.D * wide
        if mask is not None:
            y = torch.where(mask[..., None], y, 0)
        return y.to(u.dtype), state

    def step(
        self,
        u: Float[Tensor, "b d"],
        state: State,
        *,
        dt: Float[Tensor, " b"] | None = None,
        mask: Bool[Tensor, " b"] | None = None,
        reset: Bool[Tensor, " b"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b d"], State]:
        if self.bidirectional:
            raise no_step(self)
        return super().step(u, state, dt=dt, mask=mask, reset=reset, rate=rate)

    def _scan(self, u, state, dt, mask, reset, rate):
        """All states (b, t, n), and the last. The step is 0 where the mask is False."""
        if mask is not None:
            dt = mask.to(u.dtype) if dt is None else torch.where(mask, dt, 0)
        if dt is None:
            s = self.system(rate)
            return diagonal_scan(drive(u, s.B), s.A, state, reset=reset)
        s, steps = self.continuous_system(), self._steps(rate)
        if self.variant == "zoh":
            return zoh_scan(u, s.A * steps, dt, state, B=s.B * steps[:, None], reset=reset)
        A, scale = self._rule().diagonal(s.A, steps * dt[..., None])
        return diagonal_scan(scale * drive(u, s.B), A, state, reset=reset)

    def _both_ways(self, u, C, dt, mask, reset, rate):
        ragged = None if mask is None and reset is None else Ragged(mask, reset)
        if ragged is not None:
            u = ragged.split(u)
            dt = None if dt is None else ragged.split(dt)
        start = self._zero_state(u.shape[0])
        ahead, _ = self._scan(u, start, dt, None, None, rate)
        if dt is not None:
            dt = _time_to_next(dt, None if ragged is None else ragged.lengths).flip(1)
        # in reversed time padding comes first, and does not change the zero state
        back, _ = self._scan(u.flip(1), start, dt, None, None, rate)
        y = read(ahead, C[0]) + read(back, C[1]).flip(1)
        return y if ragged is None else ragged.join(y)

    def _zero_state(self, batch: int) -> Tensor:
        shape, dtype = (
            (batch, self.d_state // 2),
            torch.promote_types(self._dtype(), torch.complex64),
        )
        return torch.zeros(shape, dtype=dtype, device=self.D.device)

    def _steps(self, rate: float) -> Tensor:
        return self.log_dt.to(self._dtype()).exp() * rate

    def _rule(self) -> ZeroOrderHold | Bilinear:
        return ZeroOrderHold() if self.variant == "zoh" else Bilinear()

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.D.dtype, torch.float32)


def _time_to_next(dt: Tensor, lengths: Tensor | None) -> Tensor:
    """From the time since the previous sample to the time until the next one; 1 at the last."""
    to_next = torch.cat([dt[:, 1:], torch.ones_like(dt[:, :1])], dim=1)
    if lengths is None:
        return to_next
    at = torch.arange(dt.shape[1], device=dt.device)
    return torch.where(at == lengths[:, None] - 1, 1, to_next)


def _initial(
    d_model: int, d_state: int, n_blocks: int, directions: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A (n), B (n, d) and C (directions, d, n), in the coordinates that make A diagonal.

    B and C are drawn in the real coordinates, with variance 1 / d_state (the fan-in that JAX uses
    here, not the number of inputs), and transformed by the eigenvectors.
    """
    spectrum = diagonalize(legs(d_state // n_blocks))
    V = torch.block_diag(*[spectrum.V] * n_blocks)  # d_state, n
    B = _truncated_normal(d_state, d_model) / math.sqrt(d_state)
    C = _truncated_normal(directions, d_model, d_state, 2) / math.sqrt(d_state)
    return spectrum.A.repeat(n_blocks), V.mH @ B.to(V.dtype), torch.view_as_complex(C) @ V


def _truncated_normal(*shape: int) -> Tensor:
    """Normal numbers truncated at two standard deviations, scaled to unit variance."""
    x = nn.init.trunc_normal_(torch.empty(shape, dtype=torch.float64), a=-2, b=2)
    return x / 0.8796256610342398
