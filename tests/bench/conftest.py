"""Limits measured with small arrays: the tests check the counting and not the machine."""

import pytest

from longstate.bench import _timing as timing


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setattr(timing, "_ARRAY", 2**20)
    monkeypatch.setattr(timing, "_LARGEST", 512)
