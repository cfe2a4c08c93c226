"""Trained models on disk, so that a script that trains some is quick when it runs again.

They are in `benchmarks/trained/`, which git ignores, under the name of the run and a digest of its
settings: another setting is another model. Delete the folder after a change of the training itself.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longstate import load

FOLDER = Path(__file__).parent / "trained"


def kept(name: str, settings: object, train: Callable[[], Any]) -> Any:
    """The model of that name and those settings, trained if it is not there yet.

    Args:
        name: of the run, with its seed.
        settings: everything else that the training depends on; its `repr` counts.
        train: returns something with `save`.
    """
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:8]
    path = FOLDER / f"{name}_{digest}.safetensors"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        print(f"training {name}", flush=True)
        train().save(path)
    return load(path)
