"""Files of an earlier version, and their inputs. See `README.md`."""

import signal
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

FOLDER = Path(__file__).parent
EXAMPLE_TOKENS = torch.arange(24).view(2, 12) * 7 % 11
EXAMPLE_SIGNALS = torch.sin(torch.arange(2 * 9 * 6.0)).view(2, 9, 6)


def frame(rows: int = 240) -> pd.DataFrame:
    t = np.arange(rows)
    y = 20 + 3 * np.sin(2 * np.pi * t / 24) + np.sin(t / 7) ** 2 + 0.01 * (t * t % 17)
    return pd.DataFrame({"date": pd.date_range("2024-01-01", periods=rows, freq="h"), "y": y})


def cases() -> tuple[np.ndarray, np.ndarray]:
    """Series (12, 2, 20) of two classes."""
    t, y = np.arange(20), np.arange(12) % 2
    X = [[np.sin((1 + k % 2) * t / 3 + k), np.cos(k * t)] for k in range(12)]
    return np.array(X), y


def text() -> bytes:
    words = ("to be", "or not", "that is", "the question", "né à Zürich", "日本")
    return "".join(f"{words[i % 6]} {words[i * i % 5]}\n" for i in range(200)).encode()


def interrupt_after(step: int):
    """For `show`: stops a training as Ctrl-C does, after so many steps."""

    def show(progress):
        if progress.step == step:
            signal.raise_signal(signal.SIGINT)

    return show


def assert_as_saved(y: Tensor, name: str, folder: Path = FOLDER, *, bits: bool = True) -> None:
    """The same bits on a processor with the vector instructions of the one that made the files.

    On another one PyTorch's matrix products add up in another order. So do the decays of Mamba-2
    since the version with kernels between its products: `bits` is False for what holds such layers.
    """
    with np.load(folder / "outputs.npz") as arrays:
        expected, cpu = torch.from_numpy(arrays[name]), str(arrays["cpu"])
    same = bits and torch.backends.cpu.get_cpu_capability() == cpu
    torch.testing.assert_close(y, expected, **({"rtol": 0, "atol": 0} if same else {}))
