"""Long convolution along time, causal or two-sided, by the fast Fourier transform.

    y_t = sum_{j >= 0} k_j u_{t-j}  +  sum_{j >= 0} k'_j u_{t+1+j}

The second sum is there only with `k_reverse` = k'. It begins at the next sample, so the current one
is counted once (S4's convention for bidirectional layers).

`torch.fft` is the CPU form and the GPU form alike: it calls the vendors' transforms, which a kernel
of our own in Numba or Triton would only repeat more slowly. `reference.py` is the plain sum.

What a state left behind adds is not a convolution with the input; add it to the result:
`ssm_kernel.vandermonde(C * A_bar * h0, A_bar, t)` for a diagonal system, `dplr_state_response` and
`dense_kernel(A, A @ h0, C, t)` for the others.

Axes: b batch, t time, d channels.
"""

import torch
from torch import Tensor

from longstate.ops._choice import expect, shape_of


def fft_conv(u: Tensor, k: Tensor, *, k_reverse: Tensor | None = None) -> Tensor:
    """Convolve every channel with its own kernel; zeros before and after the input.

    Exact to rounding: the transform is long enough that nothing wraps around. float16 and bfloat16
    are computed in float32. An FFT mixes all samples, so a result changes in its last bits when a
    later input changes; mathematically it does not depend on it.

    Args:
        u (b, t, d): input, real.
        k (d, l): weight of lag 0, 1, ... May be shorter or longer than t; lags of t and more have
            nothing to act on.
        k_reverse (d, m): weight of the sample 1, 2, ... steps ahead. None makes the result causal.

    Returns:
        (b, t, d), in the promoted dtype of the inputs. Differentiable in all of them.

    Raises:
        ValueError: shapes do not fit, a tensor is complex, or t is 0.
    """
    expect(u.dim() == 3, f"u must be (batch, time, channels); got {shape_of(u)}")
    t, d = u.shape[1:]
    expect(t > 0, "u has no time steps; fft_conv needs at least one")
    _check_kernel("k", k, d)
    dtype = torch.promote_types(u.dtype, k.dtype)
    k = k[:, :t]
    size = t + k.shape[1] - 1
    if k_reverse is not None:
        _check_kernel("k_reverse", k_reverse, d)
        dtype = torch.promote_types(dtype, k_reverse.dtype)
        k_reverse = k_reverse[:, : t - 1]
        size = max(size, t + k_reverse.shape[1])
    expect(not dtype.is_complex, "u, k and k_reverse must be real; got a complex tensor")
    work = torch.float64 if dtype == torch.float64 else torch.float32
    size = _fast_size(size)
    spectrum = _transform(k.to(work), k_reverse, work, size)
    spectrum = spectrum * torch.fft.rfft(u.mT.to(work), n=size)
    return torch.fft.irfft(spectrum, n=size)[..., :t].mT.to(dtype)


def _transform(k: Tensor, k_reverse: Tensor | None, work: torch.dtype, size: int) -> Tensor:
    """Spectrum of the circular kernel: lag j at index j, lag -(j + 1) at index size - 1 - j."""
    if k_reverse is None:
        return torch.fft.rfft(k, n=size)
    gap = size - k.shape[1] - k_reverse.shape[1]
    circle = torch.cat([k, k.new_zeros(k.shape[0], gap), k_reverse.to(work).flip(-1)], dim=-1)
    return torch.fft.rfft(circle)


def _fast_size(size: int) -> int:
    """The least even 2^i 3^j 5^k not below `size`."""
    best = 1 << max(size - 1, 1).bit_length()
    five = 1
    while five < best:
        odd = five
        while odd < best:
            candidate = odd * 2
            while candidate < size:
                candidate *= 2
            best = min(best, candidate)
            odd *= 3
        five *= 5
    return best


def _check_kernel(name: str, k: Tensor, d: int) -> None:
    fits = k.dim() == 2 and k.shape[0] == d and k.shape[1] > 0
    expect(fits, f"{name} must be ({d}, lags), at least one lag; got {shape_of(k)}")
