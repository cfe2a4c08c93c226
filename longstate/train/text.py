"""A language model from text files: train, and load what was trained.

    model, tokens = load("runs/shakespeare")
    print(generate(model, [tokens.encode("ROMEO:")], decode=tokens.decode)[0].text)

A run is a folder: `model.safetensors` (the best weights and their description), `tokenizer.json`
where one was given, `settings.json`, `history.json`, `validation.npy` (the first tokens of the
validation part, on which `longstate memory` measures), and `checkpoint.safetensors`, from which a
training that was stopped goes on.
"""

import dataclasses
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from longstate._files import missing, write_whole
from longstate.errors import InputError
from longstate.models import LanguageModel, LanguageSpec
from longstate.train import checkpoint
from longstate.train.corpus import Corpus, open_corpus
from longstate.train.history import Evaluated, TrainingHistory
from longstate.train.loop import Keeping, Progress, train
from longstate.train.text_settings import TextSettings
from longstate.train.text_task import TextTask
from longstate.train.tokens import TOKENIZER, FileTokens, Tokens, load_tokens

MODEL, CHECKPOINT = "model.safetensors", "checkpoint.safetensors"
_SHOWN = 1 << 13  # tokens of the validation part that stay beside the model, to measure it on


@dataclass(frozen=True)
class TextLook:
    """One look at the validation part.

    Args:
        step: of the optimiser. passes: over the training text so far, a fraction.
        train_loss: mean since the last look, nats per token; nan at step 0.
        bits_per_byte: of the validation text. perplexity: per token of it.
    """

    step: int
    passes: float
    train_loss: float
    bits_per_byte: float
    perplexity: float


def train_text(
    files: Sequence[str | Path],
    out: str | Path,
    settings: TextSettings = TextSettings(),  # noqa: B008
    *,
    show: Callable[[Progress], None] | None = None,
    looked: Callable[[TextLook, LanguageModel, Tokens], None] | None = None,
    encoded: Callable[[int, int], None] | None = None,
) -> TrainingHistory:
    """Train a model on text files. A run that was stopped in `out` goes on.

    Args:
        files: of any size, joined; the last tenth is for validation.
        out: folder of the run.
        settings: sizes and lengths.
        show: called with the progress after each step.
        looked: called after each look at the validation part.
        encoded: called with the bytes encoded and all bytes, where a tokenizer has to.

    Returns:
        The history; its validation losses are bits per byte, its training losses nats per token.

    Raises:
        InputError: a file, a setting or the folder cannot be used; or the loss is not finite. Then
            the best weights so far are in `out`.
    """
    if not files:
        raise InputError("there are no files to learn from")
    out, tokens = Path(out), load_tokens(settings.tokenizer)
    corpus = open_corpus([Path(file) for file in files], tokens, out, encoded)
    _check_length(corpus, settings.context)
    spec = LanguageSpec(tokens.size, settings.d_model, settings.layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = LanguageModel(spec)
    steps = settings.total_steps(corpus.train)
    training = settings.training(steps)
    task = TextTask(
        model, corpus, settings.context, steps=steps, settings=training, seed=settings.seed
    )
    run = _Run(out, task, tokens, settings, looked)
    keeping = Keeping(out / CHECKPOINT, run.identity())
    try:
        history = train(
            task, training, seed=settings.seed, keeping=keeping, show=show, looked=run.look
        )
    except InputError as e:
        if "stopped at step" in str(e) and (out / MODEL).exists():
            raise InputError(
                f"{e}; {out} holds the best weights before that; a lower --lr often helps"
            ) from None
        raise
    run.save(history.best_step)
    run.write_history(history.looks, history.ended, history.seconds)
    return history


def load(run: str | Path) -> tuple[LanguageModel, Tokens]:
    """The model of a run, in evaluation mode, and its tokens.

    Raises:
        InputError: there is no such run, or it is damaged.
    """
    run = Path(run)
    if not run.exists():
        raise missing(run, "run")
    if run.is_dir() and not (run / MODEL).exists():
        raise InputError(f"{run} holds no language model ({MODEL} is missing)")
    path = run / MODEL if run.is_dir() else run
    model, tokens = load_model(path)
    return model, load_tokens("bytes" if tokens == "bytes" else path.parent / TOKENIZER)


def load_model(path: Path, kind: str = "language") -> tuple[LanguageModel, str | None]:
    """The model in a run's file, in evaluation mode, and the name of its tokens.

    Raises:
        InputError: it is no such file, or damaged.
    """
    tensors, facts = checkpoint.load(path, kind)
    model = LanguageModel(LanguageSpec.from_json(json.dumps(facts.get("spec"))))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as e:
        raise InputError(f"{path} is damaged: {str(e).splitlines()[-1].strip()}") from None
    return model.eval(), facts.get("tokens")


def _check_length(corpus: Corpus, context: int) -> None:
    if corpus.train < context + 1 or corpus.tokens - corpus.train < 2:
        raise InputError(
            f"the text has {corpus.tokens:,} tokens, of which {corpus.train:,} are for training; "
            f"a context of {context:,} needs {context + 1:,} of them at least: give more text or a "
            "shorter context"
        )


def _as_npy(tokens: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, tokens, allow_pickle=False)
    return file.getvalue()


class _Run:
    """What is written into the folder of a run."""

    def __init__(
        self,
        out: Path,
        task: TextTask,
        tokens: Tokens,
        settings: TextSettings,
        looked: Callable[[TextLook, LanguageModel, Tokens], None] | None,
    ):
        self.out, self.task, self.tokens, self.looked = out, task, tokens, looked
        # Where the tokenizer lies may change; which one it is, the digest of the text knows.
        name = TOKENIZER if isinstance(tokens, FileTokens) else "bytes"
        self.settings = {
            **dataclasses.asdict(settings),
            "layer": ",".join(settings.layers),
            "n_layers": len(settings.layers),
            "tokenizer": name,
        }

    def identity(self) -> dict[str, str]:
        facts = {"text": self.task.corpus.digest, **self.settings}
        return {name.replace("_", " "): str(value) for name, value in facts.items()}

    def look(self, progress: Progress) -> None:
        if progress.best_step == progress.step:
            self.save(progress.best_step)
        self.write_history(progress.looks, progress.ended, progress.seconds)
        if self.looked is not None:
            self.looked(self.describe(progress.looks[-1]), self.task.model, self.tokens)

    def describe(self, look: Evaluated) -> TextLook:
        passes = look.step * self.task.batch_size * self.task.context / self.task.corpus.train
        perplexity = self.task.perplexity(look.validation_loss)
        return TextLook(look.step, passes, look.train_loss, look.validation_loss, perplexity)

    def save(self, step: int) -> None:
        """The model as it is now; what it needs beside it first."""
        if isinstance(self.tokens, FileTokens):
            write_whole(self.out / TOKENIZER, self.tokens.path.read_bytes())
        write_whole(self.out / "settings.json", json.dumps(self.settings, indent=2) + "\n")
        write_whole(self.out / "validation.npy", _as_npy(self.task.corpus.validation(_SHOWN)))
        spec = json.loads(self.task.model.spec.to_json())
        facts = {"spec": spec, "tokens": self.settings["tokenizer"], "step": step}
        checkpoint.save(self.out / MODEL, "language", dict(self.task.model.state_dict()), facts)

    def write_history(self, looks: Sequence[Evaluated], ended: str, seconds: float) -> None:
        rows = [dataclasses.asdict(self.describe(look)) for look in looks]
        for row in rows:  # before the first step there is no training loss; JSON has no nan
            row["train_loss"] = None if math.isnan(row["train_loss"]) else row["train_loss"]
        facts = {"ended": ended, "seconds": seconds, "looks": rows}
        write_whole(self.out / "history.json", json.dumps(facts, indent=2) + "\n")
