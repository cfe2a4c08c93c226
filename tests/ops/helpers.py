"""What the tests of every op share: run it, compare implementations, stress the threads.

An op under test is a `call(impl, **tensors)` that returns a tuple of tensors.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from longstate.testing import assert_within_reference_error

LENGTHS = (1, 63, 128, 300)
ROOT = Path(__file__).parents[2]

Call = Callable[..., tuple[Tensor, ...]]


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, low: float = 0.0, high: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, dtype=torch.float64, generator=generator)


def strided(x: Tensor) -> Tensor:
    """The same values with unusual strides and, if complex, a lazy conjugation."""
    if x.is_complex():
        x = x.conj().resolve_conj().conj()
    every_other = torch.stack((x, torch.zeros_like(x)), dim=-1)
    if x.is_complex():
        every_other = every_other.resolve_conj().conj().resolve_conj().conj()
    view = every_other[..., 0]
    assert not view.is_contiguous() or view.numel() == 1
    return view


def results(call: Call, impl: str, tensors: dict[str, Tensor | None]) -> dict[str, Tensor]:
    """Outputs, and the gradient of every real or complex input under random cotangents."""
    inputs = {
        name: x.detach().requires_grad_(x.is_floating_point() or x.is_complex())
        for name, x in tensors.items()
        if x is not None
    }
    outputs = call(impl, **inputs)
    found = {f"output {i}": y.detach() for i, y in enumerate(outputs)}
    # The cotangents come from float64 whatever the dtype, so that precisions can be compared.
    loss = sum(
        (y * randn(*y.shape, dtype=_wide(y.dtype), seed=7 + i).to(y)).sum().real
        if y.is_complex()
        else (y * randn(*y.shape, seed=7 + i).to(y)).sum()
        for i, y in enumerate(outputs)
    )
    wanted = {name: x for name, x in inputs.items() if x.requires_grad}
    for name, g in zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True):
        found[f"gradient of {name}"] = g
    return found


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64


def assert_equals_reference(call: Call, impl: str, tensors: dict[str, Tensor | None]) -> None:
    """Outputs and every gradient, at the default tolerance."""
    expected = results(call, "reference", tensors)
    found = results(call, impl, tensors)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, msg=lambda text, name=name: f"{name}: {text}"
        )


def narrow(x: Tensor | None) -> Tensor | None:
    if x is None or x.dtype == torch.bool:
        return x
    return x.to(torch.complex64 if x.is_complex() else torch.float32)


def widen(x: Tensor | None) -> Tensor | None:
    return x if x is None or x.dtype == torch.bool else x.to(_wide(x.dtype))


def assert_within_budget(
    call: Call, impl: str, tensors: dict[str, Tensor | None], exactly: Call | None = None
) -> None:
    """float32: at most twice the error of the reference, plus one rounding; `exactly` gives the
    results in float64, the reference when None."""
    low = {name: narrow(x) for name, x in tensors.items()}
    wide = {name: widen(x) for name, x in low.items()}
    exact = results(call if exactly is None else exactly, "reference", wide)
    plain = results(call, "reference", low)
    found = results(call, impl, low)
    for name in exact:
        try:
            assert_within_reference_error(found[name], exact[name], plain[name])
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def assert_same_where_finite(found: Tensor, expected: Tensor) -> None:
    """Infinities and NaN in the same places, and there are some; elsewhere the same numbers."""
    finite = torch.isfinite(expected)
    assert not finite.all()
    assert torch.equal(torch.isfinite(found), finite)
    torch.testing.assert_close(found[finite], expected[finite])


def assert_bitwise(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=0, equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


def assert_concurrent_calls_agree(call: Call, tensors: dict[str, Tensor | None]) -> None:
    """Sixteen Python threads at once give what one gives alone."""
    expected = results(call, "cpu", tensors)
    with ThreadPoolExecutor(16) as pool:
        every = list(pool.map(lambda _: results(call, "cpu", tensors), range(16)))
    for found in every:
        assert_bitwise(found, expected)


def assert_thread_count_is_invisible(call: Call, tensors: dict[str, Tensor | None]) -> None:
    """`torch.set_num_threads` at run time changes nothing, to the last bit."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = results(call, "cpu", tensors)
        for threads in (2, 3, 1):
            torch.set_num_threads(threads)
            assert_bitwise(results(call, "cpu", tensors), expected)
    finally:
        torch.set_num_threads(before)


def run_python(code: str, **environment: str) -> str:
    """Run `code` in a fresh interpreter from the repository's root and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# The child compares with NumPy: PyTorch's own OpenMP threads do not survive a fork.
FORK = """
import multiprocessing, numpy, torch
{setup}
torch.set_num_threads(2)
expected = call("cpu", **tensors)

def child(queue):
    again = call("cpu", **tensors)
    queue.put(all(numpy.array_equal(a.numpy(), b.numpy()) for a, b in zip(again, expected)))

context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,), daemon=True)
process.start()
print(queue.get(timeout=60))
process.join(30)
"""


def assert_survives_fork(setup: str) -> None:
    """`setup` defines `call` and `tensors`; large enough that the thread pool is used."""
    assert run_python(FORK.format(setup=setup)).strip() == "True"
