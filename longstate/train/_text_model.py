"""The text model, an estimator for text: fit, generate, score, save, load."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from longstate.errors import InputError
from longstate.models import LanguageModel, LanguageSpec, pieces, prepare_for_decoding
from longstate.models._layer_names import options_to_train
from longstate.train._checkpoint import run_folder
from longstate.train._loop import Progress
from longstate.train._memory import check_memory
from longstate.train._patterns import layer_names
from longstate.train._settings import TextTraining, check_sizes
from longstate.train._text_fit import Files, fit_text, loop_settings, opened, total_steps
from longstate.train._text_run import (
    TextHistory,
    TextLook,
    TextRun,
    read_run,
    write_model,
    write_tokenizer,
)
from longstate.train._text_task import TextScore, TextTask, score_text
from longstate.train._tokens import TOKENIZER, FileTokens, Tokens, load_tokens

CONTEXT = 1024
"""Default number of tokens of a window."""


class TextModel:
    """A language model with its tokens.

        TextModel("mamba,s4d").fit("book.txt", minutes=5).generate("Once upon a time")

    Args:
        layers: name of a class in `longstate.layers`, in any case; or several (a list, or
            separated by commas): a pattern that is repeated.
        d_model: channels between the blocks.
        n_layers: number of blocks. None: one pattern, or 3 blocks of a single name.
        tokenizer: "bytes", or the path of a `tokenizer.json`.
        context: tokens of a training window.
        training: settings of the training.
        seed: of the weights and of the positions of the windows.

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
        """The tokenizer."""
        if self._tokens is None:
            self._tokens = load_tokens(self.tokenizer)
        return self._tokens

    @classmethod
    def of(
        cls, model: LanguageModel, tokenizer: str | Path = "bytes", *, context: int | None = None
    ) -> "TextModel":
        """A text model from a language model and a tokenizer.

        Args:
            model: for example from `longstate.interop.load_language_model`.
            tokenizer: "bytes", or the path of a `tokenizer.json` or of its folder.
            context: tokens of a training window, if known.

        Raises:
            InputError: the tokenizer has more tokens than the model.
        """
        spec, names = model.spec, model.spec.layers
        self = cls(names, d_model=spec.d_model, n_layers=len(names), tokenizer=tokenizer)
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
        column: str | None = None,
        minutes: float | None = None,
        out: str | Path | None = None,
        show: Callable[[Progress], None] | None = None,
        looked: Callable[[TextLook, LanguageModel, Tokens], None] | None = None,
        encoded: Callable[[int, int], None] | None = None,
    ) -> "TextModel":
        """Train on text; the last tenth of it is for validation.

        Args:
            files: one or more text files of any size, joined; or tables, or folders of tables.
            text: the text itself, instead of files.
            column: of tables, with the text; see `longstate train text --help`.
            minutes: maximum time for training, instead of `training.minutes`.
            out: folder for the checkpoint and the model. A run that was stopped there is continued.
            show: called with the progress after each step.
            looked: called after each evaluation on the validation part.
            encoded: called with the number of encoded bytes and of all bytes, with a tokenizer.

        Raises:
            InputError: a file, a setting or the folder cannot be used; or the loss is not finite.
                In that case the best weights so far are in `out`.
        """
        if minutes is not None:
            self.training = dataclasses.replace(self.training, minutes=minutes)
        self._tokens, folder = load_tokens(self.tokenizer), None if out is None else Path(out)
        reading = opened(files, text, self._tokens, folder, encoded, column)
        with run_folder(folder), reading as corpus:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                options = {n: found for n in self.layers if (found := options_to_train(n))}
                spec = LanguageSpec(self.tokens.size, self.d_model, self.layers, options)
                check_memory(lambda: LanguageModel(spec))
                self._model = LanguageModel(spec)
            context = self.context or CONTEXT
            steps = total_steps(self.training, corpus, context)
            settings = loop_settings(self.training, steps)
            task = TextTask(
                self._model, corpus, context, steps=steps, settings=settings, seed=self.seed
            )
            run = TextRun(folder, task, self._tokens, self.settings(), looked)
            self.history = fit_text(run, settings, self.seed, show, folder)
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
        state_bits: int | None = None,
    ) -> Iterator[str]:
        """As `generate`, but yields the text during generation.

        Yields:
            For each token the text that is now final, often empty.

        Raises:
            InputError: as `generate`.
        """
        start = self.tokens.encode(prompt)
        if not start:
            raise InputError("the prompt is empty; give at least one character")
        model = self.model
        if state_bits is not None:
            model = prepare_for_decoding(model, state_bits=state_bits)
        numbers = self.tokens.numbers  # a model may have more rows than there are tokens
        new = pieces(
            model, [start], max_tokens=max_tokens, temperature=temperature, top_k=top_k,
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
        state_bits: int | None = None,
    ) -> str:
        """Continue a text; see `longstate.models.generate`.

        Args:
            prompt: the text, at least one character.
            max_tokens: maximum number of new tokens.
            temperature: 0 takes the most likely token, 1 draws from the model's probabilities.
            top_k, top_p: draw from the `top_k` most likely tokens, and of these from the smallest
                set with a total probability of `top_p`.
            repetition_penalty: above 1 makes tokens that are already in the text less likely.
            stop_strings: strings that end the text; they are not part of it.
            seed: of the draws.
            state_bits: 8 or 4 bits a number; see `longstate.models.prepare_for_decoding`. None: 32.

        Returns:
            The text after the prompt.

        Raises:
            InputError: a setting or the prompt cannot be used.
        """
        return "".join(
            self.stream(
                prompt, max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
                repetition_penalty=repetition_penalty, stop_strings=stop_strings, seed=seed,
                state_bits=state_bits,
            )
        )  # fmt: skip

    def score(
        self, files: Files = (), *, text: str | None = None, column: str | None = None
    ) -> TextScore:
        """Score the predictions for a text, in windows of `context` tokens (1024 if unknown).

        `files`, `text` and `column` are as for `fit`.

        Raises:
            InputError: a file cannot be read, or the text has fewer than two tokens.
        """
        model = self.model
        with opened(files, text, self.tokens, column=column) as corpus:
            return score_text(model, corpus, self.context or CONTEXT)

    def with_model(self, model: LanguageModel) -> "TextModel":
        """A copy that has another model of the same tokens."""
        new = copy.copy(self)
        new._model = model
        return new

    def save(self, path: str | Path) -> None:
        """Write the model to one safetensors file; a tokenizer is copied into the file's folder.

        Raises:
            InputError: the file cannot be written, or the folder has the tokenizer of another
                model.
        """
        path, model = Path(path), self.model
        facts = {} if self.history is None else {"history": self.history.to_facts()}
        write_tokenizer(path.parent, self.tokens)
        write_model(path, model, self.settings(), **facts)

    @classmethod
    def load(cls, path: str | Path) -> "TextModel":
        """Read a file of `save`, or a folder of `fit(out=...)`.

        Raises:
            InputError: there is no such run or file, or it is damaged.
        """
        model, tokens, history, training, made = read_run(path)
        spec = model.spec
        tokenizer = str(tokens.path) if isinstance(tokens, FileTokens) else "bytes"
        self = cls(
            spec.layers, d_model=spec.d_model, n_layers=len(spec.layers), tokenizer=tokenizer,
            training=training, seed=made.seed,
        )  # fmt: skip
        self.context = made.context
        self._model, self._tokens, self.history = model, tokens, history
        return self

    def settings(self) -> dict[str, Any]:
        """All settings by name, as values that JSON can hold."""
        return {
            "layers": ",".join(self.layers),
            "d_model": self.d_model,
            "n_layers": self.n_layers,
            # The path of the tokenizer may change; the digest of the text identifies it.
            "tokenizer": TOKENIZER if isinstance(self.tokens, FileTokens) else "bytes",
            "context": self.context,
            **dataclasses.asdict(self.training),
            "seed": self.seed,
        }
