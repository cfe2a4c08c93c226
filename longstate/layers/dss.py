"""DSS: diagonal state spaces, with the weights in one vector and no B.

    exp       K_l = 2 Re sum_n w_n ((e^{z_n} - 1) / lambda_n) e^{z_n l}            z = lambda dt
    softmax   K_l = 2 Re sum_n (w_n / lambda_n) softmax_l(z_n l)                   l < length

Gupta, Gu, Berant, "Diagonal State Spaces are as Effective as Structured State Spaces",
NeurIPS 2022, arXiv:2203.14343. The exp form is S4D under the zero-order hold with B = 1. The
softmax form normalises each mode over `length` samples, so that Re(lambda) > 0 is allowed. With
a fixed length it is a recurrence too, and can be streamed for that many samples.

Differs from the paper: a factor of 2, as in all layers here, for the stored half of the conjugate
pairs; the length of the softmax is an option of the layer and not the length of the batch, so
that the output does not depend on how the input is cut into pieces.

Axes: b batch, t time, d channels, n stored modes (d_state / 2).
"""

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
from longstate.systems import DiagonalSystem, ZeroOrderHold, s4d_legs

_SMALLEST = 1e-7  # the paper's guard where e^{z length} passes through 1


class DSS(DiagonalLayer):
    """One diagonal system per channel, parameterised by its kernel.

    Args:
        d_model: channels in and out.
        d_state: states of each channel; even.
        variant: "exp", or "softmax" with `length`.
        length: samples over which the softmax normalises: the longest sequence that is used.
        dt_min, dt_max: range of the initial steps.
        bidirectional: add a kernel that looks ahead. There is no state and no step then.

    Raises:
        ValueError: an option does not exist, or `length` is missing or not needed.
    """

    dynamics = ("log_dt", "decay", "frequency")

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        variant: Literal["exp", "softmax"] = "exp",
        length: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
    ):
        super().__init__()
        if variant not in ("exp", "softmax"):
            raise ValueError(f"variant must be 'exp' or 'softmax'; got {variant!r}")
        if (variant == "softmax") != (length is not None):
            raise ValueError("variant='softmax' needs length=, the samples it normalises over; "
                             "variant='exp' takes none")  # fmt: skip
        self.d_model, self.d_state, self.bidirectional = d_model, d_state, bidirectional
        self.variant, self.length = variant, length
        A = s4d_legs(d_state)[0].expand(d_model, -1)
        directions = (2,) if bidirectional else ()
        self.log_dt = nn.Parameter(log_uniform((d_model,), dt_min, dt_max))
        # exp: Re(lambda) = -exp(decay), stable; softmax: Re(lambda) = decay, any sign
        decay = (-A.real).log() if variant == "exp" else A.real
        self.decay = nn.Parameter(decay.float().clone())
        self.frequency = nn.Parameter(A.imag.float().clone())
        self.w = complex_parameter(complex_normal(*directions, *A.shape))
        self.D = nn.Parameter(torch.randn(d_model))

    def continuous_system(self) -> DiagonalSystem:
        dtype = self._dtype()
        decay = self.decay.to(dtype)
        real = -decay.exp() if self.variant == "exp" else decay
        A = torch.complex(real, self.frequency.to(dtype))
        B = torch.ones_like(A) if self.length is None else self._normaliser(A, self.length)
        C = torch.view_as_complex(self.w.to(dtype))
        D = self.D.to(dtype)[:, None, None]
        return DiagonalSystem(A, B[..., None], C[..., None, :], D, conjugate=True)

    def with_system(self, system: DiagonalSystem) -> "DSS":
        """A layer like this one that runs another recurrence of any size; see `S4D.with_system`."""
        new = resized(self, d_state=2 * system.d_state)
        new.d_state = 2 * system.d_state
        A, weight = undone(system, self._rule(), self.log_dt)
        decay = (-A.real).log() if self.variant == "exp" else A.real
        if self.length is not None:
            weight = weight / self._normaliser(A, self.length)
        put(new, decay=decay, frequency=A.imag, w=weight)
        return new

    def _normaliser(self, A: Tensor, length: int) -> Tensor:
        """1 / (e^{z length} - 1): with it the weights of a mode sum to 1 / lambda."""
        z = A * self.log_dt.to(A.real.dtype).exp()[:, None] * length
        grows = z.real > 0  # then e^{-z length} is the small number
        small = torch.where(grows, -z, z)
        x = torch.expm1(small)
        reciprocal = x.conj() / (x.abs().square() + _SMALLEST)
        return torch.where(grows, -reciprocal * torch.exp(small), reciprocal)

    def _rule(self) -> ZeroOrderHold:
        return ZeroOrderHold()
