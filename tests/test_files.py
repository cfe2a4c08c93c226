import errno
import os
import subprocess

import pytest

from longstate._files import write_whole
from longstate.errors import InputError


def test_writes_text_and_bytes_and_makes_folders(tmp_path):
    write_whole(tmp_path / "a" / "b", "é")
    assert (tmp_path / "a" / "b").read_bytes() == "é".encode()
    write_whole(tmp_path / "a" / "b", b"new")
    assert (tmp_path / "a" / "b").read_bytes() == b"new"
    assert os.listdir(tmp_path / "a") == ["b"]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(name, tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_whole(path, "old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, name, full)
    with pytest.raises(InputError, match=r"f cannot be written: No space left .*; the file there"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.skipif(not os.path.exists("/proc/mounts"), reason="needs Linux")
def test_a_truly_full_disk(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system needs privileges")
    try:
        write_whole(small / "f", b"x" * 1000)
        with pytest.raises(
            InputError, match="No space left on device; the file there is unchanged"
        ):
            write_whole(small / "f", b"y" * 100_000)
        assert (small / "f").read_bytes() == b"x" * 1000
        assert os.listdir(small) == ["f"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_an_impossible_path_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written: .*[Nn]ot a directory|File exists"):
        write_whole(tmp_path / "file" / "f", "x")
    with pytest.raises(InputError, match=r"cannot be written: .*too long"):
        write_whole(tmp_path / ("x" * 300), "x")


def test_a_read_only_folder(tmp_path, monkeypatch):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere
        from pathlib import Path

        def locked(*arguments, **options):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(Path, "open", locked)
    with pytest.raises(InputError, match="f cannot be written: Permission denied"):
        write_whole(folder / "f", "x")
    folder.chmod(0o700)
