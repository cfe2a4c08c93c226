"""Folders with a checkpoint; and a test that fails while transformers is accelerated must not
change the next one."""

import pytest

from longstate.interop import _transformers_patch as transformers_patch
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


@pytest.fixture(autouse=True)
def transformers_as_it_was():
    yield
    transformers_patch._end()
