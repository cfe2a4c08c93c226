"""The processes that train one model together: as many as `torchrun` started, otherwise one.

Every function that sends something has to be called by all of them, in the same order. With one
process it sends nothing.
"""

import contextlib
import datetime
import os
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_T = TypeVar("_T")
_PATIENCE = datetime.timedelta(days=1)  # one rank may encode a large text; a dead one is noticed


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if together() else 0


def size() -> int:
    """The number of processes."""
    return dist.get_world_size() if together() else 1


def together() -> bool:
    """Whether there is a process group."""
    return dist.is_available() and dist.is_initialized()


@contextlib.contextmanager
def process_group() -> Iterator[int]:
    """Context manager: join the processes that `torchrun` started, if it did.

    Yields:
        The number of this process: 0 for the one that writes and prints.
    """
    if together() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield rank()
        return
    dist.init_process_group("gloo", timeout=_PATIENCE, **_meeting_place())
    try:
        yield rank()
    finally:
        dist.destroy_process_group()


def _meeting_place() -> dict[str, Any]:
    """Arguments of `init_process_group`: the store in which the ranks find each other.

    `torchrun` on one machine keeps one store over its restarts, with the addresses of processes
    that have ended; so each restart gets names of its own. On several machines the count of
    restarts may differ between them, and the store is left to PyTorch.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    if restarts == "0" or not one_machine:
        return {}
    store, number, count = next(dist.rendezvous("env://", timeout=_PATIENCE))
    own = dist.PrefixStore(f"restart {restarts}", store)
    return {"store": own, "rank": number, "world_size": count}


@contextlib.contextmanager
def first_rank_first() -> Iterator[None]:
    """Context manager: the other ranks enter the block when rank 0 has left it."""
    if together() and rank() > 0:
        dist.barrier()
    yield
    if together() and rank() == 0:
        dist.barrier()


def of_first(number: float) -> float:
    """The number of rank 0, on every rank."""
    if not together():
        return number
    shared = torch.tensor(number, dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)


def total(number: float) -> float:
    """The sum over the ranks."""
    if not together():
        return number
    shared = torch.tensor(number, dtype=torch.float64)
    dist.all_reduce(shared)
    return float(shared)


def of_all(x: Tensor) -> list[Tensor]:
    """The tensors of all ranks, which have one shape."""
    if not together():
        return [x]
    found = [torch.empty_like(x) for _ in range(size())]
    dist.all_gather(found, x)
    return found


def values_of_all(value: _T) -> list[_T]:
    """The values of all ranks, which can be pickled; when all have come here."""
    if not together():
        return [value]
    found: list[_T] = [value] * size()
    dist.all_gather_object(found, value)
    return found


def on_this_machine() -> int:
    """The number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


class AnyRank(threading.Event):
    """An event that is set on every rank once it is set on one.

    Args:
        own: the event of this rank.
    """

    def __init__(self, own: threading.Event):
        super().__init__()
        self._own = own

    def is_set(self) -> bool:
        return total(float(self._own.is_set())) > 0
