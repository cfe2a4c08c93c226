"""What import-linter cannot see: what a bare import costs and loads, and how large files grow."""

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "longstate"

FILE_LINES = 300
FUNCTION_LINES = 50
KERNEL_LINES = 150
CONSTRUCTOR_OPTIONS = 8

HEAVY = (
    "numba", "triton", "pandas", "matplotlib", "rich", "typer", "safetensors", "scipy",
    "transformers",
)  # fmt: skip


def sources(*folders: str) -> list[Path]:
    return sorted(p for f in folders for p in (ROOT / f).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that a file names in an import, at any depth: `a.b` for `from a import b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def users_of(module: str) -> set[str]:
    """Files of the package, relative to it, that import `module` or something in it."""
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in sources("longstate")
        if any(name == module or name.startswith(module + ".") for name in imported(parse(path)))
    }


def python(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_import_loads_nothing_heavy():
    # torch may load any of these itself; what counts is what we add.
    loaded = python(
        "import sys, torch; before = set(sys.modules); import longstate;"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    ).split()
    assert "longstate" in loaded
    assert not set(loaded) & set(HEAVY)


def test_import_takes_little_longer_than_torch():
    def seconds(module: str) -> float:
        began = time.perf_counter()
        python(f"import {module}")
        return time.perf_counter() - began

    seconds("longstate")  # writes the .pyc files and warms the disk
    # Alternating, and the minimum of each: another process's burst hits both or neither.
    pairs = [(seconds("torch"), seconds("longstate")) for _ in range(4)]
    torch, longstate = map(min, zip(*pairs, strict=True))
    assert longstate < 1.5 * torch, (
        f"import torch {torch:.2f} s, import longstate {longstate:.2f} s"
    )


def test_only_cpu_files_import_numba():
    """`cpu.py`, what it calls (`cpu_*.py`), and the base of all kernels, which only they import."""
    for module in ("numba", "longstate.ops._numba"):
        allowed = r"ops/(.*/cpu(_\w+)?|_numba/\w+)\.py"
        assert {p for p in users_of(module) if not re.fullmatch(allowed, p)} == set()


def test_only_triton_files_import_triton():
    """`triton.py`, its kernels where it has many (`triton_*.py`), and the base of all kernels."""
    for module in ("triton", "longstate.ops._triton"):
        allowed = r"ops/(.*/triton(_\w+)?|_triton/\w+)\.py"
        assert {p for p in users_of(module) if not re.fullmatch(allowed, p)} == set()


def test_only_train_and_parallel_import_distributed():
    allowed = ("train/", "parallel/")
    assert {p for p in users_of("torch.distributed") if not p.startswith(allowed)} == set()


@pytest.mark.parametrize("path", sources("longstate"), ids=lambda p: str(p.relative_to(ROOT)))
def test_implementations_do_not_import_each_other(path):
    if path.stem not in ("reference", "cpu", "triton") or path.parent.parent.name != "ops":
        return
    op = f"longstate.ops.{path.parent.name}"
    siblings = {f"{op}.{name}" for name in ("reference", "cpu", "triton")}
    assert not siblings & set(imported(parse(path)))


def test_files_are_short():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources("longstate", "tests", "benchmarks", "examples", "tools")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES
    }
    assert not long, f"files over {FILE_LINES} lines: {long}"


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body without the docstring: to explain or to declare options is not to grow."""
    documented = ast.get_docstring(function, clean=False) is not None
    body = function.body[1:] if documented else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_are_short():
    long = {
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}": lines
        for path in sources("longstate")
        for function in functions(parse(path))
        if (lines := code_lines(function))
        > (KERNEL_LINES if "ops" in path.parts else FUNCTION_LINES)
    }
    assert not long, f"functions over {FUNCTION_LINES} lines ({KERNEL_LINES} in ops): {long}"


def test_constructors_have_few_options():
    """Except where another library has published the signature."""
    wide = {}
    published = PACKAGE / "interop" / "mamba_ssm"
    for path in sources("longstate"):
        if path.parent == published:
            continue
        for function in functions(parse(path)):
            arguments = function.args
            options = len(arguments.defaults) + len(arguments.kwonlyargs)
            if function.name == "__init__" and (options > CONSTRUCTOR_OPTIONS or arguments.kwarg):
                wide[f"{path.relative_to(ROOT)}:{function.lineno}"] = options
    assert not wide, f"constructors with over {CONSTRUCTOR_OPTIONS} options or **kwargs: {wide}"


def test_annotations_are_not_strings():
    # As strings they would hide from the shape checks that tests turn on.
    lazy = [p for p in sources("longstate") if "__future__.annotations" in imported(parse(p))]
    assert lazy == []
