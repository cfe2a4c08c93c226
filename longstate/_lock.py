"""Lock a folder, so that only one process writes into it.

The operating system releases the lock when the process ends, also when it is killed. It is `flock`
on the folder, and on Windows a locked file in the folder.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from longstate._files import make_folder
from longstate.errors import InputError


@contextlib.contextmanager
def only_writer(folder: str | Path) -> Iterator[None]:
    """Context manager: lock a folder. It is made if it does not exist, and removed if it is empty
    at the end.

    On file systems without locks, such as some network folders, it is not locked.

    Raises:
        InputError: another process or thread has locked it, or it cannot be made.
    """
    folder = Path(folder)
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        make_folder(folder)
        held = _held(folder)
    except BlockingIOError:
        raise InputError(
            f"{folder} is in use by another training; wait until that has ended, or choose another "
            "folder"
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

    def _remove(name: Path) -> None:
        with contextlib.suppress(OSError):  # another process has it open, or has removed it
            name.unlink()

    def _held(folder: Path) -> contextlib.ExitStack:
        name = folder / ".lock"
        file = name.open("ab")  # without truncation, which a locked file refuses
        stack = contextlib.ExitStack()
        stack.callback(_remove, name)
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
