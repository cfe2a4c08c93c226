"""Reading of the text and training for `TextModel.fit`."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from longstate.errors import InputError
from longstate.train import _ranks as ranks
from longstate.train._checkpoint import CHECKPOINT, MODEL
from longstate.train._corpus import Corpus, open_corpus
from longstate.train._history import TrainingHistory
from longstate.train._loop import Keeping, Progress, train
from longstate.train._settings import TextTraining, Training, execution_of
from longstate.train._text_run import TextHistory, TextRun
from longstate.train._text_tables import are_tables, text_of_tables
from longstate.train._tokens import Tokens

LOOKS = 10
"""Least number of evaluations on the validation part, if there are enough steps."""
INTERVAL = 50
"""Largest number of steps between two evaluations."""
STEPS = 800
"""Number of steps if neither steps nor epochs nor minutes are given."""
MOST_STEPS = 1_000_000
"""Number of steps if only minutes are given."""

Files = str | Path | Sequence[str | Path]


@contextlib.contextmanager
def opened(
    files: Files,
    text: str | None,
    tokens: Tokens,
    folder: Path | None = None,
    encoded: Callable[[int, int], None] | None = None,
    column: str | None = None,
) -> Iterator[Corpus]:
    """Open files, tables or a text as tokens. Encoded tokens and the text of tables are written to
    `folder` or a temporary folder.

    Raises:
        InputError: neither or both are given, or a file cannot be read.
    """
    paths = [Path(f) for f in ([files] if isinstance(files, str | Path) else files)]
    if paths and text is not None:
        raise InputError("give files or text, not both")
    if not paths and not text:
        raise InputError("there are no files and no text to read")
    if column is not None and text is not None:
        raise InputError(f"column is for tables; got {column!r} with a text")
    with TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        if text is not None:
            paths = [Path(temporary) / "text.txt"]
            paths[0].write_bytes(text.encode("utf-8", "surrogateescape"))
        with ranks.first_rank_first():
            if are_tables(paths, column):
                paths = [text_of_tables(paths, column, folder or Path(temporary), encoded)]
            corpus = open_corpus(paths, tokens, folder or Path(temporary), encoded)
        yield corpus


def fit_text(
    run: TextRun,
    settings: Training,
    seed: int,
    show: Callable[[Progress], None] | None,
    out: Path | None,
) -> TextHistory:
    """Train `run.task.model`, with a checkpoint in `out`, and write the run's files.

    Raises:
        InputError: the folder cannot be used, or the loss is not finite.
    """
    keeping = Keeping(None if out is None else out / CHECKPOINT, run.identity())
    histories: list[TextHistory] = []

    def ended(found: TrainingHistory) -> None:
        histories.append(run.history(found.looks, found.ended, found.seconds))
        run.save(found.best_step)
        run.write_history(histories[0])

    try:
        train(
            run.task, settings,
            seed=seed, keeping=keeping, show=show, looked=run.look, ended=ended,
        )  # fmt: skip
    except InputError as e:
        if "stopped at step" in str(e) and out is not None and (out / MODEL).exists():
            raise InputError(
                f"{e}; {out} holds the best weights before that; a lower learning_rate often helps"
            ) from None
        raise
    return histories[0]


def total_steps(training: TextTraining, corpus: Corpus, context: int) -> int:
    """Steps of a run.

    Raises:
        InputError: the text is shorter than a window.
    """
    if corpus.train < context + 1 or corpus.tokens - corpus.train < 2:
        raise InputError(
            f"the text has {corpus.tokens:,} tokens, of which {corpus.train:,} are for training; "
            f"a context of {context:,} needs {context + 1:,} of them at least: give more text or a "
            "shorter context"
        )
    if training.steps is not None:
        return training.steps
    if training.epochs is not None:
        return max(1, round(training.epochs * corpus.train / (training.batch_size * context)))
    return STEPS if training.minutes is None else MOST_STEPS


def loop_settings(training: TextTraining, steps: int) -> Training:
    """Settings of the loop; its epochs are the intervals between two evaluations."""
    looks = min(steps, max(LOOKS, -(-steps // INTERVAL)))
    rate = training.dynamics_rate
    return Training(
        epochs=looks,
        minutes=training.minutes,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        dynamics_rate=min(training.learning_rate, 1e-3) if rate is None else rate,
        weight_decay=training.weight_decay,
        state_budget=training.state_budget,
        shrink_to=training.shrink_to,
        patience=looks + 1,
        **execution_of(training),
    )
