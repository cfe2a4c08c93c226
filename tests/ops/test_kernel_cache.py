"""Compiled kernels on disk: never older than the sources, and kept wherever there is a place."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import longstate
from longstate.ops._numba import compiled

SHARED = """
from longstate.ops._numba import inlined

@inlined
def scaled(x):
    return {factor} * x
"""
PROBE = """
from longstate.ops._numba import kernel
from longstate.ops._shared import scaled

@kernel
def probe(x, y):
    for j in range(len(x)):
        y[j] = scaled(x[j])
"""
RUN = """
import sys
import numpy
from longstate.ops._probe import probe

y = numpy.empty(1, sys.argv[1])
probe(numpy.ones(1, sys.argv[1]), y)
print(int(y[0]), sum(probe.stats.cache_hits.values()), probe.stats.cache_path)
"""


class Found(NamedTuple):
    value: int
    hits: int
    folder: str
    said: str


class Copy:
    """A copy of the package with a kernel that calls a function in another file."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.ops = folder / "longstate" / "ops"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(longstate.__file__).parent, folder / "longstate", ignore=ignored)
        (self.ops / "_probe.py").write_text(PROBE)
        self.edit(2)

    def edit(self, factor: int) -> None:
        (self.ops / "_shared.py").write_text(SHARED.format(factor=factor))

    def run(self, *before: str, dtype: str = "float64", **environment: str) -> Found:
        clean = {key: v for key, v in os.environ.items() if not key.startswith("NUMBA_")}
        clean |= {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [*before, sys.executable, "-W", "ignore", "-c", RUN, dtype],
            cwd=self.folder, env=clean | environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        value, hits, folder = done.stdout.split()
        return Found(int(value), int(hits), folder, done.stderr)

    def block(self) -> None:
        """Make writing beside the sources impossible, also for root."""
        for folder in (self.ops, self.ops / "_numba"):
            (folder / "__pycache__").write_text("a file, and no folder")


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


def test_an_edit_in_a_shared_file_recompiles_kernels(copy):
    assert copy.run()[:2] == (2, 0)
    assert copy.run()[:2] == (2, 1)  # the cache is in use
    before = sorted(path.name for path in copy.ops.rglob("*.nbc"))
    assert any(name.startswith("_probe.probe") for name in before)
    copy.edit(3)
    assert copy.run()[:2] == (3, 0)
    assert copy.run()[:2] == (3, 1)
    probe = copy.ops / "_probe.py"
    probe.write_text("# moves every line\n" + PROBE)
    assert copy.run()[:2] == (3, 0)
    assert sorted(path.name for path in copy.ops.rglob("*.nbc")) == before  # replaced


def test_every_signature_has_a_file_of_its_own(copy):
    """Numba numbers them, and two processes at once can give two signatures the same number."""
    kept = {}
    for dtype in ("float32", "float64"):
        assert copy.run(dtype=dtype)[:2] == (2, 0)
        (kept[dtype],) = set(copy.ops.glob("**/_probe.probe*.nbc")) - set(kept.values())
        assert copy.run(dtype=dtype)[:2] == (2, 1)
    assert not list(copy.ops.rglob("*.nbi"))
    assert not list(copy.ops.rglob("*.tmp"))
    single, double = (path.read_bytes() for path in kept.values())
    kept["float32"].write_bytes(double)
    kept["float64"].write_bytes(single)
    for dtype in kept:
        assert copy.run(dtype=dtype)[:2] == (2, 0)  # seen, and compiled again
        assert copy.run(dtype=dtype)[:2] == (2, 1)


@pytest.mark.parametrize(
    "share", [0.0, 0.5, *(pytest.param(x, marks=pytest.mark.slow) for x in (0.01, 0.999))]
)
def test_a_file_that_was_cut_off_is_compiled_again(copy, share):
    copy.run()
    (path,) = copy.ops.glob("**/_probe.probe*.nbc")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert copy.run()[:2] == (2, 0)
    assert copy.run()[:2] == (2, 1)


def test_a_read_only_package_is_kept_in_the_users_cache(copy, tmp_path):
    copy.block()
    for hits in (0, 1):
        found = copy.run(XDG_CACHE_HOME=str(tmp_path / "cache"))
        assert found[:2] == (2, hits)
        assert "NUMBA_CACHE_DIR" not in found.said
    if sys.platform == "linux":
        assert found.folder.startswith(str(tmp_path / "cache"))


def test_without_a_writable_folder_it_works_with_one_warning(copy, tmp_path):
    copy.block()
    (tmp_path / "file").write_text("")
    found = copy.run(HOME=str(tmp_path / "file"), XDG_CACHE_HOME=str(tmp_path / "file"))
    assert found[:2] == (2, 0)
    assert found.said.count("NUMBA_CACHE_DIR") == 1


def test_numba_cache_dir_is_respected(copy, tmp_path):
    found = copy.run(NUMBA_CACHE_DIR=str(tmp_path / "chosen"))
    assert found.folder.startswith(str(tmp_path / "chosen"))
    assert copy.run(NUMBA_CACHE_DIR=str(tmp_path / "chosen")).hits == 1


def test_a_chosen_folder_that_cannot_be_written(copy, tmp_path):
    copy.block()
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file")
    found = copy.run(HOME=nowhere, XDG_CACHE_HOME=nowhere, NUMBA_CACHE_DIR=f"{nowhere}/cache")
    assert found[:2] == (2, 0)
    assert found.said.count("NUMBA_CACHE_DIR") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs the rights of Linux")
def test_folders_that_another_user_may_not_write(copy, tmp_path):
    """As in a container: root itself is kept from writing by taking its capabilities."""
    home = tmp_path / "home"
    home.mkdir()
    folders = [home, copy.folder, *(p for p in copy.folder.rglob("*") if p.is_dir())]
    without_rights = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root can write anywhere")
    for folder in folders:
        folder.chmod(0o555)
    try:
        before = without_rights if os.getuid() == 0 else []
        found = copy.run(*before, HOME=str(home), XDG_CACHE_HOME=str(home / "cache"))
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert found[:2] == (2, 0)
    assert found.said.count("NUMBA_CACHE_DIR") == 1
    assert not list(copy.folder.rglob("__pycache__"))


def test_another_version_of_numba_recompiles_kernels(monkeypatch):
    before = compiled.digest.__wrapped__()
    assert compiled.digest.__wrapped__() == before
    monkeypatch.setattr(compiled.numba, "__version__", "0.0")
    assert compiled.digest.__wrapped__() != before
