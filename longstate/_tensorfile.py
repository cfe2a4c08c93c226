"""Tensors and facts in one safetensors file. The facts are JSON in its header.

Tensors and facts are in the same file, which is written atomically, so they always belong together.
Loading runs no code from the file.

A digest in the header detects accidental changes: CRC-32 of the bytes of each tensor, and BLAKE2
over these, the names, types, shapes and facts. It is computed at 1 to 3 GB/s per processor core,
with up to 8 threads. It does not protect against intended changes, as it is no signature. Files of
earlier versions have none and can be read.
"""

import hashlib
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from longstate._files import write_whole
from longstate._formats import format_of, refuse_converted
from longstate.errors import InputError

FORMAT = 1
"""Version of the format. It increases when older files can no longer be read."""
OURS, DIGEST = "longstate", "longstate digest"
_METHOD = "crc32"  # also in the header, so that a missing digest is noticed
_FIELDS = {"format", "kind", "facts", "digest"}
_MODEL = (
    "a run of `longstate train`, the file of a model or a folder with a checkpoint was expected"
)


class _Content(NamedTuple):
    """The contents of a file: its header, which is empty in files of other libraries; the digest in
    the file; the digest of the contents; the tensors."""

    header: dict[str, Any]
    named: str | None
    digest: str
    tensors: dict[str, Tensor]


def save(path: str | Path, kind: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write a file atomically.

    Args:
        path: the file.
        kind: what it holds, such as "model" or "state"; checked on loading.
        tensors: by name.
        facts: values that JSON can hold.

    Raises:
        InputError: the file cannot be written; the old file is unchanged.
    """
    header = {"format": FORMAT, "kind": kind, "digest": _METHOD, "facts": facts}
    text = json.dumps(header)
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    metadata = {OURS: text, DIGEST: _digest(text, whole)}
    write_whole(path, safetensors.torch.save(whole, metadata=metadata))


def kind_of(path: str | Path) -> str | None:
    """The kind of a file of this format. None if there is no file, or if it is a safetensors file
    of another library.

    Raises:
        InputError: it is cut short, or not a safetensors file.
    """
    if not Path(path).is_file():
        return None
    kind = _open(Path(path)).header.get("kind")
    return kind if isinstance(kind, str) else None


def facts_of(path: str | Path) -> dict[str, Any]:
    """The facts in a file, without reading tensors or checking the digest; empty if there are none.

    Raises:
        InputError: it is cut short, or not a safetensors file.
    """
    facts = _open(Path(path)).header.get("facts")
    return facts if isinstance(facts, dict) else {}


def load(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file. The tensors are copies: the file may be changed or deleted afterwards.

    Raises:
        InputError: the file is missing, cut short, changed, of another kind or format version, or
            of another library.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a longstate {kind} file")
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; a longstate {kind} file was expected")
    found = _open(path, kind)
    header = found.header
    if header.get("kind") != kind:
        other = header.get("kind")
        raise InputError(
            f"{path} is not a longstate {kind} file"
            + (f" but a {other} file" if isinstance(other, str) else "")
        )
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path} has format version {header.get('format')}; this version of longstate reads "
            f"version {FORMAT}"
        )
    if not isinstance(header.get("facts"), dict):
        raise InputError(f"{path} is damaged: its header holds no facts")
    _check_digest(path, found)
    return found.tensors, header["facts"]


def _open(path: Path, kind: str | None = None) -> _Content:
    """Open a file to read its tensors, which are copied, and should be of this kind. Without a
    kind only the header is read."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            text = metadata.get(OURS, "null")
            header = json.loads(text)
            names = file.keys() if kind else []
            there = {name: file.get_tensor(name) for name in names}
            digest = _digest(text, there) if DIGEST in metadata else ""
            tensors = {name: t.clone() for name, t in there.items()}
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from None
    except (safetensors.SafetensorError, ValueError, RecursionError, RuntimeError) as e:
        refuse_converted(path)
        other = format_of(path)
        if other is not None:
            wrong = (
                f"is not a longstate {kind} file but {other}" if kind else f"is {other}; {_MODEL}"
            )
            raise InputError(f"{path} {wrong}") from None
        raise InputError(f"{path} is damaged ({e}); it may have been cut short") from None
    header = header if isinstance(header, dict) else {}
    return _Content(header, metadata.get(DIGEST), digest, tensors)


def _check_digest(path: Path, found: _Content) -> None:
    header = found.header
    unknown = sorted(header.keys() - _FIELDS)
    if unknown:
        raise InputError(
            f"{path} is damaged or of a later version: its header has an unknown {unknown[0]!r}"
        )
    if "digest" not in header and found.named is None:
        return  # of an earlier version
    if header.get("digest") != _METHOD or found.named != found.digest:
        raise InputError(
            f"{path} is damaged: its contents have changed since it was written (the digest "
            "differs)"
        )


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    names = sorted(tensors)
    total = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
    with ThreadPoolExecutor(max_workers=8) as threads:
        sums = threads.map(lambda name: zlib.crc32(_bytes(tensors[name])), names)
        for name, found in zip(names, sums, strict=True):
            t = tensors[name]
            total.update(f"\n{name} {t.dtype} {tuple(t.shape)} {found}".encode("utf-8", "replace"))
    return total.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.reshape(-1)
    if flat.stride() != (1,):  # one number may have any stride
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().data
