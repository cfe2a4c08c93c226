"""Rows of a state: copies of exactly the requested rows, without shared memory."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.layers import S4D, S5, Mamba
from longstate.stream import fork, join, select
from tests.layers.test_contract import LAYERS
from tests.stream.helpers import Odd, TokenModel, assert_same, backbone, tensors, values

MODULES = {"odd": Odd, "tokens": TokenModel, "backbone": backbone, "mamba": lambda: Mamba(6)}


@pytest.fixture(params=MODULES)
def state(request):
    return values(MODULES[request.param](), 4)


def test_identities(state):
    alone = [select(state, [row]) for row in range(4)]
    assert_same(join(alone), state)
    assert_same(select(join([alone[2], state]), [1, 2, 3, 4]), state)
    assert_same(fork(state, 2), select(state, [0, 0, 1, 1, 2, 2, 3, 3]))
    assert_same(fork(state, 1), state)
    assert_same(select(select(state, [3, 1]), [1, 0]), select(state, [1, 3]))
    assert_same(select(state, [-1]), alone[3])
    assert_same(join([select(state, []), state]), state)
    assert_same(select(select(state, []), []), select(state, []))


def test_rows_are_numbers_or_flags(state):
    expected = select(state, [0, 2])
    flags = [True, False, True, False]
    for rows in (torch.tensor([0, 2]), np.array([0, 2]), (0, 2), range(0, 4, 2), flags):
        assert_same(select(state, rows), expected)
    assert_same(select(state, torch.tensor(flags)), expected)
    assert all(len(t) == 0 for t in tensors(select(state, [False] * 4)))


def test_results_share_no_memory(state):
    before = [t.clone() for t in tensors(state)]
    for copy in (fork(state, 1), select(state, range(4)), join([state])):
        for t in tensors(copy):
            t.zero_()
        assert_same(tensors(state), before)
    forked = fork(state, 2)
    for t in tensors(forked):
        t[0] = 0
    assert_same(select(forked, [1]), select(state, [0]))


@pytest.mark.parametrize("name", LAYERS)
def test_forked_rows_continue_like_single_ones(name):
    layer = LAYERS[name]().double()
    u = torch.randn(2, 5, layer.d_model, dtype=torch.float64)
    tails = torch.randn(4, 6, layer.d_model, dtype=torch.float64)
    _, state = layer(u)
    y, _ = layer(tails, fork(state, 2))
    for row, tail in enumerate(tails):
        alone, _ = layer(torch.cat((u[row // 2], tail))[None])
        assert_close(y[row], alone[0, 5:])


def test_gradients_flow():
    state = torch.ones(3, 2, requires_grad=True)
    (fork(select(state, [0, 2]), 3).sum() + 5 * join([state, state]).sum()).backward()
    assert_same(state.grad, torch.tensor([[13.0, 13], [10, 10], [13, 13]]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([4], r"rows must be below the batch of 4; got \[4\]"),
        ([-5, 1], r"rows must be below the batch of 4; got \[-5, 1\]"),
        ([0.5], "rows must be a list of row numbers or 4 bools; got torch.float32"),
        ([True, False], r"4 bools; got torch.bool of shape \(2,\)"),
        ([[0]], r"4 bools; got torch.int64 of shape \(1, 1\)"),
        (0, r"4 bools; got torch.int64 of shape \(\)"),
        ("first", "4 bools; got 'first'"),
    ],
)
def test_missing_rows_are_refused(rows, message, state):
    with pytest.raises(InputError, match=message):
        select(state, rows)


def test_what_cannot_be_forked_or_joined():
    state = values(S4D(3, d_state=4))
    with pytest.raises(InputError, match="n, the number of copies, must be at least 1; got 0"):
        fork(state, 0)
    with pytest.raises(InputError, match=r"agree on the batch; got \[1, 2\]"):
        fork([torch.ones(1), torch.ones(2)], 2)
    with pytest.raises(InputError, match="join needs at least one state; got none"):
        join([])
    other = values(S5(3, d_state=4))
    with pytest.raises(InputError, match="states 0 and 2 cannot be joined"):
        join([state, state, other])
    with pytest.raises(InputError, match="states 0 and 1 cannot be joined"):
        join([state, state.to(torch.complex128)])
