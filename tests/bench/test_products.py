"""The count of matrix products against PyTorch's count, and formulas against executed products."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from longstate.bench._products import ProductCounter
from longstate.layers import Longhorn, Mamba, Mamba2
from longstate.ops import chunk_scan, oscillator_scan, zoh_scan
from longstate.ops.chunk_scan import chunks
from tests.ops.helpers import randn


def count(call):
    with ProductCounter() as counter:
        call()
    return {dtype: n for dtype, n in counter.operations.items() if n}


def both_ways(call, leaves):
    return torch.autograd.grad(call().sum(), leaves)


def test_counts_equal_those_of_pytorch():
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    u = torch.randn(2, 11, 5)

    def call():
        both_ways(lambda: torch.einsum("btd,bsd->bts", net(u), net(u)), list(net.parameters()))

    with FlopCounterMode(display=False) as theirs:
        call()
    assert count(call) == {torch.float32: theirs.get_total_flops()}


def test_types_are_counted_separately_and_complex_numbers_as_real():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    assert count(lambda: (a @ b, a.double() @ b.double())) == {
        torch.float32: 2 * 3 * 4 * 5,
        torch.float64: 2 * 3 * 4 * 5,
    }
    assert count(lambda: a.cfloat() @ b.cfloat()) == {torch.float32: 8 * 3 * 4 * 5}
    assert count(lambda: a.bfloat16() @ b.bfloat16()) == {torch.bfloat16: 2 * 3 * 4 * 5}


@pytest.mark.parametrize(("t", "groups"), [(128, 1), (192, 2)])
def test_chunk_scan_counts_the_products_of_its_chunks(t, groups):
    b, h, p, n, k = 2, 4, 3, 5, 64
    small = [torch.rand(b, t, h) for _ in range(3)]
    tensors = [
        torch.randn(b, t, h, p), -small[0], *small[1:], torch.randn(b, t, groups, n),
        torch.randn(b, t, groups, n), torch.randn(h), torch.randn(b, h, p, n),
    ]  # fmt: skip
    for x in tensors:
        x.requires_grad_()
    x, log_a, weight, own, B, C, D, h0 = tensors

    def scan():
        return chunk_scan(x, log_a, B, C, h0, weight=weight, own=own, D=D)[0]

    with torch.no_grad():
        found = count(scan)
        _, _, states = chunks.forward(*tensors, k, True)
        inside = count(lambda: chunks.forward(*tensors, k, False))
        backwards = count(lambda: chunks.backward(*tensors[:7], states, torch.randn_like(x), h0, k))
    assert found == inside
    again = 2 * b * t * groups * k * n  # C B^T
    assert backwards[torch.float32] - again == 2 * found[torch.float32]
    assert count(lambda: both_ways(scan, tensors)) == {torch.float32: 3 * found[torch.float32]}


@pytest.mark.parametrize("drive", ["complex", "real", "none"])
def test_scans_with_a_drive_count_its_products(drive):
    b, t, d, n = 2, 9, 3, 5
    A = randn(n, dtype=torch.float32).abs().requires_grad_()
    u = randn(b, t, n if drive == "none" else d, dtype=torch.float32).requires_grad_()
    B = randn(n, d, dtype=torch.complex64 if drive == "complex" else torch.float32)
    B = None if drive == "none" else B.requires_grad_()
    leaves = [x for x in (A, u, B) if x is not None]

    def call(impl):
        return lambda: both_ways(lambda: oscillator_scan(u, A, B=B, impl=impl)[0].real, leaves)

    assert count(call("cpu")) == count(call("reference"))
    assert bool(count(call("cpu"))) == (drive != "none")


def test_zoh_scan_counts_its_drive():
    A = -torch.rand(5) + 1j * torch.rand(5)
    u, dt, B = torch.randn(2, 9, 3), torch.rand(2, 9), torch.randn(5, 3, dtype=torch.complex64)
    leaves = [x.requires_grad_() for x in (A, u, B)]

    def call(impl):
        return lambda: both_ways(lambda: zoh_scan(u, A, dt, B=B, impl=impl)[0].real, leaves)

    assert count(call("cpu")) == count(call("reference")) == {torch.float32: 3 * 4 * 18 * 3 * 5}


@pytest.mark.parametrize("make", [Mamba, Longhorn])
def test_a_mamba_block_counts_four_projections(make):
    layer, b, t, d = make(32), 2, 40, 32
    r, n = layer.rank, layer.d_state
    macs = d * 4 * d + 2 * d * (r + 2 * n) + r * 2 * d + 2 * d * d
    u = torch.randn(b, t, d, requires_grad=True)
    with torch.no_grad():
        assert count(lambda: layer(u)) == {torch.float32: 2 * b * t * macs}
    found = count(lambda: both_ways(lambda: layer(u)[0], [u, *layer.parameters()]))
    assert found == {torch.float32: 6 * b * t * macs}


def test_mamba2_counts_projections_and_chunks():
    layer, t = Mamba2(32, d_state=16, d_head=32), 128
    h, p, n, k = 2, 32, 16, 64
    macs = 32 * layer.in_proj.out_features + 64 * 32 + k * n + h * k * p + 2 * h * p * n
    with torch.no_grad():
        assert count(lambda: layer(torch.randn(1, t, 32))) == {torch.float32: 2 * t * macs}
