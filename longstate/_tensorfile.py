"""Tensors and facts in one safetensors file: the facts are JSON in its header.

One file, so tensors and facts cannot disagree; written whole or not at all; no pickle, so a file
from a stranger runs no code.
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
"""Raised when older files can no longer be read, or would mean something else."""


def save(path: str | Path, kind: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write a file.

    Args:
        path: the file.
        kind: what it holds, such as "model" or "state"; checked on loading.
        tensors: by name.
        facts: whatever JSON can hold.

    Raises:
        InputError: it cannot be written; what was there before is unchanged.
    """
    header = json.dumps({"format": FORMAT, "kind": kind, "facts": facts})
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    write_whole(path, safetensors.torch.save(whole, metadata={"longstate": header}))


def kind_of(path: str | Path) -> str | None:
    """What a file of ours holds; None where there is no file, or one that is not ours.

    Raises:
        InputError: it is cut short, or no safetensors file.
    """
    if not Path(path).is_file():
        return None
    return _open(Path(path), read=False)[0].get("kind")


def facts_of(path: str | Path) -> dict[str, Any]:
    """The facts in a file of ours, without its tensors; empty where there are none.

    Raises:
        InputError: it is cut short, or no safetensors file.
    """
    facts = _open(Path(path), read=False)[0].get("facts")
    return facts if isinstance(facts, dict) else {}


def _open(path: Path, read: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Our header, empty in a file that is not ours; and the tensors, copied, if they are read."""
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
    """Read a file. The tensors are copies: they outlive it, whatever becomes of it.

    Raises:
        InputError: missing, cut short, of another kind or format version, or not ours.
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
