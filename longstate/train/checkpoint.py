"""Tensors and facts in one safetensors file: the facts are JSON in its header.

One file, so tensors and facts cannot disagree; written whole or not at all; no pickle, so a file
from a stranger runs no code.
"""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from longstate.errors import InputError
from longstate.files import write_whole

FORMAT = 1


def save(path: Path, kind: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: the file.
        kind: what it holds, "model" or "training"; checked on loading.
        tensors: by name.
        facts: whatever JSON can hold.

    Raises:
        InputError: it cannot be written; what was there before is unchanged.
    """
    header = json.dumps({"format": FORMAT, "kind": kind, "facts": facts})
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    write_whole(path, safetensors.torch.save(whole, metadata={"longstate": header}))


def load(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint.

    Raises:
        InputError: missing, cut short, of another kind or format version, or not ours.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("longstate", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, json.JSONDecodeError) as e:
        raise InputError(f"{path} is damaged ({e}); it may have been cut short") from None
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from None
    if not isinstance(header, dict) or header.get("kind") != kind:
        raise InputError(f"{path} is not a longstate {kind} file")
    if header["format"] != FORMAT:
        raise InputError(
            f"{path} has format version {header['format']}; this version of longstate reads "
            f"version {FORMAT}"
        )
    return tensors, header["facts"]


def pack_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments by name; its settings are the caller's to know."""
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
    """The tensors whose names begin with `prefix/`, without it."""
    return {k.removeprefix(prefix + "/"): v for k, v in tensors.items() if k.startswith(prefix)}
