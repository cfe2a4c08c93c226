"""Write files and folders atomically. The whole package uses this writer.

The data is written to a temporary file in the same folder, synced to disk, and the file is renamed.
So other processes, and a computer after a power failure, find the old or the new file, never a part
of one. A path that is not a regular file (a device, a FIFO, /dev/stdout) is written directly, as by
`>` in a shell.
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
    """Write a file; text is encoded as UTF-8. See `writing`.

    Raises:
        InputError: it cannot be written. A regular file is unchanged.
    """
    with writing(path) as file:
        file.write(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[IO[bytes]]:
    """Context manager: a file to write piece by piece. It becomes `path` if the block ends without
    an error.

    Symbolic links are followed. An existing file keeps its mode and, if allowed, its owner; a new
    file has the mode of the umask. Missing folders are made.

    Raises:
        InputError: it cannot be written. A regular file is unchanged.
    """
    path = Path(path)
    try:
        with _through(path) if is_stream(path) else _replacing(path) as file:
            yield file
    except OSError as e:
        here = os.path.isfile(path) and not is_stream(path)  # `Path.is_file` raises for long names
        kept = "; the file there is unchanged" if here else ""
        raise InputError(f"{path} cannot be written: {e.strerror or e}{kept}") from None


def is_stream(path: str | Path) -> bool:
    """Whether `path` is not a regular file that can be replaced: a device, a FIFO, a socket, or an
    open file of this process such as /dev/stdout."""
    path = Path(path)
    if _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _descriptor(path: Path) -> int | None:
    """The file descriptor of /dev/stdout, /dev/fd/3 or /proc/self/fd/3; None for other files.

    Opening such a path again would truncate a file that a shell has opened for appending.
    """
    own = os.path.realpath("/dev/fd")
    for _ in range(40):  # as many links as Linux follows
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
    make_folder(target.parent)
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


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, if it is not there.

    Raises:
        NotADirectoryError: something else has its name, or that of a parent.
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _part_name(target: Path) -> str:
    """A new temporary name each time, so that several processes can write one file. It is short
    enough for any name of the file."""
    return f".{target.name[:50]}.{secrets.token_hex(8)}.part"


def remove_parts(path: Path) -> None:
    """Remove temporary files of killed writers of `path`. No other process may be writing it."""
    for part in path.parent.glob(f".{path.name[:50]}.*part"):
        with contextlib.suppress(OSError):
            part.unlink()


def _take_over(part: Path, before: os.stat_result) -> None:
    """Give a new file the owner and the mode of the file that it will replace."""
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


@contextlib.contextmanager
def empty_folder(path: str | Path) -> Iterator[Path]:
    """Context manager: a folder to fill, which is there from the beginning, so that work that takes
    long does not end at a name that cannot be used. It is removed if it was new and stays empty.

    Raises:
        InputError: it is not empty, or it cannot be made.
    """
    path = Path(path)
    there = path.exists()
    try:
        if there and any(path.iterdir()):
            raise InputError(f"{path} is not empty; choose a new folder")
        make_folder(path)
    except OSError as e:
        raise InputError(f"{path} cannot be written: {e.strerror or e}") from None
    try:
        yield path
    finally:
        if not there:
            with contextlib.suppress(OSError):  # it has files
                path.rmdir()


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
