"""The equations in PyTorch: any device, any floating-point type."""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops.quantized_step import BAD, LEAST, Digits, Rounded, storage

_32 = 0xFFFFFFFF
_SPREAD = 0x9E3779B9  # an odd number near 2^32 over the golden ratio


def exponents(size: Tensor, most: int) -> Tensor:
    """The smallest e with size <= most 2^e, as int8; from the largest number of each row."""
    wide = size if size.dtype == torch.float64 else size.float()
    e = torch.frexp(wide)[1].to(torch.int64) - most.bit_length()
    e = e.clamp(-126, 127)
    e = torch.where(wide > most * power(e, wide.dtype), e + 1, e).clamp(min=LEAST)
    return torch.where(wide.isfinite() & (e < BAD), e, BAD).to(torch.int8)


def power(e: Tensor, dtype: torch.dtype) -> Tensor:
    """2^e, exact, for exponents from -126 to 126; NaN for BAD."""
    bits = (e.to(torch.int32) + 127) << 23
    return bits.view(torch.float32).masked_fill(e == BAD, torch.nan).to(dtype)


def whole(x: Tensor, e: Tensor, digits: Digits, seed: int) -> Tensor:
    """Whole numbers, in the type of x (..., n), of the unit 2^e; e broadcasts."""
    scaled = torch.where(e == BAD, 0, x * power(-e.clamp(max=126), x.dtype))
    if digits.rounding != "stochastic":
        return scaled.round()
    low = scaled.floor()
    return low + (scaled - low > uniform(x.shape, seed).to(x)).to(x.dtype)


def uniform(shape: torch.Size, seed: int) -> Tensor:
    """Numbers from 0 to 1, of which each depends on its place and on the seed only."""
    place = torch.arange(shape.numel(), dtype=torch.int64)
    x = _mixed((place * _SPREAD + _mixed(torch.tensor(seed))) & _32)
    return ((x >> 8).double() * 2.0**-24).reshape(shape)


def _mixed(x: Tensor) -> Tensor:
    """A permutation of 32 bits, each of which depends on all."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _32
    return x ^ (x >> 16)


def rounded(h: Tensor, digits: Digits, seed: int) -> Rounded:
    e = exponents(h.abs().amax(-1), digits.most)
    w = whole(h, e[..., None], digits, seed)
    dtype, width = storage(digits, h.shape[-1])
    if digits.packed:
        w = F.pad(w, (0, 2 * width - h.shape[-1])) + 8
        w = w[..., :width] + 16 * w[..., width:]
    return Rounded(w.to(dtype), e)


def exact(state: Rounded, digits: Digits, n: int, dtype: torch.dtype) -> Tensor:
    w = state.numbers
    if digits.packed:
        w = torch.cat([w & 15, w >> 4], dim=-1)[..., :n].to(torch.int8) - 8
    return w.to(dtype) * power(state.exponents, dtype)[..., None]


def selective(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, state: Rounded,
    digits: Digits, seed: int,
) -> tuple[Tensor, Rounded]:  # fmt: skip
    u, dt, B, C, D, z = (v.to(A.dtype) for v in (u, dt, B, C, D, z))
    h = torch.exp(dt[..., None] * A) * exact(state, digits, A.shape[1], A.dtype)
    h = h + (dt * u)[..., None] * B[:, None]
    y = ((h * C[:, None]).sum(-1) + D * u) * F.silu(z)
    return y, rounded(h, digits, seed)


def of_heads(
    x: Tensor, log_a: Tensor, weight: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Rounded,
    digits: Digits, seed: int,
) -> tuple[Tensor, Rounded]:  # fmt: skip
    x, weight, B, C, D = (v.to(log_a.dtype) for v in (x, weight, B, C, D))
    B, C = (v.repeat_interleave(x.shape[1] // v.shape[1], dim=1)[:, :, None] for v in (B, C))
    h = log_a.exp()[..., None, None] * exact(state, digits, B.shape[-1], x.dtype)
    h = h + (weight[..., None] * x)[..., None] * B
    return (h * C).sum(-1) + D[:, None] * x, rounded(h, digits, seed)
