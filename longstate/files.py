"""Files and folders are written whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from longstate.errors import InputError


def write_whole(path: str | Path, data: bytes | str) -> None:
    """Write to a temporary name in the same folder, force it to disk, rename.

    Whatever happens (full disk, SIGKILL, power cut), `path` holds either what it held before or all
    of `data`.

    Raises:
        InputError: it cannot be written. `path` is as it was.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as e:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        kept = "; the file there is unchanged" if path.exists() else ""
        raise InputError(f"{path} cannot be written: {e.strerror or e}{kept}") from None


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` once the block has ended without an error.

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
        shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
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
    """So that the rename itself survives a power cut, where folders can be synced."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
