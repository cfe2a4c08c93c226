"""Tensors and facts in one safetensors file: the facts are JSON in its header.

One file, so tensors and facts always belong together. It is written atomically. It contains no
pickle, so loading an untrusted file runs no code.
"""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from longstate._files import refuse_gguf, write_whole
from longstate.errors import InputError

FORMAT = 1
"""Version of the format. It increases when older files cannot be read or change their meaning."""


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
    header = json.dumps({"format": FORMAT, "kind": kind, "facts": facts})
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    write_whole(path, safetensors.torch.save(whole, metadata={"longstate": header}))


def kind_of(path: str | Path) -> str | None:
    """The kind of a file of this format. None if there is no file, or if it has another format.

    Raises:
        InputError: it is cut short, or not a safetensors file.
    """
    if not Path(path).is_file():
        return None
    return _open(Path(path), read=False)[0].get("kind")


def facts_of(path: str | Path) -> dict[str, Any]:
    """The facts in a file of this format, without its tensors; empty if there are none.

    Raises:
        InputError: it is cut short, or not a safetensors file.
    """
    facts = _open(Path(path), read=False)[0].get("facts")
    return facts if isinstance(facts, dict) else {}


def _open(path: Path, read: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header, empty for a file of another format; and copies of the tensors if `read`."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("longstate", "null"))
            names = file.keys() if read else []
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except (safetensors.SafetensorError, json.JSONDecodeError) as e:
        refuse_gguf(path)
        raise InputError(f"{path} is damaged ({e}); it may have been cut short") from None
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from None
    return header if isinstance(header, dict) else {}, tensors


def load(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file. The tensors are copies: the file may be changed or deleted afterwards.

    Raises:
        InputError: the file is missing, cut short, or of another kind, format or format version.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a longstate {kind} file")
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    header, tensors = _open(path, read=True)
    if header.get("kind") != kind:
        other = header.get("kind")
        raise InputError(
            f"{path} is not a longstate {kind} file" + (f" but a {other} file" if other else "")
        )
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path} has format version {header.get('format')}; this version of longstate reads "
            f"version {FORMAT}"
        )
    if not isinstance(header.get("facts"), dict):
        raise InputError(f"{path} is damaged: its header holds no facts")
    return tensors, header["facts"]
