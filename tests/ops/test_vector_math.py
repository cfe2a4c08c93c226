"""exp and its kin against float64; bfloat16 and float16 against PyTorch, bit for bit."""

import numpy as np
import pytest
import torch
from numba import njit

from longstate.ops._numba import math as vm
from longstate.ops._numba import rows
from longstate.ops._numba.compiled import FAST
from longstate.testing import assert_within_reference_error

ROUNDED = {torch.bfloat16: np.uint16, torch.float16: np.int16}
SPECIAL = [0.0, -0.0, float("inf"), -float("inf"), float("nan")]


def over_rows(function):
    @njit(fastmath=FAST, error_model="numpy")
    def run(x, y):
        for j in range(x.shape[0]):
            y[j] = function(x[j])

    return run


@njit
def power_of_e(x):
    return vm.exp2_product(x, np.float32(1.4426950408889634))


@njit
def exp(x):
    return vm.exp(x)


@njit
def softplus(x):
    return vm.softplus(x)


@njit
def sigmoid(x):
    return vm.sigmoid(x)


FUNCTIONS = [
    (exp, torch.exp),
    (softplus, torch.nn.functional.softplus),
    (sigmoid, torch.sigmoid),
]


@pytest.mark.parametrize(("function", "plain"), FUNCTIONS)
def test_relative_error_is_that_of_pytorch(function, plain):
    x = torch.linspace(-80, 80, 200_001)
    found = torch.empty_like(x)
    over_rows(function)(x.numpy(), found.numpy())
    exact = plain(x.double())
    one = torch.ones_like(exact)
    ratio, plain_ratio = found.double() / exact, plain(x).double() / exact
    error, reference = (ratio - one).abs().max(), (plain_ratio - one).abs().max()
    assert error <= 2 * reference + torch.finfo(torch.float32).eps


def test_a_product_is_not_rounded_before_it_is_a_power():
    x = torch.linspace(-80, 80, 200_001)
    found = torch.empty_like(x)
    over_rows(power_of_e)(x.numpy(), found.numpy())
    scale = float(np.float32(1.4426950408889634))
    exact = torch.exp2(x.double() * scale)
    plain = torch.exp2(x * scale)  # rounds the product
    assert_within_reference_error(
        (found / exact).float(), torch.ones_like(exact), (plain / exact).float()
    )
    assert (found / exact - 1).abs().max() < (plain / exact - 1).abs().max()


@pytest.mark.parametrize(("function", "plain"), FUNCTIONS)
def test_limits(function, plain):
    x = torch.tensor([*SPECIAL, 200.0, -200.0, 1e-30])
    found = torch.empty_like(x)
    over_rows(function)(x.numpy(), found.numpy())
    torch.testing.assert_close(found, plain(x), equal_nan=True)


def test_zero_time_has_no_decay():
    found = torch.empty(2)
    over_rows(exp)(np.float32([0.0, -0.0]), found.numpy())
    assert found.tolist() == [1.0, 1.0]


@njit
def widen(row, out):
    for j in range(row.shape[0]):
        out[j] = rows.load(row, j)


@njit
def narrow(values, row):
    for j in range(row.shape[0]):
        rows.store(row, j, values[j])


@pytest.mark.parametrize("dtype", ROUNDED)
def test_every_short_number_is_read_as_pytorch_reads_it(dtype):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    found = torch.empty(len(bits))
    widen(bits.numpy().view(ROUNDED[dtype]), found.numpy())
    expected = bits.view(dtype).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", ROUNDED)
def test_numbers_are_rounded_as_pytorch_rounds_them(dtype):
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(-(2**31), 2**31, (200_000,), generator=generator).int()
    ties = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).float() * (1 + 2**-12)
    spread = torch.randn(200_000, generator=generator) * 10 ** torch.linspace(-9, 6, 200_000)
    edges = torch.tensor([65504.0, 65519.9, 65520.0, 65536.0, 2**-14, 2**-24, 2**-25, 3 * 2**-26])
    x = torch.cat([whole.view(torch.float32), ties, spread, edges, torch.tensor(SPECIAL)])
    found = np.empty(len(x), ROUNDED[dtype])
    narrow(x.numpy(), found)
    rounded = torch.from_numpy(found.view(np.int16)).view(dtype)
    torch.testing.assert_close(rounded, x.to(dtype), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(rounded.isnan(), x.isnan())
