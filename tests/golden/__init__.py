"""Reference numbers of papers: inputs and outputs of the authors' code. See `README.md`."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent


def golden(name: str) -> dict[str, Tensor]:
    """Arrays of one file as tensors."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def assert_parity(actual: Tensor, expected: Tensor, relative: float = 1e-5) -> None:
    """The largest difference, relative to the largest value, in float32."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= relative, f"relative error {error:.2e}"
