"""Many runs at the same time: processes with one thread each, one for each core."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from longstate.errors import InputError
from longstate.tasks._settings import Run

_ONE = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class Pool:
    """Context manager: processes that wait for runs.

    Args:
        count: of processes.
        folder: for the outcomes.
    """

    def __init__(self, count: int, folder: Path):
        self.count, self.folder = count, folder
        self._workers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    stream.close()

    def run(self, runs: Sequence[Run], done: Callable[[Run, str | None], None]) -> None:
        """Do all runs, and call `done` with each as it ends, and with the error if it failed.

        Raises:
            InputError: a process ended by itself, for example for lack of memory.
        """
        while len(self._workers) < min(self.count, len(runs)):
            self._workers.append(_start())
        waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
        ended: queue.SimpleQueue[tuple[Run, str | None]] = queue.SimpleQueue()
        for run in runs:
            waiting.put(run)
        for worker in self._workers:
            threading.Thread(target=self._serve, args=(worker, waiting, ended), daemon=True).start()
        for _ in runs:
            while True:
                try:
                    run, error = ended.get(timeout=0.2)  # without a limit Ctrl-C would wait too
                    break
                except queue.Empty:
                    continue
            if error == _DIED:
                raise InputError(
                    f"the process that trained {run.layer} on {run.task} ended by itself, perhaps "
                    "for lack of memory; the same command goes on with fewer --workers"
                )
            done(run, error)

    def _serve(
        self,
        worker: "subprocess.Popen[str]",
        waiting: "queue.SimpleQueue[Run]",
        ended: "queue.SimpleQueue[tuple[Run, str | None]]",
    ) -> None:
        assert worker.stdin is not None
        assert worker.stdout is not None
        while True:
            try:
                run = waiting.get_nowait()
            except queue.Empty:
                return
            answer = ""
            try:
                job = {"run": asdict(run), "folder": str(self.folder)}
                worker.stdin.write(json.dumps(job) + "\n")
                worker.stdin.flush()
                answer = worker.stdout.readline()
            except (OSError, ValueError):
                pass
            if not answer:
                ended.put((run, _DIED))
                return
            ended.put((run, json.loads(answer).get("error")))


_DIED = "died"


def _start() -> "subprocess.Popen[str]":
    environment = {**os.environ, **_ONE, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", "longstate.tasks._worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=environment,
    )
