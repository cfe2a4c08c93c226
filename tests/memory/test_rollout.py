"""Relevance of inputs: values by hand, causality, and inputs whose removal changes the output."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.layers import S4D, S5, Mamba
from longstate.memory import hidden_attention, record, rollout
from longstate.memory._attention import HiddenAttention
from longstate.models import Stack


def of(weights):
    return HiddenAttention(kind="exact", scope="this data", sentence="given", weights=weights)


def test_values_by_hand():
    one = of(torch.tensor([[[[2.0, 0.0], [-1.0, 0.0]], [[0.0, 0.0], [4.0, 0.0]]]]))
    # |weights| / 4, mean of both channels, + I: [[1.25, 0], [0.625, 1]]
    found = one.rollout()
    expected = torch.tensor([[[1.0, 0.0], [0.625 / 1.625, 1 / 1.625]]], dtype=torch.float64)
    assert_close(found.relevance, expected)
    twice = rollout([one, one])
    assert_close(twice.relevance, expected @ expected)
    assert found.kind == "heuristic"
    assert found.most(1).tolist() == [[1]]
    assert "input at 1 " in found.sentence


def test_rows_sum_to_one_and_no_output_depends_on_a_later_input():
    torch.manual_seed(0)
    model = Stack([Mamba(8, d_state=4), Mamba(8, d_state=4)])
    traces = record(model, torch.randn(2, 12, 8)).values()
    found = rollout([hidden_attention(t, conv=True, gate=True) for t in traces])
    assert found.relevance.shape == (2, 12, 12)
    assert_close(found.relevance.sum(-1), torch.ones(2, 12, dtype=torch.float64))
    assert bool((found.relevance.triu(1) == 0).all())


@pytest.mark.parametrize("layer", [S4D(6, d_state=8), S5(6, d_state=8)])
def test_a_system_joins_layers_on_data(layer):
    trace = record(Mamba(8, d_state=4), torch.randn(3, 10, 8)).popitem()[1]
    with torch.no_grad():
        system = hidden_attention(layer.system(), length=10)
    assert system.rollout().relevance.shape == (1, 10, 10)
    assert system.rollout().scope == "all inputs"
    both = rollout([system, hidden_attention(trace)])
    assert both.relevance.shape == (3, 10, 10)
    assert both.scope == "this data"


class Selection(nn.Module):
    """Reads numbers, one of which is marked; its last output is to be that number."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(2, 16)
        self.stack = Stack([Mamba(16, d_state=4), Mamba(16, d_state=4)], gate="none")
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        return self.head(self.stack(self.embed(x))[0][:, -1])[:, 0]


def marked(count, length, seed):
    g = torch.Generator().manual_seed(seed)
    numbers = torch.randn(count, length, generator=g)
    at = torch.randint(length - 2, (count,), generator=g)
    marks = torch.zeros(count, length).scatter(1, at[:, None], 1.0)
    return torch.stack([numbers, marks], -1), at, numbers.gather(1, at[:, None])[:, 0]


def test_removing_relevant_inputs_changes_the_output():
    """The perturbation test: the most relevant input, set to zero, changes the last output most."""
    torch.manual_seed(0)
    model = Selection()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(150):
        x, _, y = marked(64, 16, step)
        loss = (model(x) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.2  # 1 without memory
    x, at, _ = marked(40, 16, 10_000)
    traces = record(model, x).values()
    relevance = rollout([hidden_attention(t, conv=True, gate=True) for t in traces]).relevance
    order = relevance[:, -1, :-1].argsort(dim=-1, descending=True)  # the last input is always near
    with torch.no_grad():
        whole = model(x)
        change = torch.stack(
            [
                (model(x.scatter(1, s[:, None, None].expand(-1, 1, 2), 0.0)) - whole).abs()
                for s in order.unbind(1)
            ],
            1,
        )
    rank = (order == at[:, None]).int().argmax(1)  # of the marked input, among 15; 7 by chance
    assert float(rank.double().mean()) < 2
    assert float(change[:, 0].mean()) > 5 * float(change[:, 8:].mean())


def test_refuses_what_does_not_belong_together():
    with pytest.raises(InputError, match="at least one layer"):
        rollout([])
    with pytest.raises(InputError, match="must have read the same data"):
        rollout([of(torch.ones(1, 1, 3, 3)), of(torch.ones(1, 1, 4, 4))])
    with pytest.raises(InputError, match="must have read the same data"):
        rollout([of(torch.ones(2, 1, 3, 3)), of(torch.ones(3, 1, 3, 3))])
