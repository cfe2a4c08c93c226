"""S4D: a diagonal state space model for each channel.

    x'(t) = A x(t) + B u(t)          A diagonal, Re A < 0 by construction
    y(t)  = 2 Re(C x(t)) + D u(t)    one of each conjugate pair is stored

discretised with a learned step for each channel, by zero-order hold or by the bilinear rule. The
modes of a channel are

    complex     decays and oscillations                                  init "lin", "inv", "legs"
    real        decays                                                   init "real"
    signed      decays, and decays that change their sign at every       init "signed"
                sample: A < 0 in the recurrence x_t = A x_{t-1} + B u_t

A decay that changes its sign is the fastest oscillation there is at this sampling rate. It has no
form in continuous time, so that a signed layer takes neither `dt` nor `rate`.

Gu, Gupta, Goel, Re, "On the Parameterization and Initialization of Diagonal State Space Models",
NeurIPS 2022, arXiv:2206.11893; signed modes as in the comparison of Ran-Milo et al., "Provable
Benefits of Complex Parameterizations for Structured State Space Models", NeurIPS 2024,
arXiv:2410.14067. Differs from the paper: the convolution is computed as a recurrence
(longstate.ops.channel_scan), which also gives the state; the GELU, dropout and output projection
of the paper's block are in longstate.models.

Axes: b batch, t time, d channels, n stored modes (d_state / 2, or d_state when real or
signed).
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from longstate.layers._channelwise import (
    DiagonalLayer,
    complex_normal,
    complex_parameter,
    log_uniform,
    undone,
)
from longstate.layers._resized import put, resized
from longstate.systems import (
    Bilinear,
    DiagonalSystem,
    ZeroOrderHold,
    s4d_inv,
    s4d_legs,
    s4d_lin,
    s4d_real,
)

_INITIAL = {
    "lin": s4d_lin, "inv": s4d_inv, "legs": s4d_legs, "real": s4d_real, "signed": s4d_real,
}  # fmt: skip
_NO_TIME = "a sign that changes at every sample has no form between samples"


class S4D(DiagonalLayer):
    """One diagonal system per channel.

    Args:
        d_model: channels in and out.
        d_state: states of each channel; even if they are complex.
        init: initial A and B: "lin", "inv", "legs" (complex), "real", or "signed" (real, and every
            second one negative in the recurrence). Signs stay as they are.
        variant: "zoh" (exact under changes of rate and for irregular time) or "bilinear".
        dt_min, dt_max: range of the initial steps, as a fraction of the time constant of A.
        bidirectional: add a kernel that looks ahead. There is no state and no step then.

    Raises:
        ValueError: an option does not exist, or `d_state` is odd; or a call gives `dt` or `rate`
            to a signed layer.
    """

    dynamics = ("log_dt", "log_decay", "frequency", "B")
    sign: Tensor | None

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: Literal["lin", "inv", "legs", "real", "signed"] = "lin",
        variant: Literal["zoh", "bilinear"] = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
    ):
        super().__init__()
        if init not in _INITIAL:
            raise ValueError(f"init must be one of {', '.join(_INITIAL)}; got {init!r}")
        if variant not in ("zoh", "bilinear"):
            raise ValueError(f"variant must be 'zoh' or 'bilinear'; got {variant!r}")
        self.d_model, self.d_state, self.bidirectional = d_model, d_state, bidirectional
        self.variant = variant
        A, B = (x.expand(d_model, -1) for x in _INITIAL[init](d_state))
        directions = (2,) if bidirectional else ()
        C = complex_normal(*directions, *A.shape)
        self.log_dt = nn.Parameter(log_uniform((d_model,), dt_min, dt_max))
        self.log_decay = nn.Parameter((-A.real).log().float())
        self.frequency = nn.Parameter(A.imag.float().clone()) if A.is_complex() else None
        self.B = complex_parameter(B)
        self.C = complex_parameter(C if A.is_complex() else C.real * 2**0.5)
        self.D = nn.Parameter(torch.randn(d_model))
        signs = torch.where(torch.arange(d_state) % 2 == 1, -1.0, 1.0).repeat(d_model, 1)
        self.register_buffer("sign", signs if init == "signed" else None)

    def system(self, rate: float = 1.0) -> DiagonalSystem:
        """The recurrence that the layer runs on regular samples."""
        if self.sign is None:
            return super().system(rate)
        if rate != 1:
            raise ValueError(f"S4D(init='signed') takes no rate; {_NO_TIME}")
        found = super().system()
        return replace(found, A=self.sign.to(found.A.dtype) * found.A)

    def continuous_system(self) -> DiagonalSystem:
        """A, B, C, D of the differential equation, with batch axis d (both directions' C: 2, d).
        Of a signed layer those of the recurrence with |A|."""
        dtype = self._dtype()
        decay = -self.log_decay.to(dtype).exp()
        if self.frequency is None:
            A, B, C = decay, self.B.to(dtype), self.C.to(dtype)
        else:
            A = torch.complex(decay, self.frequency.to(dtype))
            B, C = (torch.view_as_complex(x.to(dtype)) for x in (self.B, self.C))
        D = self.D.to(dtype)[:, None, None]
        return DiagonalSystem(
            A, B[..., None], C[..., None, :], D, conjugate=self.frequency is not None
        )

    def with_system(self, system: DiagonalSystem) -> "S4D":
        """A layer like this one that runs another recurrence, of any size.

        Args:
            system: discrete, with |A| < 1, of the batch axes of `system()`: A (d, n), B (d, n, 1),
                C (d, 1, n) or (2, d, 1, n). Pairs where this layer has pairs, and A > 0 where it is
                real and not signed; D stays as it is.

        Other steps than the regular one see the slowest A that fits.
        """
        real = self.frequency is None
        n = system.d_state
        new = resized(self, d_state=n if real else 2 * n)
        new.d_state = n if real else 2 * n
        if self.sign is not None:
            new.sign = torch.where(system.A < 0, -1.0, 1.0).to(self.sign)
            system = replace(system, A=system.A.abs())
        A, weight = undone(system, self._rule(), self.log_dt)
        put(new, log_decay=(-A.real).log(), B=torch.ones_like(A), C=weight)
        if not real:
            put(new, frequency=A.imag)
        return new

    def _check_dt(self, dt: Tensor | None) -> None:
        if dt is not None and self.sign is not None:
            raise ValueError(f"S4D(init='signed') takes no dt; {_NO_TIME}")
        super()._check_dt(dt)

    def _rule(self) -> ZeroOrderHold | Bilinear:
        return ZeroOrderHold() if self.variant == "zoh" else Bilinear()
