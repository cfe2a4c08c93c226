"""Inputs and calls that the tests of the S4 kernels share."""

import pytest
import torch

from longstate.ops.ssm_kernel import cauchy, moments, vandermonde
from tests.ops.helpers import (
    randn,
    uniform,
)

C128 = torch.complex128


def bases(*shape):
    """In and on the unit circle, with zeros, ones and negative numbers among them."""
    a = torch.polar(uniform(*shape, low=0.5, seed=1), uniform(*shape, low=-3, high=3, seed=2))
    a = a.clone()
    a[..., 0::7] = 0
    a[..., 1::7] = 1
    a[..., 2::7] = -0.9
    a[..., 3::7] = torch.polar(torch.ones(()), torch.tensor(2.0))
    return a


def points(f):
    """On the imaginary axis, as in S4; the poles are at its left."""
    return torch.complex(torch.zeros(f, dtype=torch.float64), 5 * randn(f, seed=4))


def poles(*shape):
    return torch.complex(-uniform(*shape, low=0.01, seed=5), 5 * randn(*shape, seed=6))


class Vandermonde:
    def __init__(self, length):
        self.length = length

    def __call__(self, impl, w, a):
        return (vandermonde(w, a, self.length, impl=impl),)


def call_moments(impl, u, a):
    return (moments(u, a, impl=impl),)


class Cauchy:
    """Holds the points, which are a constant; in the precision of the other arguments."""

    def __init__(self, f):
        self.z = points(f)

    def __call__(self, impl, v, poles):
        return (cauchy(v, self.z.to(poles), poles, impl=impl),)


def case(kind, t, r=3, n=9, batch=()):
    """A call and its tensors. `batch`: leading axes that do not vary the bases."""
    if kind == "vandermonde":
        return Vandermonde(t), {"w": randn(*batch, r, n, dtype=C128), "a": bases(r, n)}
    if kind == "moments":
        return call_moments, {"u": randn(*batch, r, t), "a": bases(r, n)}
    return Cauchy(t), {"v": randn(*batch, r, 4, n, dtype=C128), "poles": poles(r, n)}


every_sum = pytest.mark.parametrize("kind", ["vandermonde", "moments", "cauchy"])
