"""What a stopped run goes on with, what it refuses, and what its folder holds meanwhile."""

import pytest

from longstate import Forecaster
from longstate.errors import InputError
from longstate.models import LanguageModel, LanguageSpec
from longstate.train import ByteTokens, TextTraining
from longstate.train._corpus import open_corpus
from longstate.train._history import Evaluated
from longstate.train._loop import Progress
from longstate.train._text_fit import loop_settings
from longstate.train._text_run import MODEL, TextRun
from longstate.train._text_task import TextTask
from tests.train.helpers import QUICK, TINY, hourly
from tests.train.text_helpers import words


def test_other_bounds_are_another_run(tmp_path):
    frame = hourly(200)

    def fit(**bounds):
        made = Forecaster(4, window=20, size=TINY, training=QUICK)
        return made.fit(frame, "y", out=tmp_path / "run", **bounds)

    fit(lower=0.0)
    fit(lower=0.0)
    for bounds, name in (
        ({}, "lower"),
        ({"lower": 1.0}, "lower"),
        ({"lower": 0.0, "upper": 99.0}, "upper"),
        ({"lower": 0.0, "transform": "log1p"}, "transform"),
    ):
        with pytest.raises(InputError, match=f"another run: its {name} is "):
            fit(**bounds)


def test_the_folder_holds_the_best_weights_during_training(tmp_path):
    settings = {"tokenizer": "bytes"}
    corpus = open_corpus([words(tmp_path / "text")], ByteTokens(), tmp_path)
    task = TextTask(
        LanguageModel(LanguageSpec(256, 8, ("s4d",))), corpus, 16,
        steps=4, settings=loop_settings(TextTraining(), 4), seed=0,
    )  # fmt: skip
    run = TextRun(tmp_path / "run", task, ByteTokens(), settings, None)
    looks = [Evaluated(0, 0.0, float("nan"), 5.0), Evaluated(2, 0.5, 4.0, 6.0)]
    (tmp_path / "run").mkdir()
    run.look(Progress(total=4, step=2, best_step=0, looks=looks))
    assert not (tmp_path / "run" / MODEL).exists()
    run.look(Progress(total=4, step=2, best_step=2, looks=looks))
    assert (tmp_path / "run" / MODEL).exists()


@pytest.mark.parametrize(("rate", "expected"), [(1e-4, 1e-4), (1e-3, 1e-3), (0.1, 1e-3)])
def test_dynamics_rate_is_at_most_the_learning_rate_by_default(rate, expected):
    assert loop_settings(TextTraining(learning_rate=rate), 9).dynamics_rate == expected
    told = TextTraining(learning_rate=rate, dynamics_rate=0.5)
    assert loop_settings(told, 9).dynamics_rate == 0.5
