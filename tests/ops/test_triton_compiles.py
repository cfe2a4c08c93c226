"""Every Triton kernel compiles for a GPU that is not here.

The interpreter knows no types that change in a loop, no layouts and no limits of memory.
"""

import pytest

from longstate.ops import _choice
from tests.ops.helpers import run_python

COMPILED = """
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

class Absent:
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)

driver.set_active(Absent())
run, kernels = JITFunction.run, {}

def compile_only(self, *args, grid, warmup, **options):
    kernel = run(self, *args, grid=grid, warmup=True, **options)
    kernels[self.fn.__module__, self.fn.__name__, kernel.hash] = kernel

JITFunction.run = compile_only
from longstate.ops import _choice
_choice._interpreting = lambda: True  # so that tensors of the CPU reach the kernels

from tests.ops.helpers import narrow
from tests.ops import (
    test_chunk_scan as chunk, test_diagonal_scan as diagonal, test_longhorn_scan as longhorn,
    test_oscillator_scan as oscillator, test_selective_scan as selective,
    test_short_conv as conv, test_zoh_scan as zoh,
)
from tests.ops.test_chunk_scan_triton import ROUNDED

def compile_(call, tensors):
    before = len(kernels)
    tensors = {k: narrow(x) for k, x in tensors.items() if x is not None}
    for x in tensors.values():
        x.requires_grad_(x.is_floating_point() or x.is_complex())
    outputs = call("triton", **tensors)
    sum(y.real.sum() for y in outputs).backward()
    assert len(kernels) > before

"""

CASES = {
    "diagonal": """
for dtype in (torch.float64, torch.complex128):
    for varying in (True, False):
        case = diagonal.inputs(b=2, t=4, n=35, dtype=dtype, varying=varying, reset=True)
        compile_(diagonal.call, case)
        compile_(diagonal.call, case | {"h0": None, "reset": None})
""",
    "zoh": """
case = zoh.inputs(b=2, t=35, n=3, reset=True)
compile_(zoh.call, case)
compile_(zoh.call, case | {"h0": None, "reset": None})
""",
    "oscillator": """
for rule in ("im", "imex"):
    case = oscillator.inputs(b=2, t=35, n=3, form="from u", reset=True)
    compile_(oscillator.with_rule(rule), case)
    compile_(oscillator.with_rule(rule), case | {"h0": None, "dt": None, "reset": None})
""",
    "selective": """
for case in ({"t": 35, "d": 3, "n": 16}, {"t": 1, "d": 6, "n": 2, "groups": 2}):
    compile_(selective.call, selective.inputs(b=2, **case))
plain = selective.inputs(b=1, t=3, d=2, n=1, without=selective.OPTIONAL)
compile_(selective.plain_step, plain)
""",
    "longhorn": """
for call in (longhorn.diagonal, longhorn.exact):
    compile_(call, longhorn.inputs(b=2, t=35, d=3, n=16))
plain = longhorn.inputs(b=1, t=3, d=2, n=1, without=longhorn.OPTIONAL)
compile_(longhorn.plain_weight, plain)
""",
    "conv": """
compile_(conv.call, conv.inputs(t=5, d=35, mask=True, reset=True))
compile_(conv.without_activation, conv.inputs(t=3, d=3, k=2, bias=False, taps=False))
""",
    "chunk": """
case = chunk.case(64, b=1, h=16, g=1, p=64, n=128)
compile_(chunk.call, {k: x.bfloat16() if k in ROUNDED else x for k, x in case.items()})
compile_(chunk.call, chunk.case(33, b=2, h=4, g=2, p=2, n=3))
""",
}


@pytest.mark.parametrize("name", CASES)
def test_kernels_compile_for_a_gpu(name, tmp_path):
    """And a program needs no more shared memory than the smallest of recent GPUs give it."""
    triton = pytest.importorskip("triton")
    if "nvidia" not in triton.backends.backends:
        pytest.skip("this triton has no NVIDIA backend")
    largest = run_python(
        COMPILED + CASES[name] + "print(max(k.metadata.shared for k in kernels.values()))",
        TRITON_INTERPRET="0",
        TRITON_CACHE_DIR=str(tmp_path),
    )
    assert int(largest) <= 99 * 1024


@pytest.mark.parametrize(("found", "enough"), [("3.2.0", False), ("3.3.1", True), ("4.0", True)])
def test_an_old_triton_is_not_used(found, enough, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(_choice, "version", lambda package: found)
    assert _choice.has_triton.__wrapped__() is enough
