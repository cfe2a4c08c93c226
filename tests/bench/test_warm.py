"""`longstate warm` compiles everything that a later process needs; nothing is left to compile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from longstate.bench import warm
from longstate.errors import InputError

USE = """
import torch
from longstate.layers import GatedSSM
from longstate.models import LanguageModel, LanguageSpec, generate, prepare_for_decoding
layer, u = GatedSSM(16, d_state=8), torch.randn(3, 50, 16)
layer(u)[0].sum().backward()
with torch.no_grad():
    layer.step(u[:, 0], layer.init_state(3))
model = LanguageModel(LanguageSpec(32, 16, ("gatedssm",))).eval()
generate(prepare_for_decoding(model), torch.zeros(1, 3, dtype=torch.long), max_tokens=2)
"""


def in_another_process(*command: str, cache: Path) -> str:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def kernels(cache: Path) -> set[str]:
    return {path.name for path in cache.rglob("*.nbc")}


def test_a_warm_cache_leaves_nothing_to_compile(tmp_path):
    said = in_another_process("-m", "longstate", "warm", "--layers", "gatedssm", cache=tmp_path)
    assert said.startswith("All kernels are compiled; it took ")
    before = kernels(tmp_path)
    assert before
    in_another_process("-c", USE, cache=tmp_path)
    assert kernels(tmp_path) == before


def test_each_layer_and_type_is_announced(monkeypatch):
    monkeypatch.setattr("longstate.bench._warm._decode", lambda layer, dtype: None)
    seen = []
    warm(["LinOSS", "smr"], ["float32", "float64"], seen.append)
    assert [p.doing for p in seen] == [
        "LinOSS, float32", "SMR, float32", "LinOSS, float64", "SMR, float64", "",
    ]  # fmt: skip
    assert [(p.done, p.total) for p in seen] == [(i, 4) for i in range(5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["mambo"]}, "there is no layer 'mambo'.* did you mean 'Mamba'"),
        ({"dtypes": ["float31"]}, "there is no dtype 'float31'; did you mean 'float32'"),
    ],
)
def test_unknown_names(options, message):
    with pytest.raises(InputError, match=message):
        warm(**options)
