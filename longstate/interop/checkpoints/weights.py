"""Read the tensors of a checkpoint by name.

The first of these is read: `model.safetensors`, its shards by `model.safetensors.index.json`,
`pytorch_model.bin`, its shards by `pytorch_model.bin.index.json`. Pickles are read by PyTorch's
restricted reader, which accepts tensors only and runs no code.
"""

import json
import pickle
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from longstate._facts import shortened
from longstate._formats import EMPTY, PICKLES, TEXT, format_of, refuse_converted
from longstate.errors import InputError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: the file is missing, unreadable, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from None
    except (ValueError, RecursionError) as e:
        found = format_of(path)
        if found not in (None, TEXT, EMPTY):
            raise InputError(f"{path} is not JSON but {found}") from None
        raise InputError(f"{path} is not JSON ({e}); it may have been cut short") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object; it holds {type(value).__name__}")
    return value


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors in a checkpoint's folder, on the CPU. They may share memory with the files.

    Raises:
        InputError: there are no weights, a shard is missing, or a file is damaged, cut short, or
            holds anything but tensors.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return _read(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder / f"{name}.index.json")
    raise InputError(f"{folder} holds no weights: neither {' nor '.join(WEIGHTS)}, nor an index")


def _read_shards(index: Path) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{index} has no weight_map, which says where each tensor is")
    tensors: dict[str, Tensor] = {}
    for name in places.values():
        if not isinstance(name, str) or not name or Path(name).name != name:
            raise InputError(f"{index} names {shortened(name)}, which is no file beside it")
    for name in dict.fromkeys(places.values()):
        if not (index.parent / name).is_file():
            raise InputError(f"{index.parent / name} is missing; {index.name} names it")
        shard = _read(index.parent / name)
        for key, place in places.items():
            if place == name and key not in shard:
                raise InputError(f"{key} is not in {index.parent / name}, where {index.name} says")
        tensors.update(shard)
    return tensors


def _read(path: Path) -> dict[str, Tensor]:
    try:
        path.open("rb").close()
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from None
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as e:
        _refuse_other(path)
        raise InputError(f"{path} is damaged ({e}); it may have been cut short") from None


def _refuse_other(path: Path, expected: Collection[str] = ()) -> None:
    """Refuse a file whose first bytes are those of another format than the expected ones."""
    if path.is_file():
        refuse_converted(path)
        found = format_of(path)
        if found is not None and found not in expected:
            raise InputError(f"{path} holds no weights: it is {found}")


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # The oldest files are not archives, and cannot be mapped into memory.
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols that PyTorch does not write itself
            whole = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        _refuse_other(path, PICKLES)
        raise InputError(
            f"{path} is damaged or cut short, or holds objects other than tensors, which would "
            "need code from the file to be run"
        ) from None
    except Exception as e:  # a damaged pickle may raise anything
        _refuse_other(path, PICKLES)
        raise InputError(f"{path} is damaged ({type(e).__name__}); it may be cut short") from None
    if not isinstance(whole, dict):
        raise InputError(f"{path} must hold tensors by name; it holds {type(whole).__name__}")
    for name, value in whole.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{path} must hold tensors by name; {shortened(name)} is of type "
                f"{type(value).__name__}"
            )
        if value.device.type != "cpu" or value.layout != torch.strided or value.is_quantized:
            raise InputError(
                f"{path}: {shortened(name)} has no plain numbers in the file: it is "
                f"{value.layout} on {value.device}"
            )
    return dict(whole)
