"""Fixtures of all tests."""

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import Tensor

import tests.annotations  # jaxtyping looks it up by its name

# Shapes and types in annotations are checked. Not in ops, where Numba compiles the functions, nor
# in systems, whose values `torch.compile` makes while it traces: both check their arguments with
# sentences of their own.
jaxtyping.install_import_hook(
    [f"longstate.{name}" for name in ("compress", "layers", "models", "memory", "stream")],
    "tests.annotations.check",
)

from longstate.testing._states import annotations_unchecked  # noqa: E402

# pytest-xdist's processes ignore it, and some tests interrupt themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

# PyTorch lists the functions that obey `torch.device` once: before one of them is replaced below.
with torch.device("meta"):
    torch.ones(1)


@pytest.fixture(autouse=True)
def annotations_checked_again():
    tests.annotations.calls.clear()


@pytest.fixture(autouse=True)
def own_errors(monkeypatch):
    """Inside `pytest.raises` and `torch.compile` annotations are not checked.

    There the package's own sentence about a wrong argument is what is tested; and a compiled
    function cannot be checked as it runs.
    """
    raises, compile = pytest.raises, torch.compile

    @contextmanager
    def unchecked_raises(*args, **options):
        with annotations_unchecked(), raises(*args, **options) as info:
            yield info

    def unchecked_compile(*args, **options):
        jaxtyping.config.update("jaxtyping_disable", True)  # until the end of the test
        return compile(*args, **options)

    monkeypatch.setattr(pytest, "raises", unchecked_raises)
    monkeypatch.setattr(torch, "compile", unchecked_compile)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def gradients_stay_on():
    """A generator that yields inside `torch.no_grad()` can leave gradients off for its caller."""
    yield
    enabled = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert enabled, "this test left gradients switched off"


def _poison(x: Tensor) -> Tensor:
    if x.is_floating_point() or x.is_complex():
        return x.fill_(float("nan"))
    return x.fill_(True if x.dtype == torch.bool else torch.iinfo(x.dtype).max)


def _poisoned(allocate):
    def wrapper(*args, **options):
        fresh = allocate(*args, **options)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        return _poison(fresh) if caller.startswith("longstate.ops") else fresh

    return wrapper


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """Fill the memory that an op allocates with NaN, so that an unwritten output fails a test."""
    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (Tensor, "new_empty"),
    ):
        monkeypatch.setattr(owner, name, _poisoned(getattr(owner, name)))


@pytest.fixture
def benchmark_modules(monkeypatch):
    """The scripts under benchmarks/ import each other by bare names, which must not stay."""
    folder, before = Path(__file__).resolve().parent.parent / "benchmarks", set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(f"{folder}{os.sep}"):
            del sys.modules[name]
