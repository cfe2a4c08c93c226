"""Write files and folders atomically: completely, or not at all."""

import contextlib
import difflib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from longstate.errors import InputError


def write_whole(path: str | Path, data: bytes | str) -> None:
    """Write a file atomically: to a temporary name in the same folder, synced, then renamed.

    After any failure (full disk, SIGKILL, power failure), `path` holds either its old content or
    all of `data`.

    Raises:
        InputError: the file cannot be written. `path` is unchanged.
    """
    with writing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[IO[bytes]]:
    """Context manager: a file to write in pieces. It becomes `path` when the block ends without an
    error. Otherwise as `write_whole`."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as e:
        kept = "; the file there is unchanged" if path.exists() else ""
        raise InputError(f"{path} cannot be written: {e.strerror or e}{kept}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def missing(path: str | Path, what: str) -> InputError:
    """The error for a `path` that does not exist. It names similar files in the same folder."""
    path = Path(path)
    try:
        names = [p.name for p in path.parent.iterdir() if not p.name.startswith(".")]
    except OSError:
        return InputError(f"there is no {what} {path}; the folder {path.parent} does not exist")
    close = difflib.get_close_matches(path.name, names, n=2, cutoff=0.6)
    meant = " or ".join(str(path.with_name(name)) for name in close)
    return InputError(f"there is no {what} {path}" + (f"; did you mean {meant}?" if meant else ""))


def refuse_gguf(path: str | Path) -> None:
    """Refuse a GGUF file, and a folder that contains one.

    Raises:
        InputError: there is a GGUF file; says which format is needed instead.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    for file in files:
        with file.open("rb") as opened:
            if opened.read(4) == b"GGUF":
                raise InputError(
                    f"{file} is a GGUF file, the format of llama.cpp; longstate reads the folder "
                    "that it was made from, with config.json and model.safetensors or "
                    "pytorch_model.bin"
                )


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Context manager: a folder to fill. It becomes `path` when the block ends without an error.

    Raises:
        InputError: `path` is a file or a folder that is not empty, or it cannot be written. Nothing
            is left behind.
    """
    path = Path(path).resolve()
    part = path.with_name(f".{path.name}.part")
    try:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            kind = "a folder that is not empty" if path.is_dir() else "a file"
            raise InputError(f"{path} is {kind}; nothing is overwritten")
        shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            _sync(file)
        _sync_folder(part)
        if path.exists():
            path.rmdir()
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as e:
        raise InputError(f"{path} cannot be written: {e.strerror or e}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sync(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename survives a power failure. POSIX only."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
