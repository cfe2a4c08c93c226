"""Common parts of `bit_identity.py` and `paired_speed.py`: two source trees, one process for each.

A tree is a folder that contains `longstate/`. A worker process imports longstate from one tree. The
cases come from this folder, so that both trees get the same inputs. The first line that a worker
prints after a command line is its answer, in JSON.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent


@contextlib.contextmanager
def revision(name: str) -> Iterator[Path]:
    """Context manager: a temporary folder with the source of a git revision."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "-C", str(CHECKOUT), "archive", "--format=tar", name, "longstate"],
            stdout=subprocess.PIPE,
        )
        if archive.returncode:
            raise SystemExit(f"there is no revision {name!r} with a longstate/ in it")
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


@contextlib.contextmanager
def tree(folder_or_revision: str) -> Iterator[Path]:
    """Context manager: a folder, or the source of a git revision."""
    folder = Path(folder_or_revision)
    if (folder / "longstate").is_dir():
        yield folder.resolve()
    else:
        with revision(folder_or_revision) as folder:
            yield folder


def kernel_cache(folder: Path) -> Path:
    """The folder of a tree's compiled kernels, kept between runs. Numba's cache does not notice
    edits in files that a kernel inlines, so a tree with other sources has another cache."""
    digest = hashlib.sha256()
    for path in sorted((folder / "longstate" / "ops").rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return Path(tempfile.gettempdir()) / f"longstate-kernels-{digest.hexdigest()[:16]}"


class Worker:
    """A process of `script` with longstate from `folder` and compiled kernels in `cache`. It
    answers each line with one line."""

    def __init__(self, folder: Path, script: str, threads: int, cache: Path):
        environment = os.environ | {
            "PYTHONPATH": f"{folder}{os.pathsep}{HERE}",
            "NUMBA_CACHE_DIR": str(cache),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": str(threads),
        }
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), "--work"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE,
        )  # fmt: skip

    def send(self, question: Any) -> None:
        """Send a question, a JSON value. The process starts to work on it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        self._question = question

    def receive(self) -> Any:
        """The answer to the last question."""
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process on {self.folder} ended at {self._question}")
        return json.loads(answer)

    def ask(self, question: Any) -> Any:
        self.send(question)
        return self.receive()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def answer_questions(answer: Any) -> None:
    """Be a worker: `answer` each line that comes in until there are no more."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # other output goes to standard error
    for line in sys.stdin:
        out.write(json.dumps(answer(json.loads(line))) + "\n")
        out.flush()
