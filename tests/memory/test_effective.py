import pytest
import torch

from longstate.layers import Longhorn, Mamba, Mamba2
from longstate.memory import effective_state, hankel, hidden_attention
from longstate.memory._effective import _through
from longstate.systems import DiagonalSystem, Trace

LAYERS = {
    "mamba": lambda: Mamba(4, d_state=3),
    "longhorn, exact": lambda: Longhorn(4, d_state=3, variant="exact"),
    "mamba2": lambda: Mamba2(4, d_state=4, d_head=4),
}


def trace_of(name, length=12):
    torch.manual_seed(0)
    return LAYERS[name]().double().trace(torch.randn(2, length, 4).double()).double()


@pytest.mark.parametrize("name", LAYERS)
def test_is_the_spectrum_of_the_block_from_past_to_future(name):
    """Against the attention matrix itself: rows from i on, columns up to i, skip taken out."""
    trace, i = trace_of(name), 7
    n = trace.decay.shape[-1]
    object.__setattr__(trace, "skip", torch.zeros_like(trace.skip))
    block = hidden_attention(trace).weights[..., i:, : i + 1]
    expected = torch.linalg.svdvals(block)[..., :n]
    given = _through(trace, torch.tensor([i]))[0]
    # squares of them are computed: half of the digits
    scale = expected.amax(-1, keepdim=True)
    torch.testing.assert_close(given / scale, expected / scale)


def test_of_a_linear_system_it_is_the_hankel_spectrum():
    a = torch.tensor([0.5, 0.7, -0.3]).double()
    one = torch.ones(3, 1).double()
    system = DiagonalSystem(a, one, one.mT, torch.zeros(1, 1).double(), discrete=True)
    shape = (1, 201, 1, 3)
    flat, full = torch.ones(shape[:3]).double(), torch.ones(shape).double()
    trace = Trace(
        flat, a.expand(shape), flat, full, full, torch.zeros(1, 1, 3).double(), flat[0, 0, :1]
    )
    given = _through(trace, torch.tensor([100]))[0, 0, 0]
    torch.testing.assert_close(given, hankel(system).values)


def test_sizes_lie_between_one_and_the_state():
    result = effective_state(trace_of("mamba"), positions=5)
    assert result.along.shape == (2, 5)
    assert bool((result.channels >= 1 - 1e-9).all())
    assert bool((result.channels <= 3).all())
    assert 1 <= result.participation <= result.entropy_rank <= result.d_state == 24


def test_a_state_without_input_has_size_zero():
    trace = trace_of("mamba")
    object.__setattr__(trace, "gain", torch.zeros_like(trace.gain))
    result = effective_state(trace)
    assert float(result.along.abs().max()) == 0
