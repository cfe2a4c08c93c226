"""Checkpoints of training, in the format of `longstate._tensorfile`: an optimiser's moments."""

import torch
from torch import Tensor

from longstate._tensorfile import load as load
from longstate._tensorfile import save as save


def pack_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments by name, without its settings."""
    state = optimiser.state_dict()["state"]
    return {
        f"optimiser/{index}/{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, moments in state.items()
        for name, value in moments.items()
    }


def unpack_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix/`; the prefix is removed."""
    return {k.removeprefix(prefix + "/"): v for k, v in tensors.items() if k.startswith(prefix)}
