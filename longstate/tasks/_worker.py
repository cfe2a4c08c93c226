"""A process that trains: one line of JSON in is one run, one line out says that it is done.

The outcome is a file in the folder that the line names. The process ends when its input ends, and
when the process that started it has ended, also inside a run.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from longstate._files import write_whole


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    parent, answers = os.getppid(), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a user's layer prints must not mix with the answers
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        said = _one(json.loads(line), lambda: os.getppid() == parent)
        if said is None:
            return
        answers.write(json.dumps(said) + "\n")
        answers.flush()


def _one(job: dict[str, Any], go_on: Any) -> dict[str, Any] | None:
    from longstate.tasks._settings import Run, Settings
    from longstate.tasks._train import execute

    run = Run(**{**job["run"], "settings": Settings(**job["run"]["settings"])})
    try:
        found = execute(run, go_on)
        if found is None:
            return None
        write_whole(Path(job["folder"]) / run.file(), json.dumps(found, allow_nan=False))
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        return {"error": f"{type(error).__name__}: {said}".rstrip(": ")}
    return {}


if __name__ == "__main__":
    main()
