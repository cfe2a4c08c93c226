"""The papers' own numbers, when they are at hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[2] / "shared" / "golden"


def golden(name: str) -> dict[str, Tensor]:
    """Arrays of one file as tensors; skips the test where the folder is missing."""
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no golden file {path.name}")
    with np.load(path) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def assert_parity(actual: Tensor, expected: Tensor, relative: float = 1e-5) -> None:
    """The largest difference, relative to the largest value, in float32."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= relative, f"relative error {error:.2e}"
