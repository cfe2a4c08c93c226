"""What is written to is no regular file, or is one with a mode, a link or other writers.

No test names a file of the system itself: a writer that replaced it would do so for everybody.
"""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from longstate import _tensorfile as tensorfile
from longstate._files import empty_folder, new_folder, write_whole
from longstate._lock import only_writer
from longstate.errors import InputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes and FIFOs of POSIX")
ROOT = Path(__file__).resolve().parent.parent
WRITE = "import sys; from longstate._files import write_whole; write_whole(sys.argv[1], 'new\\n')"


def written_by_a_process(path, **options):
    return subprocess.run(
        [sys.executable, "-c", WRITE, str(path)], cwd=ROOT, check=True, **options
    ).stdout


def test_a_fifo_is_written_through(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()), daemon=True)
    reader.start()
    write_whole(fifo, "é")
    reader.join(10)
    assert got == ["é".encode()]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert os.listdir(tmp_path) == ["fifo"]


def test_a_device_stays_a_device(tmp_path):
    null, link = tmp_path / "null", tmp_path / "link"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        null.open("wb").close()
    except PermissionError:
        pytest.skip("devices cannot be made, or not be opened, here")
    link.symlink_to("null")
    for path in (null, link):
        write_whole(path, "x")
    assert stat.S_ISCHR(null.stat().st_mode)
    assert link.is_symlink()


def test_a_terminal_is_written_through():
    master, slave = os.openpty()
    write_whole(os.ttyname(slave), "x\n")
    assert os.read(master, 10) == b"x\r\n"
    os.close(slave)
    os.close(master)


@pytest.mark.parametrize("place", ["/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output(place, tmp_path):
    if not os.path.exists(place):
        pytest.skip(f"there is no {place}")
    name = tmp_path / "stdout"  # as /dev/stdout is
    name.symlink_to(place)
    assert written_by_a_process(name, stdout=subprocess.PIPE) == b"new\n"
    log = tmp_path / "log"
    log.write_text("old\n")
    inode = log.stat().st_ino
    with log.open("ab") as file:  # as `>>` does
        written_by_a_process(name, stdout=file)
    assert log.read_text() == "old\nnew\n"
    assert log.stat().st_ino == inode
    assert sorted(os.listdir(tmp_path)) == ["log", "stdout"]
    assert name.is_symlink()


def test_a_socket_is_refused_with_a_message(tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(InputError, match="s cannot be written: "):
            write_whole(tmp_path / "s", "x")
    assert stat.S_ISSOCK((tmp_path / "s").stat().st_mode)


def test_a_link_is_followed(tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target", tmp_path / "link"
    link.symlink_to("far/target")
    for text in ("new", "newer"):  # at first the target is not there
        write_whole(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert os.listdir(tmp_path / "far") == ["target"]
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(InputError, match="circle cannot be written: Too many levels"):
        write_whole(tmp_path / "circle", "x")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_the_mode_of_a_file_stays(mode, tmp_path):
    path = tmp_path / "f"
    path.touch()
    path.chmod(mode)
    write_whole(path, "x")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_follows_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "f", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666 & ~umask


def test_a_file_that_must_not_be_written_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anything
    with pytest.raises(InputError, match="f cannot be written: Permission denied"):
        write_whole(path, "x")
    assert path.read_text() == "old"


def test_names_of_maximum_length_are_written(tmp_path):
    for name in ("a" * 255, "é" * 127):
        write_whole(tmp_path / name, "x")
    assert len(os.listdir(tmp_path)) == 2


def test_many_writers_of_one_file_do_not_interfere(tmp_path):
    path = tmp_path / "f"
    code = (
        "import sys; from longstate._files import write_whole\n"
        "for _ in range(100): write_whole(sys.argv[1], sys.argv[2] * 50_000)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), letter], cwd=ROOT)
        for letter in "abcd"
    ]
    torn = 0
    while any(writer.poll() is None for writer in writers):
        text = path.read_text() if path.exists() else ""
        torn += bool(text) and (len(text) != 50_000 or len(set(text)) != 1)
    assert [writer.returncode for writer in writers] == [0] * 4
    assert torn == 0
    assert os.listdir(tmp_path) == ["f"]


def test_two_writers_of_one_folder_do_not_interfere(tmp_path):
    with new_folder(tmp_path / "f") as one:
        with new_folder(tmp_path / "f") as two:
            (two / "b").touch()
        assert one != two
        (tmp_path / "f" / "b").unlink()
        (one / "a").touch()
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_a_folder_whose_name_is_taken(kind, tmp_path):
    """The message is not "File exists": what is there is no folder."""
    taken = tmp_path / "taken"
    if kind == "file":
        taken.write_text("mine")
    else:
        os.mkfifo(taken)
    before = os.lstat(taken)
    for use in (lambda: only_writer(taken).__enter__(), lambda: write_whole(taken / "a", "new")):
        with pytest.raises(InputError, match=r"taken.* cannot be written: Not a directory"):
            use()
    assert os.lstat(taken) == before
    assert os.listdir(tmp_path) == ["taken"]


def test_a_fifo_is_no_file_of_ours(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="fifo is not a regular file; a longstate layer file was"):
        tensorfile.load(tmp_path / "fifo", "layer")


def test_an_empty_folder_is_there_from_the_beginning(tmp_path):
    with empty_folder(tmp_path / "a" / "run") as folder:
        assert folder.is_dir()
        (folder / "x").touch()
    assert (tmp_path / "a" / "run" / "x").exists()
    again = pytest.raises(InputError, match=r"run is not empty; choose a new folder")
    with again, empty_folder(tmp_path / "a" / "run"):
        pass
    (tmp_path / "file").touch()
    for name in ("file", "file/run"):
        refused = pytest.raises(InputError, match="cannot be written: Not a directory")
        with refused, empty_folder(tmp_path / name):
            raise AssertionError("the work began")
    with pytest.raises(RuntimeError), empty_folder(tmp_path / "unused"):
        raise RuntimeError
    assert not (tmp_path / "unused").exists()
