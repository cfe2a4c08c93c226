"""Small runs and checkpoints for the tests, all but one untrained."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from longstate import _tensorfile as tensorfile
from longstate.interop import save_language_model
from longstate.models import LanguageModel, LanguageSpec
from longstate.train import Forecaster, Size, Training


def text_model(layers=("mamba", "s4d"), vocab_size=256, **options) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(LanguageSpec(vocab_size, 8, layers, **options)).eval()


def text_run(folder: Path, model: LanguageModel | None = None, kind: str = "language") -> Path:
    """As `longstate train text` writes one."""
    model = text_model() if model is None else model
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"spec": json.loads(model.spec.to_json()), "tokens": "bytes"}
    tensorfile.save(folder / "model.safetensors", kind, dict(model.state_dict()), facts)
    (folder / "settings.json").write_text('{"context": 32}')
    return folder


def checkpoint(folder: Path, dialect: str = "transformers") -> Path:
    save_language_model(text_model(("mamba", "mamba"), 40), folder, dialect)
    return folder


def forecast_run(folder: Path, layer: str = "s4d") -> tuple[Path, Path]:
    """A run and its data."""
    folder.mkdir(parents=True, exist_ok=True)
    t = np.arange(300)
    frame = pd.DataFrame({"y": np.sin(t / 5) + 0.1 * np.cos(t)})
    data = folder / "data.csv"
    frame.to_csv(data, index=False)
    forecaster = Forecaster(
        4,
        window=24,
        layers=layer,
        size=Size(d_model=4, n_layers=2, d_state=4),
        training=Training(epochs=1, windows_per_epoch=32),
    )
    forecaster.fit(frame, "y", out=folder / "run")
    return folder / "run", data
