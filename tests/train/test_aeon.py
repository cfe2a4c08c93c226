"""The classifier in aeon: its own checks, on the subclass that the documents show."""

import re
from pathlib import Path

import pytest

pytest.importorskip("aeon")

PAGE = Path(__file__).parents[2] / "docs" / "api" / "train.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the checks themselves
def test_estimator_checks():
    from aeon.testing.estimator_checking import check_estimator

    (block,) = re.findall(r"```py\n(.*?BaseClassifier.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    exec(block, globals())  # where pickle finds the class
    small = {"d_model": 4, "n_layers": 1, "epochs": 1}
    results = check_estimator(globals()["LongstateClassifier"](**small))
    assert len(results) > 20
    assert set(results.values()) == {"PASSED"}
