"""A stack that runs in segments gives the outputs and gradients of the whole sequence."""

import copy

import pytest
import torch
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves

from longstate.errors import InputError
from longstate.layers import S4D, S5, Attention, LinOSS, Mamba
from longstate.models import LanguageModel, LanguageSpec, Stack, _stack

TIME = 41


def hybrid(**options):
    torch.manual_seed(0)
    mixers = [Mamba(6, d_state=3), S4D(6, d_state=4), LinOSS(6, d_state=4)]
    return Stack(mixers, **options).double()


def results(model, u, **options):
    """Outputs, states, and gradients of input and parameters."""
    model.zero_grad()
    u = u.clone().requires_grad_()
    y, state = model(u, **options)
    loss = (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum()
    loss = loss + sum(s.abs().square().sum() for s in tree_leaves(state))
    loss.backward()
    return y, state, u.grad, [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("segment", [1, 7, 40, 41, 100])
def test_segments_are_the_whole(segment):
    u = torch.randn(2, TIME, 6).double()
    mask, reset = torch.rand(2, TIME) > 0.3, torch.rand(2, TIME) > 0.9
    whole, parts = hybrid(), hybrid(segment=segment)
    assert_close(results(parts, u), results(whole, u))
    both = {"mask": mask, "reset": reset}
    assert_close(results(parts, u, **both), results(whole, u, **both))


def test_segments_take_irregular_time_and_a_state():
    u, dt = torch.randn(2, TIME, 5).double(), torch.rand(2, TIME).double() + 0.1
    mixers = [S5(5, d_state=4), LinOSS(5, d_state=3)]
    whole = Stack(copy.deepcopy(mixers)).double()
    parts = Stack(mixers, segment=9).double()
    parts.load_state_dict(whole.state_dict())
    state = whole(u)[1]
    options = {"dt": dt, "rate": 1.5, "state": [s.detach() for s in state]}
    assert_close(results(parts, u, **options), results(whole, u, **options))


def test_segments_of_a_model_with_attention():
    model = Stack([Mamba(6, d_state=3), Attention(6, n_heads=1)]).double()
    u = torch.randn(2, TIME, 6).double()
    expected = results(model, u)
    model.segment = 13
    assert_close(results(model, u), expected)


def test_segments_of_a_language_model():
    torch.manual_seed(0)
    model = LanguageModel(LanguageSpec(vocab_size=11, d_model=6, layers=("mamba", "s4d"))).double()
    tokens = torch.randint(11, (2, TIME))
    expected = model(tokens)
    model.segment = 8
    assert_close(model(tokens), expected)


def test_dropout_is_drawn_once_for_both_runs_of_a_segment(monkeypatch):
    """The gradients are exactly those of the same segments without recomputation."""
    u = torch.randn(2, TIME, 6).double()
    model = hybrid(segment=10, dropout=0.5)
    torch.manual_seed(3)
    recomputed = results(model, u)
    after = torch.get_rng_state()
    monkeypatch.setattr(_stack, "checkpoint", lambda f, *a, use_reentrant: f(*a))
    torch.manual_seed(3)
    assert_close(recomputed, results(model, u), rtol=0, atol=0)
    assert torch.equal(after, torch.get_rng_state())


def stored(model, time):
    """Bytes that are kept for the backward pass, each storage once."""
    seen = {}

    def pack(x):
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes(), x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y, _ = model(torch.randn(1, time, 6).double())
    return sum(size for size, _ in seen.values()) + 0 * float(y.sum().detach())


def test_segments_store_their_outputs_and_states_only():
    model = hybrid(segment=32)
    assert stored(model, 2048) - stored(model, 1024) <= 1024 * 6 * 8
    model.segment = None
    assert stored(model, 2048) - stored(model, 1024) > 10 * 1024 * 6 * 8


def test_segments_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="segment must be at least 1 sample, or None; got 0"):
        hybrid(segment=0)
    with pytest.raises(InputError, match="segment needs layers in one direction"):
        Stack([S4D(4, bidirectional=True)], segment=8)
    model = hybrid()
    model.segment = -1
    with pytest.raises(InputError, match="segment must be at least 1 sample, or None; got -1"):
        model(torch.zeros(1, 3, 6).double())
