"""A training for `torchrun`. Arguments: folder with the text, name of the run, "die" to kill rank 1
once, and settings in JSON."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from longstate.train._ranks import process_group
from tests.train.text_helpers import tiny


def die_after(checkpoint: Path) -> None:
    while not checkpoint.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder, run, fate = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    settings = json.loads(sys.argv[4])
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if fate == "die" and first and os.environ["RANK"] == "1":
        at = folder / run / "checkpoint.safetensors"
        threading.Thread(target=die_after, args=(at,), daemon=True).start()
    if not first and os.environ["RANK"] == "0":
        time.sleep(3)  # rank 1 looks for it meanwhile, and must not find what was there before
    with process_group():
        tiny(layers="s4d", steps=40, **settings).fit(folder / "text", out=folder / run)
    if os.environ["RANK"] == "0":
        (folder / f"{run}.txt").write_text(os.environ["TORCHELASTIC_RESTART_COUNT"])
