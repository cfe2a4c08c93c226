"""chunk_scan in Triton: under its interpreter, compiled for a GPU that is not here, and on one."""

import importlib

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from longstate.ops.chunk_scan import chunk_scan
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import LENGTHS, Call, assert_bitwise, randn, results, run_python
from tests.ops.test_chunk_scan import assert_within_dual_budget, call, case, flags, quadratic

MODULE = importlib.import_module("longstate.ops.chunk_scan")
ROUNDED = ("x", "B", "C", "D")  # the others decide the state, and stay in float32


def small(t: int, *, h: int = 2, g: int = 1, p: int = 2, n: int = 3, b: int = 1):
    return case(t, b=b, h=h, g=g, p=p, n=n)


def projected(t: int) -> dict[str, Tensor]:
    """x, B and C as parts of one projection, as in Mamba-2."""
    v = small(t, b=2)
    sizes = {name: v[name].flatten(2).shape[2] for name in ("x", "B", "C")}
    whole = torch.cat([v[name].flatten(2) for name in sizes], dim=2)
    parts = whole.split(list(sizes.values()), dim=2)
    return v | {k: part.unflatten(2, v[k].shape[2:]) for k, part in zip(sizes, parts, strict=True)}


def plainly(impl: str, x: Tensor, **tensors: Tensor) -> tuple[Tensor, Tensor]:
    """The dual form by products in float32."""
    y, last = quadratic(x.float(), **{k: v.float() for k, v in tensors.items()})
    return y.to(x.dtype), last


def found_by(call: Call, impl: str, tensors: dict[str, Tensor], narrow: torch.dtype):
    """Outputs and gradients, from cotangents that `narrow` has exactly."""
    inputs = {k: x.detach().requires_grad_() for k, x in tensors.items()}
    outputs = dict(zip(("y", "last"), call(impl, **inputs), strict=True))
    cotangents = [randn(*y.shape, seed=7).to(narrow).to(y) for y in outputs.values()]
    grads = torch.autograd.grad(list(outputs.values()), list(inputs.values()), cotangents)
    return outputs | {f"gradient of {k}": g for k, g in zip(inputs, grads, strict=True)}


def assert_narrow_inputs_lose_nothing(tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    """What is float32, states and gradients of decays and weights, is as good as in float32."""
    low = {k: x.to(dtype) if k in ROUNDED else x.float() for k, x in tensors.items()}
    exact = found_by(call, "reference", {k: x.double() for k, x in low.items()}, dtype)
    plain, found = found_by(plainly, "", low, dtype), found_by(call, "triton", low, dtype)
    for name in exact:
        try:
            assert_within_reference_error(found[name], exact[name], plain[name])
        except AssertionError as error:
            raise AssertionError(f"{dtype}, {name}: {error}") from None


def test_auto_is_triton_on_a_gpu():
    """Only the choice, and the shapes that a compiler sees: a fake tensor is on any device."""
    with FakeTensorMode():
        low = {k: torch.empty(x.shape, device="cuda") for k, x in small(70).items()}
        wide = {k: x.double() for k, x in low.items()}
        assert MODULE._choose("auto", low["x"], torch.float32) == "triton"
        assert MODULE._choose("auto", wide["x"], torch.float64) == "chunks"
        y, last = chunk_scan(**low)
    assert y.shape == low["x"].shape
    assert last.shape == low["h0"].shape


def test_a_named_implementation_never_falls_back(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="impl='triton'"):
        call("triton", **small(4))


# float64 has chunks of 32 samples and tiles of 32; with 16, short sequences have several chunks.
INTERPRETED = """
import torch
from tests.ops.helpers import assert_equals_reference, strided
from tests.ops.test_chunk_scan import ORDER, PLAIN, at_times, call, flags
from tests.ops.test_chunk_scan_triton import MODULE, projected, small
torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
MODULE.CHUNK = 16
assert_equals_reference(call, "triton", small(1) | {"h0": None})
assert_equals_reference(call, "triton", small(16, g=2) | PLAIN)
assert_equals_reference(call, "triton", small(33, h=4, g=2, b=2) | flags(2, 33))
assert_equals_reference(call, "triton", small(17, h=1, p=35, n=37))
assert_equals_reference(call, "triton", small(2, h=9))
v = projected(18)
assert not v["x"].is_contiguous()
assert_equals_reference(call, "triton", v)
assert_equals_reference(call, "triton", {k: strided(x) for k, x in small(5, g=2).items()})
assert_equals_reference(call, "triton", at_times(small(3, b=2, h=1), slice(2)))
inputs = [small(17)[k].requires_grad_() for k in ORDER]
torch.library.opcheck(torch.ops.longstate.chunk_scan, (*inputs, 16, True, "triton"))
print("same")
"""

DECAYS = """
import torch
from torch.testing import assert_close
from tests.ops.helpers import results
from tests.ops.test_chunk_scan import call
from tests.ops.test_chunk_scan_triton import small
v = small(70)
v["log_a"][:, ::7] = -1e3
v["log_a"][:, 20:30] = -1e4
v["log_a"][:, 31:50] = -1e-3
v["log_a"][:, 55] = 0.0
v["log_a"][:, [3, 32, 60]] = -torch.inf
found = results(call, "triton", v)
# the loop's own gradient is not a number there: exp is 0 and its logarithm infinite
loop = results(call, "reference", v | {"log_a": v["log_a"].clamp(min=-2e3)})
for name, value in loop.items():
    assert_close(found[name], value, msg=name)
print("same")
"""

# Triton's interpreter multiplies the bits of bfloat16 numbers, and loses a carry when it rounds.
NARROW = """
import numpy as np, torch, triton.language as tl
from triton.runtime import interpreter
multiply, convert = interpreter.InterpreterBuilder.create_dot, interpreter._convert_float

def through_torch(data, source, target, rounding):
    if target == tl.bfloat16:
        return torch.from_numpy(data).bfloat16().view(torch.int16).numpy().view(np.uint16)
    if source == tl.bfloat16:
        wide = torch.from_numpy(data.view(np.int16)).view(torch.bfloat16).float()
        return wide.numpy().view(np.uint32)
    return convert(data, source, target, rounding)

def widened(x):
    if x.dtype != tl.bfloat16:
        return x
    data = through_torch(x.data, tl.bfloat16, tl.float32, None).view(np.float32)
    return interpreter.TensorHandle(data, tl.float32)

interpreter._convert_float = through_torch
interpreter.InterpreterBuilder.create_dot = lambda self, a, b, *rest: multiply(
    self, widened(a), widened(b), *rest
)
from tests.ops.test_chunk_scan_triton import assert_narrow_inputs_lose_nothing, small
from tests.ops.test_chunk_scan import assert_within_dual_budget
for dtype in (torch.bfloat16, torch.float16):
    assert_narrow_inputs_lose_nothing(small(70, p=20, n=40), dtype)
assert_within_dual_budget(small(70, p=20, n=40), "triton")
print("same")
"""


@pytest.mark.parametrize("code", [INTERPRETED, DECAYS, NARROW], ids=["any", "decays", "narrow"])
def test_triton_under_its_interpreter(code):
    pytest.importorskip("triton")
    assert run_python(code, TRITON_INTERPRET="1").strip() == "same"


def on_gpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: x.cuda() for k, x in tensors.items()}


gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


class TestOnAGPU:
    pytestmark = gpu

    @pytest.mark.parametrize("t", LENGTHS)
    @pytest.mark.parametrize("g", [1, 4])
    def test_is_the_recurrence(self, t, g):
        tensors = case(t, g=g, p=70, n=40) | flags(2, t)
        expected, found = (
            results(call, "reference", tensors),
            results(call, "triton", on_gpu(tensors)),
        )
        for name, value in expected.items():
            assert_close(found[name].cpu(), value, msg=lambda text, name=name: f"{name}: {text}")

    @pytest.mark.parametrize("sizes", [{"p": 64, "n": 128, "h": 9, "g": 1}, {"p": 128, "n": 256}])
    def test_precisions(self, sizes):
        tensors = on_gpu(case(130, **sizes))
        assert_within_dual_budget(tensors, "triton")
        for dtype in (torch.bfloat16, torch.float16):
            assert_narrow_inputs_lose_nothing(tensors, dtype)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_auto_is_triton_and_deterministic(self, dtype):
        tensors = on_gpu(case(300, h=18, g=2, p=64, n=128))
        tensors = {k: x.to(dtype) if k in ROUNDED else x.float() for k, x in tensors.items()}
        expected = results(call, "triton", tensors)
        for impl in ("triton", "auto"):
            assert_bitwise(results(call, impl, tensors), expected)
