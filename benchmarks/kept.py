"""Trained models on disk, so that a script that trains some is quick when it runs again.

They lie in `benchmarks/trained/`, which git ignores, under the name of the run and a digest of the
file that trains them: an edit of that file trains anew.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longstate import load

FOLDER = Path(__file__).parent / "trained"


def kept(name: str, script: str, train: Callable[[], Any]) -> Any:
    """The model of that name, trained if it is not there yet.

    Args:
        name: of the run; it names the seed and every setting that the script varies.
        script: `__file__` of what trains it.
        train: returns something with `save`.
    """
    digest = hashlib.sha256(Path(script).read_bytes()).hexdigest()[:8]
    path = FOLDER / f"{name}_{digest}.safetensors"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        print(f"training {name}", flush=True)
        train().save(path)
    return load(path)
