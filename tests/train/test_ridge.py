"""Ridge: what one fit says of leaving a case out, against leaving it out."""

import pytest
import torch
from torch import Tensor

from longstate.train._ridge import ridge


def solved_without(i: int, x: Tensor, y: Tensor, w: Tensor, penalty: float) -> Tensor:
    keep = torch.arange(len(x)) != i
    own = (w * len(w) / w.sum())[keep]
    mean_x = (own[:, None] * x[keep]).sum(0) / own.sum()
    mean_y = (own[:, None] * y[keep]).sum(0) / own.sum()
    a, b = x[keep] - mean_x, y[keep] - mean_y
    A = a.T @ (own[:, None] * a) + penalty * len(x) * torch.eye(x.shape[1]).double()
    return mean_y + (x[i] - mean_x) @ torch.linalg.solve(A, a.T @ (own[:, None] * b))


@pytest.mark.parametrize("p", [4, 30])
def test_left_out_is_the_prediction_without_the_case(p):
    torch.manual_seed(1)
    x, w = torch.randn(12, p).double(), torch.rand(12).double() + 0.5
    y = x[:, :2] + 0.3 * torch.randn(12, 2).double()
    found = ridge(x, y, w)
    for i in (0, 5, 11):
        torch.testing.assert_close(found.left_out[i], solved_without(i, x, y, w, found.penalty))


def test_noise_gets_a_larger_penalty_than_a_clear_relation():
    torch.manual_seed(2)
    x = torch.randn(40, 5)
    assert ridge(x, torch.randn(40, 1)).penalty > ridge(x, x[:, :1] * 2 + 1).penalty
