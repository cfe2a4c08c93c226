"""The identity of a module, to which a state belongs: classes, settings and weights as plain data.

Settings are the public attributes, of the module and of all modules inside it, that JSON can hold.
A counter or a cache should be an attribute with an underscore. What changes no state is ignored:
`training`, a stack's `segment`, devices and `torch.compile`. Weights are the contents of
`state_dict`, each as a hash of its values.

The hash of a tensor: sum_i x_i k_i modulo 2^64 over the words x_i of a block, with fixed odd k_i,
and BLAKE2 over the sums of all blocks. A change of one x_i always changes the sum. It protects
against mistakes, not against forgery; a cryptographic hash of every byte would take several times
as long, and would have to copy them from a GPU. Floats are hashed by value, not by type: bfloat16
weights widened to float32, and float32 weights widened to float64, have the same hash. Narrowed
weights have another.
"""

import contextlib
import dataclasses
import hashlib
import json
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from longstate._facts import read, shortened, value_of

_BLOCK = 1 << 16
_NO_EFFECT = {"training", "segment"}


def describe(module: nn.Module) -> dict[str, Any]:
    """The identity of a module: {"settings": {path: value}, "weights": {name: [shape, hash]}}."""
    seen: dict[int, str] = {}  # tied weights have several names
    weights = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            if id(tensor) not in seen:
                seen[id(tensor)] = digest(tensor)
            weights[_eager(name)] = [list(tensor.shape), seen[id(tensor)]]
    return {"settings": _settings(module), "weights": weights}


@dataclasses.dataclass(frozen=True)
class _Identity:
    settings: dict[str, Any]
    weights: dict[str, tuple[list[int], str]]


def check_identity(identity: object, what: str) -> None:
    """Check that an identity in a file has the right form.

    Raises:
        InputError: it has not.
    """
    found = read(_Identity, identity, what)
    for name in ("class", *found.settings):
        if name.split(".")[-1] == "class":
            value_of(found.settings.get(name), str, f"{what}.settings.{name}")


def difference(saved: dict[str, Any], here: dict[str, Any]) -> str | None:
    """How the module that a state was saved with differs from the one here; None if it does not."""
    theirs, ours = saved["settings"], here["settings"]
    name = theirs["class"]
    if name != ours["class"]:
        return f"belongs to {name}, not to {ours['class']}"
    for key in _keys_of(theirs, ours):
        if key not in theirs or key not in ours:
            where = "its module" if key in theirs else "the module here"
            return f"belongs to another {name}: only {where} has {key}"
        if theirs[key] != ours[key]:
            values = shortened(theirs[key]), shortened(ours[key])
            return f"belongs to another {name}: its {key} is {values[0]}, here {values[1]}"
    theirs, ours = saved["weights"], here["weights"]
    for key in _keys_of(theirs, ours):
        shapes = [tuple(w[key][0]) if key in w else "missing" for w in (theirs, ours)]
        if shapes[0] != shapes[1]:
            return f"belongs to another {name}: its {key} is {shapes[0]}, here {shapes[1]}"
    changed = [key for key in theirs if theirs[key] != ours[key]]
    if changed:
        count = f"{len(changed)} of {len(theirs)} tensors differ, the first is {changed[0]}"
        return f"belongs to {name} with other weights: {count}"
    return None


def _keys_of(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [*one, *(key for key in other if key not in one)]


def _settings(module: nn.Module) -> dict[str, Any]:
    settings = {}
    for path, part in module.named_modules():
        if isinstance(part, nn.Dropout):  # has no effect outside training
            continue
        facts = {"class": type(part).__name__, **vars(part)}
        for name, value in facts.items():
            if not name.startswith("_") and name not in _NO_EFFECT:
                with contextlib.suppress(TypeError, ValueError):
                    text = json.dumps(value, default=_plain, sort_keys=True)
                    settings[_eager(f"{path}.{name}".removeprefix("."))] = json.loads(text)
    return settings


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, torch.dtype):
        return str(value)
    raise TypeError


def _eager(path: str) -> str:
    """A path without the wrapper of torch.compile."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


def digest(tensor: Tensor) -> str:
    """The hash of a tensor's values."""
    x = tensor.detach()
    if x.is_complex():
        x = torch.view_as_real(x.resolve_conj())
    x = x.reshape(-1)
    if x.storage_offset() % 2:  # pairs of float32 are read as one word
        x = x.clone()
    sums = [_sum(block) for block in x.split(_BLOCK)]
    total = torch.stack(sums).cpu().numpy().tobytes() if x.numel() else b""
    return hashlib.blake2b(total, digest_size=8).hexdigest()


def _sum(block: Tensor) -> Tensor:
    if not block.is_floating_point():
        words = block.long()
    elif block.dtype == torch.float64 and not torch.equal(block.float().double(), block):
        words = block.view(torch.int64)
    else:
        pairs = block.float()
        pairs = nn.functional.pad(pairs, (0, 1)) if len(pairs) % 2 else pairs
        words = pairs.view(torch.int64)
    return (words * _factors(words.device)[: len(words)]).sum()


@cache
def _factors(device: torch.device) -> Tensor:
    """Odd numbers without a pattern: 1, 2, 3, ... mixed as in SplitMix64."""
    k = torch.arange(1, _BLOCK + 1, device=device) * -0x61C8864680B583EB
    k = (k ^ (k >> 30)) * -0x40A7B892E31B1A47
    k = (k ^ (k >> 27)) * -0x6B2FB644ECCEEE15
    return k ^ (k >> 31) | 1
