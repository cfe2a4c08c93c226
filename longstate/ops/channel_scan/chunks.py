"""The four matrix products of a chunked scan, for any state matrix.

Axes: b batch, t time, d channels, n state, c chunks, k time within a chunk.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._transforms import can_look, is_finite

_CHUNK = 64  # samples; balances the cost of the Toeplitz product (k) and of the states (2n)


def chunk_length(t: int) -> int:
    """A power of 2, so that A^k is reached by squaring."""
    return min(_CHUNK, 1 << (t - 1).bit_length())


def orbit(
    apply: Callable[[Tensor, Tensor], Tensor], squares: list[Tensor], v: Tensor, count: int
) -> Tensor:
    """A^j v for j < count (count, d, n), by doubling from the powers A^(2^i).

    The powers come in double precision, so that A^k is rounded once and not k times. These tables
    are small; the data stay in their own type.
    """
    powers = v[None]
    for square in squares:
        powers = torch.cat([powers, apply(square, powers)])
    return powers[:count]


def chunked(
    u: Tensor, kernel: Tensor, into: Tensor, outof: Tensor, carry: Callable[[Tensor], Tensor],
    advance: Callable[[Tensor, Tensor], Tensor], h0: Tensor, lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The four products. `carry` runs the recurrence between chunks, `advance` A^steps h.

    A product multiplies later samples by 0, and 0 times NaN is NaN. So on a CPU samples that are
    not finite are left out, and the outputs of their channel and row are NaN from there on.
    """

    def run(u: Tensor) -> tuple[Tensor, Tensor]:
        return _products(u, kernel, into, outof, carry, advance, h0, lengths)

    if lengths is not None:
        there = torch.arange(u.shape[1], device=u.device) < lengths[:, None]
        u = torch.where(there[..., None], u, 0)
    if u.device.type != "cpu":
        return run(u)
    if can_look():
        y, last = run(u)
        if is_finite(last):  # every sample contributes to it
            return y, last
    spoiled = (0 * u).cumsum(1)  # 0, and NaN from the first sample that is not finite
    y, last = run(torch.where(u.isfinite(), u, 0))
    return y + spoiled, last + spoiled[:, -1, :, None]


def _products(
    u: Tensor, kernel: Tensor, into: Tensor, outof: Tensor, carry: Callable[[Tensor], Tensor],
    advance: Callable[[Tensor, Tensor], Tensor], h0: Tensor, lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    b, t, d = u.shape
    kernel, into, outof = kernel.to(u.dtype), into.to(h0.dtype), outof.to(h0.dtype)
    k = into.shape[0]
    full = t // k
    chunks = -(-t // k)
    u_chunks = F.pad(u, (0, 0, 0, chunks * k - t)).view(b, chunks, k, d)
    u_chunks = u_chunks.permute(3, 0, 1, 2).reshape(d, b * chunks, k)

    # rows j of `into` reversed: sample j of a chunk is k - 1 - j steps from its end
    to_state = _as_real(into.flip(0).permute(1, 0, 2))  # (d, k, n or 2n)
    inflow = torch.bmm(u_chunks, to_state).view(d, b, chunks, to_state.shape[2])
    inflow = inflow.permute(1, 2, 0, 3)
    inflow = as_complex(inflow, into)[:, :full].contiguous()
    if full:
        starts = torch.cat([h0[:, None], carry(inflow)], dim=1)  # state before chunk 0 .. full
    else:
        starts = h0[:, None]

    from_state = _as_real(outof.permute(1, 2, 0).transpose(1, 2)).mT  # (d, n or 2n, k)
    flat = (
        _as_real(starts[:, :chunks]).permute(2, 0, 1, 3).reshape(d, b * chunks, to_state.shape[2])
    )
    y = torch.baddbmm(torch.bmm(u_chunks, _toeplitz(kernel)), flat, from_state)
    y = y.view(d, b, chunks * k).permute(1, 2, 0)[:, :t]

    if lengths is None:
        lengths = torch.full((b,), t, device=u.device)
    whole = lengths.div(k, rounding_mode="floor")
    rest = lengths - whole * k
    h = starts[torch.arange(b, device=u.device), whole]
    return y.contiguous(), advance(h, rest) + _tail(u, to_state, into, lengths, rest)


def _tail(u: Tensor, to_state: Tensor, into: Tensor, lengths: Tensor, rest: Tensor) -> Tensor:
    """The part of the state (b, d, n) that comes from the last `rest` samples before `lengths`."""
    k = into.shape[0]
    time = lengths[:, None] - k + torch.arange(k, device=u.device)  # (b, k), right-aligned
    kept = torch.arange(k, device=u.device) >= k - rest[:, None]
    rows = torch.arange(u.shape[0], device=u.device)[:, None]
    window = torch.where(kept[..., None], u[rows, time.clamp(min=0)], 0)
    return as_complex(torch.einsum("bkd,dkn->bdn", window, to_state), into)


def _toeplitz(kernel: Tensor) -> Tensor:
    """T[d, j, i] = kernel[i - j, d] for i >= j, else 0."""
    k = kernel.shape[0]
    index = torch.arange(k, device=kernel.device)
    lag = index[None, :] - index[:, None]
    return torch.where(lag >= 0, kernel.T[:, lag.clamp(min=0)], 0)


def _as_real(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj()).flatten(-2) if x.is_complex() else x


def as_complex(x: Tensor, like: Tensor) -> Tensor:
    if not like.is_complex():
        return x
    return torch.view_as_complex(x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2))
