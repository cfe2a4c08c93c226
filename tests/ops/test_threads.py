import sys
import threading
import time

import numpy as np
import pytest
import torch

from longstate.ops._numba import compiled, openmp
from longstate.ops._numba.threads import parallel_for

MUCH = 10**9


@pytest.fixture(params=["openmp", "pool"])
def three_threads(request, monkeypatch):
    if request.param == "pool":
        monkeypatch.setattr(openmp, "available", lambda: False)
    elif not openmp.available():
        pytest.skip("PyTorch's OpenMP has no entry that could be called here")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_blocks", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("work", [0, MUCH])
def test_ranges_cover_every_block_once(three_threads, n_blocks, work):
    seen = np.zeros(n_blocks, dtype=int)

    def kernel(start, stop, seen):
        seen[start:stop] += 1

    parallel_for(kernel, n_blocks, work, seen)
    assert (seen == 1).all()


def test_a_mistake_in_a_thread_is_raised(three_threads):
    def kernel(start, stop):
        if start > 0:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        parallel_for(kernel, 9, MUCH)


def test_threads_run_at_the_same_time(three_threads):
    meet = threading.Barrier(3)

    def kernel(start, stop):
        if stop > start:  # not when it is compiled
            meet.wait(timeout=60)

    parallel_for(kernel, 3, MUCH)


@pytest.mark.skipif(sys.platform != "linux", reason="found by PyTorch's library of Linux")
def test_blocks_run_on_the_threads_of_pytorch():
    assert openmp.available()


def test_slow_compilation_is_announced_once(capfd, monkeypatch):
    monkeypatch.setattr(compiled, "_ANNOUNCE_AFTER", 0.01)

    def compile_():
        time.sleep(0.3)
        return "a kernel"

    assert compiled.announced(compile_)() == "a kernel"
    time.sleep(0.1)  # the one who announces has a thread of its own
    said = capfd.readouterr().err
    assert said.count("compiling a CPU kernel") == 1
    assert said.count("compiled in") == 1


def test_every_kernel_is_announced(capfd, monkeypatch):
    monkeypatch.setattr(compiled, "_ANNOUNCE_AFTER", 0.0)

    @compiled.kernel
    def kernel(start, stop, x):
        x[start:stop] += 1

    x = np.zeros(3)
    for _ in range(3):
        parallel_for(kernel, 3, 0, x)
    time.sleep(0.1)
    assert (x == 3).all()
    assert capfd.readouterr().err.count("compiling a CPU kernel") == 1


def test_parts_of_kernels_cannot_be_called_from_python():
    @compiled.apart
    def part(x):
        return x + 1

    @compiled.kernel
    def kernel(x):
        return part(x)

    for _ in range(2):  # before it is compiled, and after
        with pytest.raises(TypeError, match="part can be called by kernels only"):
            part(1)
        assert kernel(1) == 2
