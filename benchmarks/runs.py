"""Finished runs of a study as lines of JSON, so that a study that was stopped goes on."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Run = dict[str, Any]


class Runs:
    """A file of runs, each with the fields that name it and those that were found.

    Args:
        path: the file; made with the first run.
        names: the fields that name a run.
    """

    def __init__(self, path: Path, names: tuple[str, ...]):
        self.path, self.names = path, names
        path.parent.mkdir(parents=True, exist_ok=True)

    def all(self) -> list[Run]:
        """Each run once; a line that was cut short is ignored."""
        found: dict[tuple[Any, ...], Run] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                run = json.loads(line)
            except json.JSONDecodeError:
                continue
            found.setdefault(tuple(run[name] for name in self.names), run)
        return list(found.values())

    def has(self, **named: Any) -> bool:
        return any(all(run[name] == named[name] for name in self.names) for run in self.all())

    def add(self, run: Run) -> None:
        whole = self.path.read_bytes() if self.path.exists() else b""
        torn = bool(whole) and not whole.endswith(b"\n")
        with self.path.open("a") as file:
            file.write("\n" * torn + json.dumps(run) + "\n")


def seeds_of(
    runs: Runs, seeds: int, do: Callable[[int], dict[str, Any]], **named: Any
) -> Iterator[Run]:
    """The run of every seed under this name, from the file or done now and kept."""
    for seed in range(seeds):
        if not runs.has(seed=seed, **named):
            runs.add({**named, "seed": seed, **do(seed)})
            print(runs.all()[-1], flush=True)
        wanted = {**named, "seed": seed}
        yield next(r for r in runs.all() if all(r[k] == v for k, v in wanted.items()))
