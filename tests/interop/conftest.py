"""A test that fails while transformers is accelerated must not change the next one."""

import pytest

from longstate.interop import transformers_patch


@pytest.fixture(autouse=True)
def transformers_as_it_was():
    yield
    transformers_patch._end()
