"""Run a function on several processes that can send messages to each other."""

import faulthandler
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_ranks(size: int, check: Callable[..., None], *arguments: object) -> None:
    """Call `check(rank, size, *arguments)` on each rank. An error of a rank is raised here."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _start, (size, f"{folder}/ranks", check, arguments), nprocs=size, start_method="spawn"
        )


def _start(rank, size, path, check, arguments):
    faulthandler.enable()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{path}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=120),
    )
    check(rank, size, *arguments)
    dist.barrier()  # nobody leaves before its last message is read
    dist.destroy_process_group()
