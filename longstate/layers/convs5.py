"""ConvS5: S5 whose inputs and states are images.

    x'(t) = A x(t) + B * u(t)              A diagonal, one entry per state, Re A < 0
    y(t)  = 2 Re(C * x(t)) + D * u(t)      * is a convolution over height and width

discretised by zero-order hold with a learned step for each state. A state is an image. Every pixel
of it has the same decay, so the recurrence is elementwise and runs as one scan over time, while B,
C and D see the neighbours of a pixel. One of each conjugate pair is stored. The convolutions pad
with zeros and keep the size of an image. With images of 1 by 1, the default, or kernels of 1, this
is S5 for each pixel, with a D that mixes channels.

In the contract of `Layer` a frame is one sample: u is (b, t, d) with d = channels * height * width,
the channels first. `layer(frames.flatten(2))` reads frames (b, t, channels, height, width), and
`y.unflatten(2, frames.shape[2:])` makes images of the result.

Smith, De Mello, Kautz, Linderman, Byeon, "Convolutional State Space Models for Long-Range
Spatiotemporal Modeling", NeurIPS 2023, arXiv:2310.19694. Differs from the paper: Re A =
-exp(log_decay), where the paper's is free and clipped below 0; norm, activation and the residual
convolutions of the paper's block are not here.

There is no `system`: as matrices over whole images, B and C have n d height width entries each.

Axes: b batch, t time, d numbers in a frame, c channels of a frame, n stored states (d_state / 2).
"""

import math

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
from longstate.layers._channelwise import complex_parameter, log_uniform
from longstate.ops import diagonal_scan, zoh_scan
from longstate.systems import ZeroOrderHold, diagonalize, legs


class ConvS5(Layer):
    """One linear system of images, whose input and output maps are convolutions.

    State: (b, n, height, width), complex.

    Args:
        d_model: numbers in a frame, channels * height * width.
        height, width: of a frame.
        d_state: real numbers in the state of a pixel; half as many complex ones are stored.
        n_blocks: the initial A has this many copies of the HiPPO-LegS normal matrix, each of size
            d_state / n_blocks.
        kernel: height and width of the kernels of B, C and D; odd.
        dt_min, dt_max: range of the initial steps, as a fraction of the time constant of A.

    Raises:
        ValueError: `d_model` is not a multiple of height * width, `d_state` is not an even multiple
            of `n_blocks`, or `kernel` is not odd.
    """

    dynamics = ("log_dt", "log_decay", "frequency", "B")

    def __init__(
        self,
        d_model: int,
        *,
        height: int = 1,
        width: int = 1,
        d_state: int = 64,
        n_blocks: int = 1,
        kernel: int = 3,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ):
        super().__init__()
        if height < 1 or width < 1 or d_model < 1 or d_model % (height * width):
            raise ValueError(
                "d_model must be channels * height * width, a multiple of height * width; got "
                f"d_model {d_model} with height {height} and width {width}"
            )
        if n_blocks < 1 or d_state < 2 or d_state % (2 * n_blocks):
            raise ValueError(
                f"d_state must be an even multiple of n_blocks; got {d_state} and {n_blocks}"
            )
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that it has a centre; got {kernel}")
        self.scans = {"regular": diagonal_scan, "irregular": zoh_scan}
        self.d_model, self.d_state = d_model, d_state
        self.image = (d_model // (height * width), height, width)
        A, B, C = _initial(self.image[0], d_state, n_blocks, kernel)
        self.log_dt = nn.Parameter(log_uniform((d_state // 2,), dt_min, dt_max))
        self.log_decay = nn.Parameter((-A.real).log().float())
        self.frequency = nn.Parameter(A.imag.float())
        self.B = complex_parameter(B)
        self.C = complex_parameter(C)
        self.D = nn.Parameter(_he_normal(self.image[0], self.image[0], kernel).float())

    def init_state(self, batch: int) -> State:
        """Zero."""
        shape = (batch, self.d_state // 2, *self.image[1:])
        dtype = torch.promote_types(self._dtype(), torch.complex64)
        return torch.zeros(shape, dtype=dtype, device=self.D.device)

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
        """See `Layer`. `dt` and `rate` are exact when frames are constant between samples."""
        state = check_call(self, u, state, dt, mask, reset, rate)
        if len(u) == 0:
            return of_no_rows(self, u)
        wide, time = zero_masked(u.to(self._dtype()), mask), scaled(u, dt, rate)
        if mask is not None:  # a step of length 0 changes nothing
            time = mask.to(wide.dtype) if time is None else torch.where(mask, time, 0)
        with full_precision(u):
            frames = wide.flatten(0, 1).unflatten(1, self.image)
            h, last = self._scan(frames, time, state, reset, wide.shape[:2])
            y = self._read(h, frames)
        y = zero_masked(y.flatten(1).unflatten(0, u.shape[:2]), mask)
        return y.to(u.dtype), last.view_as(state)

    def _scan(
        self,
        frames: Tensor,
        time: Tensor | None,
        state: Tensor,
        reset: Tensor | None,
        samples: torch.Size,
    ) -> tuple[Tensor, Tensor]:
        """All states (b * t, n, height, width), and the last."""
        dtype = self._dtype()
        A = torch.complex(-self.log_decay.to(dtype).exp(), self.frequency.to(dtype))
        B, dt = torch.view_as_complex(self.B.to(dtype)), self.log_dt.to(dtype).exp()
        if time is None:
            decay, scale = ZeroOrderHold().diagonal(A, dt)
        else:
            decay, scale = A * dt, dt
        B = scale[:, None, None, None] * B
        x = torch.complex(*_convolve(frames, torch.cat([B.real, B.imag])).chunk(2, dim=1))
        x, start = x.flatten(1).unflatten(0, samples), state.flatten(1)
        decay = decay.repeat_interleave(self.image[1] * self.image[2])
        if time is None:
            h, last = self.scans["regular"](x, decay, start, reset=reset)
        else:
            h, last = self.scans["irregular"](x, decay, time, start, reset=reset)
        return h.flatten(0, 1).unflatten(1, state.shape[1:]), last

    def _read(self, h: Tensor, frames: Tensor) -> Tensor:
        """2 Re(C * h) + D * u, one real convolution."""
        C, D = 2 * torch.view_as_complex(self.C.to(self._dtype())), self.D.to(self._dtype())
        both = torch.cat([h.real, h.imag, frames], 1)
        return _convolve(both, torch.cat([C.real, -C.imag, D], 1))

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.D.dtype, torch.float32)


def _convolve(images: Tensor, kernel: Tensor) -> Tensor:
    """Entries that would only meet the zeros around an image are left out: of an image of one
    pixel, all but one."""
    height, width = (_seen(size, kernel.shape[-1]) for size in images.shape[2:])
    kernel = kernel[:, :, height, width]
    if kernel.shape[2:] == (1, 1):
        y = kernel.flatten(1) @ images.flatten(2)
    else:
        y = F.conv2d(images, kernel, padding=[size // 2 for size in kernel.shape[2:]])
    return y.view(len(images), len(kernel), *images.shape[2:])  # vmap over no rows loses it


def _seen(size: int, kernel: int) -> slice:
    """The entries of a kernel that meet an image of a size, along one axis."""
    outside = max(0, kernel // 2 - (size - 1))
    return slice(outside, kernel - outside)


def _initial(
    channels: int, d_state: int, n_blocks: int, kernel: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A (n), B (n, c, kernel, kernel) and C (c, n, kernel, kernel), as in S5: drawn in the real
    coordinates, and transformed to those that make A diagonal."""
    spectrum = diagonalize(legs(d_state // n_blocks))
    V = torch.block_diag(*[spectrum.V] * n_blocks)  # d_state, n
    B = _he_normal(d_state, channels, kernel).to(V.dtype)
    C = _he_normal(channels, d_state, kernel).to(V.dtype)
    return (
        spectrum.A.repeat(n_blocks),
        torch.einsum("sn,scij->ncij", V.conj(), B),
        torch.einsum("csij,sn->cnij", C, V),
    )


def _he_normal(out: int, into: int, kernel: int) -> Tensor:
    std = math.sqrt(2 / (into * kernel * kernel))
    return std * torch.randn(out, into, kernel, kernel, dtype=torch.float64)
