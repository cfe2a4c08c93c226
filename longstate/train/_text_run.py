"""The folder of a language model's training, and the file of its model.

`model.safetensors` (the best weights, and their description), `tokenizer.json` if one was given,
`settings.json`, `history.json`, `validation.npy` (the first tokens of the validation part, for
`longstate memory`), and `checkpoint.safetensors`, from which a stopped training is continued.
"""

import dataclasses
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from longstate._facts import mapping, read, value_of
from longstate._files import missing, write_whole
from longstate.errors import InputError, expect
from longstate.models import LanguageModel
from longstate.models._saving import read_language_model, write_language_model
from longstate.train import _ranks as ranks
from longstate.train._checkpoint import MODEL
from longstate.train._history import Evaluated
from longstate.train._loop import Progress
from longstate.train._old_names import renamed
from longstate.train._settings import TextTraining
from longstate.train._text_task import TextTask
from longstate.train._tokens import TOKENIZER, FileTokens, Tokens, load_tokens

_T = TypeVar("_T")
_KEPT = 1 << 13  # tokens of the validation part that stay beside the model, to measure it on


@dataclass(frozen=True)
class TextLook:
    """One evaluation on the validation part.

    Args:
        step: of the optimiser. passes: passes over the training text so far, a fraction.
        train_loss: mean since the last evaluation, nats per token; nan at step 0.
        bits_per_byte: of the validation text. perplexity: per token of it.
    """

    step: int
    passes: float
    train_loss: float
    bits_per_byte: float
    perplexity: float


@dataclass(frozen=True)
class TextHistory:
    """All evaluations of a training run, and how the run ended.

    Args:
        looks: the evaluations, in order, at least one.
        ended: "finished", "out of time" or "interrupted"; empty while it runs.
        seconds: total time of all resumed parts.
    """

    looks: tuple[TextLook, ...]
    ended: str
    seconds: float

    @property
    def best(self) -> TextLook:
        """The evaluation with the best weights. A step with two evaluations is one at which the
        states became smaller: then the search for the best weights started again."""
        twice = (
            i for i in range(1, len(self.looks)) if self.looks[i].step == self.looks[i - 1].step
        )
        return min(self.looks[max(twice, default=0) :], key=lambda look: look.bits_per_byte)

    def to_facts(self) -> dict[str, Any]:
        """Values that JSON can hold: the missing training loss of step 0 is left out."""
        rows = [dataclasses.asdict(look) for look in self.looks]
        for row in rows:
            row["train_loss"] = None if math.isnan(row["train_loss"]) else row["train_loss"]
        return {"ended": self.ended, "seconds": self.seconds, "looks": rows}

    @classmethod
    def from_facts(cls, facts: object) -> "TextHistory | None":
        """The history; None if `facts` is not one."""
        try:
            given = mapping(facts, "history")
            rows = value_of(given.get("looks"), list[dict[str, Any]], "looks")
            looks = [
                read(TextLook, {**row, "train_loss": row.get("train_loss") or math.nan}, "a look")
                for row in rows
            ]
            return read(cls, {**given, "looks": looks}, "history") if looks else None
        except InputError:
            return None


class TextRun:
    """Writes the folder of a run while its model is trained.

    Args:
        out: the folder; None writes nothing. Of several ranks the first writes.
        task: the training task.
        tokens: the tokenizer of the text.
        settings: of the run, as values that JSON can hold.
        looked: called after each evaluation.
    """

    def __init__(
        self,
        out: Path | None,
        task: TextTask,
        tokens: Tokens,
        settings: Mapping[str, Any],
        looked: Callable[[TextLook, LanguageModel, Tokens], None] | None,
    ):
        self.out = out if ranks.rank() == 0 else None
        self.task, self.tokens, self.looked = task, tokens, looked
        self.settings = settings

    def identity(self) -> dict[str, str]:
        """The settings that must be equal to continue a run."""
        facts = {"text": self.task.corpus.digest, **self.settings}
        return {name.replace("_", " "): str(value) for name, value in facts.items()}

    def look(self, progress: Progress) -> None:
        history = self.history(progress.looks, progress.ended, progress.seconds)
        if progress.best_step == progress.step:
            self.save(progress.best_step)
        self.write_history(history)
        if self.looked is not None:
            self.looked(history.looks[-1], self.task.model, self.tokens)

    def history(self, looks: Sequence[Evaluated], ended: str, seconds: float) -> TextHistory:
        return TextHistory(tuple(map(self._describe, looks)), ended, seconds)

    def save(self, step: int) -> None:
        """Write the current model, after the other files that it needs."""
        if self.out is not None:
            text = json.dumps(self.settings, indent=2) + "\n"
            write_tokenizer(self.out, self.tokens)
            write_whole(self.out / "settings.json", text)
            kept = self.task.corpus.validation(_KEPT)
            write_whole(self.out / "validation.npy", _as_npy(kept))
            write_model(self.out / MODEL, self.task.model, self.settings, step=step)

    def write_history(self, history: TextHistory) -> None:
        if self.out is not None:
            text = json.dumps(history.to_facts(), indent=2) + "\n"
            write_whole(self.out / "history.json", text)

    def _describe(self, look: Evaluated) -> TextLook:
        passes = look.step * self.task.batch_size * self.task.context / self.task.corpus.train
        perplexity = self.task.perplexity(look.validation_loss)
        return TextLook(look.step, passes, look.train_loss, look.validation_loss, perplexity)


def write_tokenizer(folder: Path, tokens: Tokens) -> None:
    """Copy the tokenizer into a folder.

    Raises:
        InputError: the folder has another tokenizer, or the file cannot be written.
    """
    if not isinstance(tokens, FileTokens):
        return
    there, ours = folder / TOKENIZER, tokens.path.read_bytes()
    if there.exists() and there.read_bytes() != ours:
        raise InputError(f"{there} is the tokenizer of another model; choose another folder")
    if not there.exists():
        write_whole(there, ours)


def write_model(
    path: Path, model: LanguageModel, settings: Mapping[str, Any], **more: object
) -> None:
    """Write the model's file. The tokenizer is beside it."""
    facts = {"tokens": settings["tokenizer"], "settings": dict(settings), **more}
    write_language_model(path, model, facts)


def read_run(
    path: str | Path,
) -> "tuple[LanguageModel, Tokens, TextHistory | None, TextTraining, Made]":
    """Model, tokenizer, settings and history of a folder or of a model's file.

    Raises:
        InputError: there is no such run, it is damaged, or it is a model without a tokenizer.
    """
    path = Path(path)
    if not path.exists():
        raise missing(path, "run")
    if path.is_dir() and not (path / MODEL).exists():
        raise InputError(f"{path} holds no language model ({MODEL} is missing)")
    file = path / MODEL if path.is_dir() else path
    model, facts = read_language_model(file)
    if "tokens" not in facts:
        raise InputError(
            f"{file} holds a language model without its tokens; longstate.LanguageModel.load "
            "reads it"
        )
    named = value_of(facts["tokens"], str, f"{file}: tokens")
    tokens = load_tokens("bytes" if named == "bytes" else file.parent / TOKENIZER)
    beside = {name: _json(file.with_name(f"{name}.json")) for name in ("settings", "history")}
    settings = facts.get("settings") or (beside["settings"] if file.name == MODEL else {})
    history = beside["history"] if file.name == MODEL else facts.get("history")
    settings = renamed(settings if isinstance(settings, dict) else {})
    training, made = _settings_of(TextTraining, settings, path), _settings_of(Made, settings, path)
    return model, tokens, TextHistory.from_facts(history), training, made


@dataclass(frozen=True)
class Made:
    """Settings of a run that are neither its model's nor its training's."""

    seed: int = 0
    context: int | None = None

    def __post_init__(self) -> None:
        expect(self.seed >= 0, f"seed must be at least 0; got {self.seed}")
        context = self.context
        expect(context is None or context >= 1, f"context must be at least 1; got {context}")


def _settings_of(kind: type[_T], settings: dict[str, Any], path: str | Path) -> _T:
    """The settings of a run's file that are fields of `kind`.

    Raises:
        InputError: one is of another type, or out of its range.
    """
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    found = {name: value for name, value in settings.items() if name in names}
    return read(kind, found, f"the settings in {path}")


def _json(path: Path) -> Any:
    """The contents of a JSON file beside the model, which may be missing or cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _as_npy(tokens: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, tokens, allow_pickle=False)
    return file.getvalue()
