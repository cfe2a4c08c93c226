"""What every test gets."""

import signal
import sys

import pytest
import torch
from torch import Tensor

# pytest-xdist's processes ignore it, and some tests interrupt themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """Memory that an op allocates is full of NaN, so that an unwritten output cannot pass."""
    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (Tensor, "new_empty"),
    ):
        monkeypatch.setattr(owner, name, _poisoned(getattr(owner, name)))
