"""The reference of the adapters. The site cannot add names by itself, as sktime may be missing."""

from pathlib import Path

from longstate import adapters

PAGE = Path(__file__).parents[2] / "docs" / "api" / "adapters.md"


def test_every_public_name_is_in_the_reference():
    page = PAGE.read_text(encoding="utf-8")
    assert len(dir(adapters)) > 1
    assert all(f"\n::: longstate.adapters.{name}\n" in page for name in dir(adapters))
