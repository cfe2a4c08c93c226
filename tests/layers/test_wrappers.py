"""What holds for every layer around another one."""

import pytest
import torch

from longstate.layers import SMR, Attention, Spiking, Timed

WRAPPERS = {
    "smr": lambda layer: SMR(layer),
    "spiking": lambda layer: Spiking(layer),
    "timed": lambda layer: Timed(layer, step="constant"),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_around_attention_the_state_grows_and_goes_on(name):
    torch.manual_seed(0)
    layer = WRAPPERS[name](Attention(8, n_heads=2)).double().eval()
    u = torch.randn(2, 9, 8).double()
    whole, _ = layer(u)
    first, state = layer(u[:, :4])
    second, _ = layer(u[:, 4:], state)
    assert layer.grows
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
