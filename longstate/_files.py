"""Files and folders are written whole or not at all, by one writer for the whole package.

A regular file is filled under a name of its own in the same folder, forced to disk and renamed, so
that readers, other writers and a power cut find an old or a new file and never half of one. What is
no regular file (a device, a FIFO, /dev/stdout) is written through, as `>` of a shell does.
"""

import contextlib
import difflib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from longstate.errors import InputError


def write_whole(path: str | Path, data: bytes | str) -> None:
    """Write a file; text is UTF-8. See `writing`.

    Raises:
        InputError: it cannot be written. A regular file is as it was.
    """
    with writing(path) as file:
        file.write(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to fill piece by piece, which becomes `path` once the block has ended without an
    error.

    A symbolic link is followed to its target. The mode of a file that is there is kept, and its
    owner where that is allowed; a new file has the mode that the umask leaves. Missing folders are
    made.

    Raises:
        InputError: it cannot be written. A regular file is as it was.
    """
    path = Path(path)
    try:
        with _through(path) if is_stream(path) else _replacing(path) as file:
            yield file
    except OSError as e:
        kept = "; the file there is unchanged" if path.is_file() and not is_stream(path) else ""
        raise InputError(f"{path} cannot be written: {e.strerror or e}{kept}") from None


def is_stream(path: str | Path) -> bool:
    """Whether what is written to `path` goes on to somewhere else: a device, a FIFO, a socket, or
    an open file of this process, as /dev/stdout."""
    path = Path(path)
    if _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _descriptor(path: Path) -> int | None:
    """The number behind /dev/stdout, /dev/fd/3 or /proc/self/fd/3; None for other files.

    To open such a path again would cut off a file that the shell has opened to append to.
    """
    own = os.path.realpath("/dev/fd")
    for _ in range(40):  # links in a row, as in the kernel
        if path.name.isdigit() and os.path.realpath(path.parent) == own:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None


@contextlib.contextmanager
def _through(path: Path) -> Iterator[IO[bytes]]:
    number = _descriptor(path)
    opened = os.open(path, os.O_WRONLY) if number is None else os.dup(number)
    with os.fdopen(opened, "wb") as file:
        yield file


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    before = target.stat() if os.path.lexists(target) else None
    if before is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    part = target.with_name(_part_name(target))
    try:
        with part.open("xb") as file:
            if before is not None:
                _take_over(part, before)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        _sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _part_name(target: Path) -> str:
    """Another one each time, so that writers of one file do not meet; also for a name of the
    greatest length."""
    return f".{target.name[:50]}.{secrets.token_hex(8)}.part"


def remove_parts(path: Path) -> None:
    """Remove what a killed writer of `path` left behind. Nobody else may be writing it."""
    for part in path.parent.glob(f".{path.name[:50]}.*part"):
        with contextlib.suppress(OSError):
            part.unlink()


def _take_over(part: Path, before: os.stat_result) -> None:
    """Give a new file the owner and the mode of the one that it will replace."""
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(part, before.st_uid, before.st_gid)
    os.chmod(part, stat.S_IMODE(before.st_mode))


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
    part = path.with_name(_part_name(path))
    try:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            kind = "a folder that is not empty" if path.is_dir() else "a file"
            raise InputError(f"{path} is {kind}; nothing is overwritten")
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
