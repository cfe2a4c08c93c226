"""The lock of a folder as Windows has it, with a stand-in for the module `msvcrt`."""

import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import longstate._lock
from longstate.errors import InputError

LK_NBLCK = 2


class Locks:
    """Locks of whole files, which closing a file gives back."""

    def __init__(self):
        self.held, self.calls = {}, []

    def locking(self, number, mode, count):
        self.calls.append((mode, count))
        file = os.fstat(number)
        for other, key in self.held.items():
            if key == (file.st_dev, file.st_ino) and other != number and is_open(other, key):
                raise PermissionError(13, "Permission denied")
        self.held[number] = (file.st_dev, file.st_ino)


def is_open(number, key):
    try:
        found = os.fstat(number)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == key


@pytest.fixture
def windows(monkeypatch):
    """The module as it is imported there, and the locks."""
    locks = Locks()
    fake = SimpleNamespace(locking=locks.locking, LK_NBLCK=LK_NBLCK)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    spec = importlib.util.spec_from_file_location("lock_on_windows", longstate._lock.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, locks


def test_one_writer_at_a_time(windows, tmp_path):
    module, locks = windows
    folder = tmp_path / "a" / "run"
    with module.only_writer(folder):
        assert (folder / ".lock").exists()
        assert locks.calls == [(LK_NBLCK, 1)]  # at once or not at all, one byte
        with (
            pytest.raises(InputError, match="run is in use"),
            module.only_writer(folder),
        ):
            pass
        assert (folder / ".lock").exists()  # the one who waits does not take it away
        (folder / "model").touch()
    assert sorted(p.name for p in folder.iterdir()) == ["model"]
    with module.only_writer(folder):
        pass
    assert len(locks.calls) == 3


def test_nothing_is_left_of_a_folder_without_files(windows, tmp_path):
    with windows[0].only_writer(tmp_path / "a" / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_another_process_has_open_cannot_be_removed(windows, tmp_path, monkeypatch):
    """Windows refuses that; the training ends well all the same, and the next one takes it over."""

    def refuse(path, missing_ok=False):
        raise PermissionError(13, "the file is in use by another process")

    with monkeypatch.context() as m:
        m.setattr(Path, "unlink", refuse)
        with windows[0].only_writer(tmp_path / "run"):
            pass
    assert (tmp_path / "run" / ".lock").exists()
    with windows[0].only_writer(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_an_exception_gives_it_back(windows, tmp_path):
    with pytest.raises(KeyError), windows[0].only_writer(tmp_path / "run"):
        raise KeyError
    with windows[0].only_writer(tmp_path / "run"):
        pass
