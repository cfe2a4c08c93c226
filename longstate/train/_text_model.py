"""The language model for people with text: fit, generate, score, save, load.

model = TextModel("mamba,s4d", d_model=128).fit("book.txt", minutes=5)
print(model.generate("Once upon a time"))
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from longstate.errors import InputError
from longstate.models import LanguageModel, LanguageSpec, pieces
from longstate.train._checkpoint import run_folder
from longstate.train._loop import Progress
from longstate.train._memory import check_memory
from longstate.train._patterns import layer_names
from longstate.train._settings import TextTraining, check_sizes
from longstate.train._text_fit import Files, fit_text, loop_settings, opened, total_steps
from longstate.train._text_run import (
    Made,
    TextHistory,
    TextLook,
    TextRun,
    read_run,
    settings_of,
    write_model,
    write_tokenizer,
)
from longstate.train._text_task import TextScore, TextTask, score_text
from longstate.train._tokens import TOKENIZER, FileTokens, Tokens, load_tokens

CONTEXT = 1024
"""Tokens of a window, where nothing else is known."""


class TextModel:
    """A language model with its tokens.

        TextModel("mamba,s4d").fit("book.txt", minutes=5).generate("Once upon a time")

    Args:
        layers: name of a class in `longstate.layers`, in any case; or several (a list, or with
            commas between): a pattern that is repeated.
        d_model: channels between the blocks.
        n_layers: number of blocks. None: one pattern, or 3 blocks of a single name.
        tokenizer: "bytes", or the path of a `tokenizer.json`.
        context: tokens of a training window.
        training: settings of the training.
        seed: of the weights and of the places of the windows.

    Raises:
        InputError: a value is out of its range.
    """

    def __init__(
        self,
        layers: str | Sequence[str] = "longhorn",
        *,
        d_model: int = 256,
        n_layers: int | None = None,
        tokenizer: str | Path = "bytes",
        context: int = CONTEXT,
        training: TextTraining = TextTraining(),  # noqa: B008
        seed: int = 0,
    ):
        check_sizes(d_model=d_model, n_layers=n_layers, context=context, seed=seed)
        self.layers = layer_names(layers, n_layers)
        self.d_model, self.n_layers = d_model, len(self.layers)
        self.context: int | None = context
        self.tokenizer, self.training, self.seed = str(tokenizer), training, seed
        self.history: TextHistory | None = None
        self._model: LanguageModel | None = None
        self._tokens: Tokens | None = None

    @property
    def model(self) -> LanguageModel:
        if self._model is None:
            raise InputError("the text model is not fitted yet; call fit first")
        return self._model

    @property
    def tokens(self) -> Tokens:
        """Text to tokens and back."""
        if self._tokens is None:
            self._tokens = load_tokens(self.tokenizer)
        return self._tokens

    @classmethod
    def of(
        cls, model: LanguageModel, tokenizer: str | Path = "bytes", *, context: int | None = None
    ) -> "TextModel":
        """A model that was trained elsewhere, with its tokens.

        Args:
            model: for example what `longstate.interop.load_language_model` returns.
            tokenizer: "bytes", or the path of a `tokenizer.json` or of its folder.
            context: tokens of a training window, where that is known.

        Raises:
            InputError: the tokenizer has more tokens than the model.
        """
        spec = model.spec
        self = cls(
            spec.layers,
            d_model=spec.d_model,
            n_layers=len(spec.layers),
            tokenizer=tokenizer,
        )
        self.context = context
        if self.tokens.size > model.spec.vocab_size:
            name = getattr(self.tokens, "path", tokenizer)
            raise InputError(
                f"{name} has {self.tokens.size} tokens, the model {model.spec.vocab_size}; they do "
                "not belong together"
            )
        self._model = model.eval()
        return self

    def fit(
        self,
        files: Files = (),
        *,
        text: str | None = None,
        minutes: float | None = None,
        out: str | Path | None = None,
        show: Callable[[Progress], None] | None = None,
        looked: Callable[[TextLook, LanguageModel, Tokens], None] | None = None,
        encoded: Callable[[int, int], None] | None = None,
    ) -> "TextModel":
        """Train on text; the last tenth of it is for validation.

        Args:
            files: one or more text files of any size, joined.
            text: the text itself, instead of files.
            minutes: time for training at most, instead of `training.minutes`.
            out: folder for the checkpoint and the model. A run that was stopped there goes on.
            show: called with the progress after each step.
            looked: called after each evaluation on the validation part.
            encoded: called with the bytes encoded and all bytes, where a tokenizer has to.

        Raises:
            InputError: a file, a setting or the folder cannot be used; or the loss is not finite.
                Then the best weights so far are in `out`.
        """
        training = self.training
        if minutes is not None:
            training = self.training = dataclasses.replace(training, minutes=minutes)
        self._tokens = load_tokens(self.tokenizer)
        folder = None if out is None else Path(out)
        with run_folder(folder), opened(files, text, self._tokens, folder, encoded) as corpus:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                spec = LanguageSpec(self.tokens.size, self.d_model, self.layers)
                check_memory(lambda: LanguageModel(spec))
                self._model = LanguageModel(spec)
            context = self.context or CONTEXT
            steps = total_steps(training, corpus, context)
            task = TextTask(
                self._model, corpus, context,
                steps=steps, settings=loop_settings(training, steps), seed=self.seed,
            )  # fmt: skip
            run = TextRun(folder, task, self._tokens, self.settings(), looked)
            self.history = fit_text(run, loop_settings(training, steps), self.seed, show)
        self._model.eval()
        return self

    def stream(
        self,
        prompt: str = "\n",
        *,
        max_tokens: int = 200,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop_strings: Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[str]:
        """As `generate`, but as it comes.

        Yields:
            For each token the text that is now certain, often none.

        Raises:
            InputError: as `generate`.
        """
        start = self.tokens.encode(prompt)
        if not start:
            raise InputError("the prompt is empty; give at least one character")
        numbers = self.tokens.numbers  # a model may have more rows than there are tokens
        new = pieces(
            self.model, [start], max_tokens=max_tokens, temperature=temperature, top_k=top_k,
            top_p=top_p, repetition_penalty=repetition_penalty, stop_strings=stop_strings,
            decode=self.tokens.decode, seed=seed,
            allowed_tokens=None if len(numbers) == self.model.spec.vocab_size else numbers,
        )  # fmt: skip
        return (piece.text for piece in new)

    def generate(
        self,
        prompt: str = "\n",
        *,
        max_tokens: int = 200,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop_strings: Sequence[str] = (),
        seed: int = 0,
    ) -> str:
        """Continue a text; see `longstate.models.generate`.

        Args:
            prompt: the text, at least one character.
            max_tokens: how many to make.
            temperature: 0 takes the likeliest token each time, 1 draws from the probabilities.
            top_k, top_p: draw from the likeliest `top_k` tokens, and of these from the fewest that
                hold `top_p` of their probability.
            repetition_penalty: above 1 makes tokens less likely that the text holds already.
            stop_strings: each ends the text, and is no part of it.
            seed: of the draws.

        Returns:
            What follows the prompt.

        Raises:
            InputError: a setting or the prompt cannot be used.
        """
        return "".join(
            self.stream(
                prompt, max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
                repetition_penalty=repetition_penalty, stop_strings=stop_strings, seed=seed,
            )
        )  # fmt: skip

    def score(self, files: Files = (), *, text: str | None = None) -> TextScore:
        """How well the model predicts a text, in windows of `context` tokens (1024 if unknown).

        Args:
            files: one or more text files, joined.
            text: the text itself, instead of files.

        Raises:
            InputError: a file cannot be read, or the text has fewer than two tokens.
        """
        model = self.model
        with opened(files, text, self.tokens) as corpus:
            return score_text(model, corpus, self.context or CONTEXT)

    def save(self, path: str | Path) -> None:
        """Write the model to one safetensors file; a tokenizer is copied into the file's folder.

        Raises:
            InputError: it cannot be written, or the folder has the tokenizer of another model.
        """
        path = Path(path)
        facts = {} if self.history is None else {"history": self.history.to_facts()}
        model = self.model
        write_tokenizer(path.parent, self.tokens)
        write_model(path, model, self.settings(), **facts)

    @classmethod
    def load(cls, path: str | Path) -> "TextModel":
        """Read what `save` wrote, or the folder that `fit(out=...)` wrote.

        Raises:
            InputError: there is no such run or file, or it is damaged.
        """
        model, tokens, settings, history = read_run(path)
        training = settings_of(TextTraining, settings, path)
        made = settings_of(Made, settings, path)
        self = cls(
            model.spec.layers,
            d_model=model.spec.d_model,
            n_layers=len(model.spec.layers),
            tokenizer=str(tokens.path) if isinstance(tokens, FileTokens) else "bytes",
            training=training,
            seed=made.seed,
        )
        self.context = made.context
        self._model, self._tokens, self.history = model, tokens, history
        return self

    def settings(self) -> dict[str, Any]:
        """All settings by name, as JSON holds them."""
        return {
            "layers": ",".join(self.layers),
            "d_model": self.d_model,
            "n_layers": self.n_layers,
            # Where the tokenizer lies may change; which one it is, the digest of the text knows.
            "tokenizer": TOKENIZER if isinstance(self.tokens, FileTokens) else "bytes",
            "context": self.context,
            **dataclasses.asdict(self.training),
            "seed": self.seed,
        }
