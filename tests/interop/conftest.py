"""Folders with a checkpoint."""

import pytest

from longstate.interop import save_language_model
from tests.interop.samples import make


@pytest.fixture
def folder(tmp_path):
    save_language_model(make("mamba"), tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def ssm(tmp_path):
    save_language_model(make("mamba2"), tmp_path / "s", "mamba-ssm")
    return tmp_path / "s"
