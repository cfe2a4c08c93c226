"""Save and load states: the tensors, and in the header the identity of the module.

A file contains the version of its format, the type of every tensor, and the identity of the module
(`longstate.stream._identity`). It can be loaded only into the same module with the same weights, on
any device and for any batch size. With a codec, the tensors are one parked state
(`longstate.compress.park`), and the same codec is needed to load it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from longstate import _tensorfile as tensorfile
from longstate._facts import read as read_facts
from longstate.errors import InputError
from longstate.layers._base import State
from longstate.stream._earlier import today
from longstate.stream._identity import check_identity, describe, difference
from longstate.stream._tree import fit, flatten

_KIND, _PARKED = "state", "parked"


@dataclass(frozen=True)
class _Facts:
    """The header of a file of a state: the identity of the module, the type of each tensor, the
    number of samples so far, and the hash of the codec."""

    module: dict[str, Any]
    types: dict[str, str]
    position: int
    codec: str | None = None


@runtime_checkable
class Codec(Protocol):
    """Writes a state as bytes, and reads it: a `StateCodec` of `longstate.compress`."""

    @property
    def identity(self) -> str:
        """A hash of the codec."""

    def park(self, state: State) -> bytes:
        """Encode a state as bytes."""

    def unpark(self, data: bytes) -> State:
        """Decode a state; it has the error of the codec."""


def save_state(
    path: str | Path,
    module: nn.Module,
    state: State,
    *,
    position: int = 0,
    codec: Codec | None = None,
) -> None:
    """Write a state, atomically.

    Args:
        path: the file.
        module: the layer or model that returned the state; anything with `init_state(batch)`.
        state: returned by `module`, or by `init_state`.
        position: number of samples processed so far; see `Stream`.
        codec: encodes the state in few bits. It is not written to the file, but needed to load it.
            None: the state is stored exactly.

    Raises:
        InputError: the state does not fit `module` or the codec, or the file cannot be written. An
            old file is unchanged.
    """
    tensors = flatten(state)
    fit(module, tensors)
    types = {name: str(t.dtype).removeprefix("torch.") for name, t in tensors.items()}
    facts = {"module": describe(module), "types": types, "position": position}
    if codec is None:
        tensors = {name: _real(t.detach()).cpu().contiguous() for name, t in tensors.items()}
    else:
        facts["codec"] = codec.identity
        tensors = {_PARKED: torch.frombuffer(bytearray(codec.park(state)), dtype=torch.uint8)}
    tensorfile.save(path, _KIND, tensors, facts)


def load_state(path: str | Path, module: nn.Module, *, codec: Codec | None = None) -> State:
    """Read a state that `save_state` or `Stream.save` wrote, to the device of `module`.

    Args:
        path: the file.
        module: the layer or model that the state belongs to.
        codec: the one that the state was saved with. None: it was saved without.

    Raises:
        InputError: the file is missing, damaged, of another format version or not a state; it
            belongs to another class, other settings or other weights; or it needs another codec.
            The message says what differs.
    """
    return read(path, module, codec)[0]


def read(path: str | Path, module: nn.Module, codec: Codec | None) -> tuple[State, int]:
    """A state and its position; see `load_state`."""
    tensors, raw = load_checked(path, _KIND)
    facts = read_facts(_Facts, raw, f"the description in {path}")
    check_identity(facts.module, f"{path}: module")
    differs = difference(today(facts.module), today(describe(module)))
    if differs:
        raise InputError(f"{path} {differs}")
    if facts.codec is None:
        if facts.types.keys() != tensors.keys():
            raise InputError(f"{path} is damaged: its description is not that of its tensors")
        tensors = {name: _typed(t, facts.types[name]) for name, t in tensors.items()}
    else:
        data = tensors.get(_PARKED)
        if data is None or data.dtype != torch.uint8:
            raise InputError(f"{path} is damaged: it has no parked state")
        tensors = flatten(_unparked(path, data, facts.codec, codec))
    if facts.position < 0:
        raise InputError(f"{path} is damaged: its position is {facts.position}")
    return fit(module, tensors), facts.position


def load_checked(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`longstate._tensorfile.load`, also for versions whose digest is among the facts."""
    tensors, facts = tensorfile.load(path, kind)
    check = facts.pop("check", None)
    if check is not None and check != _check(facts, tensors):
        raise InputError(f"{path} is damaged: its contents have changed since it was written")
    return tensors, facts


def _unparked(path: str | Path, data: Tensor, identity: str, codec: Codec | None) -> State:
    if codec is None or codec.identity != identity:
        given = "no codec was given" if codec is None else f"this is {codec.identity}"
        raise InputError(
            f"{path} was parked with the codec {identity}, and {given}; pass codec=, the one that "
            "it was parked with"
        )
    return codec.unpark(data.numpy().tobytes())


def _real(t: Tensor) -> Tensor:
    """A complex tensor as a real one, because older versions of safetensors have only real ones."""
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t


def _typed(t: Tensor, name: str) -> Tensor:
    pairs = name.startswith("complex") and t.is_floating_point() and t.shape[-1:] == (2,)
    return torch.view_as_complex(t) if pairs else t


def _check(facts: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Check the digest in files of earlier versions."""
    total = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        total.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        total.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
