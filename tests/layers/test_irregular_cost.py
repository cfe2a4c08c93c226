"""Irregular time needs no more memory than regular time. Its speed: benchmarks/lti_speed.py."""

import sys

import pytest

from benchmarks.measure import peak_mib

CODE = """
import torch
from longstate.layers import S5, LinOSS
torch.manual_seed(0)
layer = {layer}(32, d_state=64)
def prepare(small):
    b, t = (2, 16) if small else (8, 4096)
    return torch.randn(b, t, 32, requires_grad=True), torch.rand(b, t) + 0.5
def work(data):
    u, dt = data
    layer(u, dt=dt if {irregular} else None)[0].square().sum().backward()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.parametrize("layer", ["S5", "LinOSS"])
def test_irregular_time_costs_no_memory(layer):
    regular = peak_mib(CODE.format(layer=layer, irregular=False))
    irregular = peak_mib(CODE.format(layer=layer, irregular=True))
    assert regular > 20  # MiB; the states alone are 8 or 16
    assert irregular < 1.2 * regular
