"""Run the examples and store their pictures and their output, for the gallery of the site.

    python tools/draw_examples.py [NAME ...]

Writes examples/figures/NAME.svg and NAME.txt. `tests/test_examples.py` runs the examples too, and
fails if the stored files are out of date.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
FIGURES = EXAMPLES / "figures"


def run(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one example in a separate folder, with the colours of the gallery."""
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    settings = {
        "MPLBACKEND": "Agg",
        "MATPLOTLIBRC": str(FIGURES / "matplotlibrc"),
        "SOURCE_DATE_EPOCH": "0",
        "PYTHONPATH": search,
    }
    return subprocess.run(
        [sys.executable, str(path)],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def main(names: list[str]) -> None:
    paths = [EXAMPLES / f"{name}.py" for name in names] or sorted(EXAMPLES.glob("*.py"))
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            done = run(path, Path(folder))
            if done.returncode:
                sys.exit(f"{path.name} failed:\n{done.stderr}")
            picture = (Path(folder) / f"{path.stem}.svg").read_text("utf-8")
        (FIGURES / f"{path.stem}.svg").write_text(picture, "utf-8")
        (FIGURES / f"{path.stem}.txt").write_text(done.stdout, "utf-8")
        print(f"{path.stem}: {len(picture) // 1000} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
