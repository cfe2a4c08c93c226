"""A folder that one process at a time writes into, until it ends in whatever way.

The lock is the operating system's, which takes it back when a process is killed: `flock` on the
folder itself, and on Windows a locked file in it.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from longstate.errors import InputError


@contextlib.contextmanager
def only_writer(folder: str | Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, and goes again if nothing was put into it.

    A file system that knows no locks, as some network folders, is used without.

    Raises:
        InputError: another process or thread holds it, or it cannot be made.
    """
    folder = Path(folder)
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = _held(folder)
    except BlockingIOError:
        raise InputError(
            f"{folder} is in use: another training writes into it; wait until that ends, or "
            "choose another folder"
        ) from None
    except OSError as e:
        raise InputError(f"{folder} cannot be written: {e.strerror or e}") from None
    try:
        yield
    finally:
        held.close()
        for empty in made:
            with contextlib.suppress(OSError):
                empty.rmdir()


if sys.platform == "win32":
    import msvcrt

    def _held(folder: Path) -> contextlib.ExitStack:
        name = folder / ".lock"
        file = name.open("wb")
        stack = contextlib.ExitStack()
        stack.callback(lambda: name.unlink(missing_ok=True))
        stack.callback(file.close)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            file.close()
            raise BlockingIOError from None
        return stack

else:
    import fcntl

    def _held(folder: Path) -> contextlib.ExitStack:
        number = os.open(folder, os.O_RDONLY)
        stack = contextlib.ExitStack()
        stack.callback(os.close, number)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
                stack.close()
                raise BlockingIOError from None
        return stack
