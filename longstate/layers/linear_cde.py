"""A linear controlled differential equation: the input chooses a whole matrix at every sample.

    dZ = sum_i A_i Z d(omega_i) + B d(omega)          omega = (time, path)
    y  = C Z + D u

u_t is the slope of the path on the interval before sample t, (1, u_t) that of omega. On an interval
of length dt the equation has constant coefficients, and the step is exact:

    M_t = dt (A_0 + sum_i u_ti A_i)      Z_t = exp(M_t) Z_{t-1} + phi(M_t) dt B (1, u_t)
    phi(M) = (exp(M) - 1) / M

To drive the equation by a path instead of its slope, pass differences of the path.

Dense matrices do not commute, so Z follows the order of the inputs: one layer tracks products in
any finite group, such as the even permutations of five things, for which layers with diagonal
matrices need more depth for longer words. "diagonal" is that diagonal layer, real; "block" has
blocks on the diagonal.

Muca Cirone et al., "Theoretical Foundations of Deep Selective State-Space Models", NeurIPS 2024,
arXiv:2402.19047. Differs from the paper: steps are exact, where the official code takes Euler
steps or a solver; the matrices learn, and begin skew-symmetric with a small decay (diagonal ones
with the decay alone), so that the state of a long sequence neither grows nor vanishes at first.
Nothing keeps it stable in training; with stable=True the symmetric part of all matrices is the
decay, so that for any parameters and inputs the exponentials do not lengthen a state. They are then
rotations that decay, which still represent every finite group. The official code begins with a
linear map of the first input; here Z_0 is zero or, with start="learned", a parameter.

Every sample waits for the one before it, except in the diagonal layer. Time and memory of a sample
grow with d_model * d_state * k numbers of A, and with matrices of k by k, where k is the size of a
block.

Axes: b batch, t time, d channels, i coordinates of omega (1 + d), n state, g blocks of k by k.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._base import (
    Layer,
    State,
    check_call,
    full_precision,
    of_no_rows,
    scaled,
    zero_masked,
)
from longstate.layers._channelwise import log_uniform
from longstate.ops.diagonal_scan import diagonal_scan
from longstate.ops.expm_scan import expm_scan

VARIANTS = ("dense", "block", "diagonal")


class LinearCDE(Layer):
    """One state for all channels, moved by a matrix that is linear in the input.

    State: {"z": (b, n)}.

    Args:
        d_model: channels in and out.
        d_state: n.
        variant: "dense", "block" or "diagonal".
        block: k, size of a block of "block".
        decay_min, decay_max: range of the initial decays, per regular interval.
        start: the state before the first sample, and after a reset: "zero" or "learned".
        stable: whether matrices are rotations that decay. Not for a diagonal layer.

    Raises:
        ValueError: an option is out of its range, `block` does not divide `d_state`, or a stable
            layer has blocks of size 1.
    """

    dynamics = ("A",)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        variant: str = "dense",
        block: int = 4,
        decay_min: float = 1e-3,
        decay_max: float = 1e-1,
        start: Literal["zero", "learned"] = "zero",
        stable: bool = False,
    ):
        super().__init__()
        if start not in ("zero", "learned"):
            raise ValueError(f"start must be 'zero' or 'learned'; got {start!r}")
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}; got {variant!r}")
        k = {"dense": d_state, "block": block, "diagonal": 1}[variant]
        if d_state < 1 or k < 1 or d_state % k:
            raise ValueError(
                f"d_state must be at least 1 and a multiple of block; got {d_state} and {k}"
            )
        if not 0 < decay_min <= decay_max:
            raise ValueError(
                f"decay_min and decay_max must be in order and above 0; got {decay_min} and "
                f"{decay_max}"
            )
        if stable and k < 2:
            raise ValueError(
                "stable needs matrices that can rotate, variant 'dense' or 'block' with a block of "
                f"at least 2; got variant {variant!r} with blocks of {k}"
            )
        self.d_model, self.d_state, self.k, self.stable = d_model, d_state, k, stable
        self.scans = {"z": diagonal_scan} if k == 1 else {}
        free = torch.randn(1 + d_model, d_state // k, k, k) * (2 * k * (1 + d_model)) ** -0.5
        turning = free - free.mT
        decays = log_uniform((d_state // k, k), decay_min, decay_max).exp()
        turning[0] -= torch.diag_embed(decays)
        self.A = nn.Parameter(turning)
        self.B = nn.Parameter(torch.randn(d_state, 1 + d_model) * (1 + d_model) ** -0.5)
        self.C = nn.Parameter(torch.randn(d_model, d_state) * d_state**-0.5)
        self.D = nn.Parameter(torch.randn(d_model))
        self.start = nn.Parameter(torch.randn(d_state)) if start == "learned" else None

    def init_state(self, batch: int) -> State:
        """Zero, or the learned state; gradients flow to it."""
        if self.start is not None:
            return {"z": self.start.to(self._dtype()).expand(batch, -1)}
        return {"z": self.D.new_zeros(batch, self.d_state, dtype=self._dtype())}

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
        """See `Layer`. `dt` and `rate` are exact for an input that is constant between samples."""
        state = check_call(self, u, state, dt, mask, reset, rate)
        if len(u) == 0:
            return of_no_rows(self, u)
        wide, time = zero_masked(u.to(self._dtype()), mask), scaled(u, dt, rate)
        if mask is not None:  # an interval of length 0 changes nothing
            time = mask.to(wide.dtype) if time is None else torch.where(mask, time, 0)
        with full_precision(u):
            z, last = self._scan(*self._steps(wide, time), state["z"], reset)
            y = F.linear(z, self.C.to(z.dtype)) + self.D * wide
        return zero_masked(y, mask).to(u.dtype), {"z": last}

    def _steps(self, u: Tensor, time: Tensor | None) -> tuple[Tensor, Tensor]:
        """M (b, t, g, k, k), transposed, and the drive B omega (b, t, g, k)."""
        slope = F.pad(u, (1, 0), value=1.0)
        if time is not None:
            slope = slope * time[..., None].to(u.dtype)
        g, k = self.A.shape[1:3]
        A = self._matrices().to(u.dtype).mT.flatten(1)
        drive = F.linear(slope, self.B.to(u.dtype))
        return (slope @ A).unflatten(-1, (g, k, k)), drive.unflatten(-1, (g, k))

    def _matrices(self) -> Tensor:
        """A_i (i, g, k, k)."""
        if not self.stable:
            return self.A
        turning = (self.A - self.A.mT) / 2
        decay = torch.diag_embed(self.A[0].diagonal(dim1=-2, dim2=-1).abs())
        return torch.cat([turning[:1] - decay, turning[1:]])

    def _scan(
        self, M: Tensor, drive: Tensor, z: Tensor, reset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """All states (b, t, n), and the last one."""
        if self.scans:
            return self._scan_diagonal(M[..., 0, 0], drive[..., 0], z, reset)
        shape = drive.shape[2:]
        start = None if self.start is None else self.start.to(z.dtype).view(shape)
        z, last = expm_scan(M, drive, z.unflatten(-1, shape), start=start, reset=reset)
        return z.flatten(2), last.flatten(1)

    def _scan_diagonal(
        self, m: Tensor, drive: Tensor, z: Tensor, reset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        small = m.abs() < 1e-4
        whole = torch.where(small, 1, m)
        decay, drive = m.exp(), torch.where(small, 1 + m / 2, torch.expm1(whole) / whole) * drive
        if reset is not None and self.start is not None:  # the scan forgets all
            drive = drive + torch.where(reset[..., None], decay * self.start.to(z.dtype), 0)
        return self.scans["z"](drive, decay, z, reset=reset)

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.D.dtype, torch.float32)
