"""Print the size of longstate/ops: lines, files, functions, annotations, arguments.

    python tools/ops_yardstick.py [FOLDER]

Exit status 1 if a bound is missed. A function's lines are those of its body without the docstring.
"""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

BOUNDS = {"lines": 6600, "files": 48, "median lines of a function": 8, "most arguments": 12}
ANNOTATED = 80  # percent, at least

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    documented = ast.get_docstring(function, clean=False) is not None
    body = function.body[1:] if documented else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def positional(function: Function) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args]


def arguments(function: Function) -> list[ast.arg]:
    """All but `self` and `cls`."""
    found = [*positional(function), *function.args.kwonlyargs]
    return [x for x in found if x.arg not in ("self", "cls")]


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "longstate" / "ops"
    files = sorted(folder.rglob("*.py"))
    sources = [path.read_text(encoding="utf-8") for path in files]
    all_functions = [f for source in sources for f in functions(ast.parse(source))]
    every = [x for f in all_functions for x in arguments(f)]
    annotated = 100 * sum(x.annotation is not None for x in every) / len(every)
    found = {
        "lines": sum(len(source.splitlines()) for source in sources),
        "files": len(files),
        "median lines of a function": statistics.median(map(body_lines, all_functions)),
        "most arguments": max(len(positional(f)) for f in all_functions),
    }
    for name, value in found.items():
        print(f"{name:30}{value:>8}   at most {BOUNDS[name]}")
    print(f"{'annotated arguments, %':30}{annotated:>8.1f}   at least {ANNOTATED}")
    wide = [f for f in all_functions if len(positional(f)) > BOUNDS["most arguments"]]
    if wide:
        print("too many arguments:", ", ".join(f"{f.name} ({len(positional(f))})" for f in wide))
    missed = [name for name, value in found.items() if value > BOUNDS[name]]
    return 1 if missed or annotated < ANNOTATED else 0


if __name__ == "__main__":
    sys.exit(main())
