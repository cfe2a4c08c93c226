"""The command line, of which rank 1 kills itself once: killed_rank.py STEP ARGUMENTS..."""

import os
import signal
import sys
from pathlib import Path

from longstate import cli
from longstate.train import _loop

step, take_step = int(sys.argv.pop(1)), _loop._step


def killed(run, batch):
    mark = Path(sys.argv[sys.argv.index("--out") + 1]).parent / "killed"
    if os.environ["RANK"] == "1" and run.progress.step == step and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    take_step(run, batch)


if __name__ == "__main__":
    _loop._step = killed
    cli.main()
