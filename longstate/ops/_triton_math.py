"""Functions that Triton kernels share. Imported by `triton.py` files only."""

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
def softplus(x):
    """log(1 + e^x), to full relative accuracy: log(1 + e) for small e by Kahan's correction."""
    e = tl.exp(-tl.abs(x))
    above = 1.0 + e
    exact = above == 1.0
    log = tl.where(exact, e, tl.log(above) * (e / tl.where(exact, 1.0, above - 1.0)))
    return tl.where(x > 0, x, tl.zeros_like(x)) + log
