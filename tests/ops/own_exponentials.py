"""The selective scan in float64, for the exponentials that its kernel computes in float32.

exp and softplus of the kernel are right to two units in the last place, as PyTorch's are, but their
errors are not drawn anew at each step: a polynomial that stands for 2^f is a little low at one f
and a little high at another, 2e-8 on average, where PyTorch's is 2e-9. In a product of 100 decays
without a reset such errors add up, and PyTorch's average out. So the gradient of the state before
100 steps may be off by more than twice the plain form's error, and yet each factor is as good as
PyTorch's and nothing else in the kernel adds to it. Both are tested: the factors, and all the rest
against float64 with these factors.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._numba import math as kernel_math
from longstate.ops._numba.compiled import FAST
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import Call, narrow


@njit(fastmath=FAST, error_model="numpy")
def powers(x, y, out):
    for i in range(x.shape[0]):
        out[i] = kernel_math.exp2_product(x[i], y[i])


@njit(fastmath=FAST, error_model="numpy")
def smooth(x, out):
    for i in range(x.shape[0]):
        out[i] = kernel_math.softplus(x[i])


def factors(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Steps (b, t, d) and decays (b, t, d, n) over exact ones, each within the usual budget."""
    dt, A = narrow(tensors["dt"]), narrow(tensors["A"])
    dt = dt + narrow(tensors["dt_bias"])
    exact_steps, steps = F.softplus(dt.double()), torch.empty_like(dt)
    smooth(dt.numpy().reshape(-1), steps.view(-1).numpy())
    assert_within_reference_error(steps, exact_steps, F.softplus(dt))
    shape = (*steps.shape, A.shape[1])
    left, rates = (x.expand(shape).contiguous() for x in (steps[..., None], A / np.log(2)))
    exact, decays = torch.exp(steps.double()[..., None] * A.double()), torch.empty(shape)
    powers(left.view(-1).numpy(), rates.view(-1).numpy(), decays.view(-1).numpy())
    one, plain = torch.ones_like(exact), torch.exp(steps[..., None] * A)
    normal = exact > torch.finfo(torch.float32).tiny
    ratio, plain_ratio = (torch.where(normal, x.double() / exact, one) for x in (decays, plain))
    assert_within_reference_error(ratio.float(), one, plain_ratio.float())
    return steps.double() / exact_steps, ratio


def exact_call(tensors: dict[str, Tensor]) -> Call:
    """The equation in float64, in which steps and decays are off by these factors."""
    of_steps, of_decays = factors(tensors)

    def call(impl, u, dt, A, B, C, D, z, h0, dt_bias, mask):
        h, outputs = h0, []
        for i in range(u.shape[1]):
            here = mask[:, i, None, None]
            step = (F.softplus(dt[:, i] + dt_bias) * of_steps[:, i])[..., None]
            decayed = torch.exp(step * A) * of_decays[:, i] * h
            following = decayed + step * u[:, i, :, None] * B[:, i, None]
            y = ((following * C[:, i, None]).sum(-1) + D * u[:, i]) * F.silu(z[:, i])
            outputs.append(torch.where(here[..., 0], y, 0))
            h = torch.where(here, following, h)
        return torch.stack(outputs, 1), h

    return call
