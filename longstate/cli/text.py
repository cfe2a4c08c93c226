"""`longstate train text` and `longstate generate`. They import what they need when they run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstate.errors import InputError

if TYPE_CHECKING:
    from longstate.models import LanguageModel
    from longstate.train.tokens import Tokens


def train(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Text files, of any size; joined.")
    ],
    layer: Annotated[
        str, typer.Option(help="Layer of every block, or a pattern: mamba,mamba,s4d.")
    ] = "longhorn",
    tokenizer: Annotated[
        str, typer.Option(metavar="bytes|PATH", help="bytes, or a tokenizer.json.")
    ] = "bytes",
    context: Annotated[int, typer.Option(help="Tokens of a training window.")] = 1024,
    d_model: Annotated[int, typer.Option(help="Channels.")] = 256,
    layers: Annotated[
        int | None, typer.Option(help="Blocks; one pattern, or 3 of one layer, if not given.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Windows per step.")] = 2,
    steps: Annotated[
        int | None, typer.Option(help="Steps; 800 if no other length is given.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Instead of steps: passes over the text.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time for training at most.")] = None,
    lr: Annotated[float, typer.Option(help="Learning rate at its highest.")] = 3e-3,
    seed: Annotated[int, typer.Option(help="Of weights and windows.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; one that was stopped goes on.")
    ] = None,
) -> None:
    """Train a language model on text files; the last tenth of the text tells how well it learns."""
    from longstate.cli.show_text import Shown
    from longstate.train.text import train_text
    from longstate.train.text_settings import TextSettings

    settings = TextSettings(
        layer, tokenizer, context, d_model, layers, batch, steps, epochs, minutes, lr, seed
    )
    out = out or Path("runs") / f"{files[0].stem}-{layer.replace(',', '-')}"
    with Shown(minutes) as shown:
        history = train_text(
            files, out, settings, show=shown.step, looked=shown.look, encoded=shown.encoded
        )
    shown.ended(history, out)


def generate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT",
            help="Folder of `longstate train text`, or with config.json and weights.",
        ),
    ],
    prompt: Annotated[str, typer.Option(help="Text to continue; - reads standard input.")] = "\n",
    tokens: Annotated[int, typer.Option(help="Tokens at most.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from so much probability.")] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: repeat less.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    stop: Annotated[list[str], typer.Option(help="Text that ends it; repeat for several.")] = [],  # noqa: B006
) -> None:
    """Continue a text on standard output; tokens per second go to standard error."""
    from longstate.cli.show_text import Rate, printable
    from longstate.models import generate as continue_text

    model, coding = _load(source)
    text = _standard_input() if prompt == "-" else prompt
    start = coding.encode(text)
    if not start:
        raise InputError("the prompt is empty; give at least one character")
    rate = Rate()
    clean = printable if sys.stdout.isatty() else str
    try:
        continue_text(
            model,
            [start],
            max_tokens=tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            stop_strings=stop,
            decode=coding.decode,
            seed=seed,
            on_piece=lambda piece: rate.write(clean(piece.text)),
        )
    except KeyboardInterrupt:
        rate.close(len(start))
        raise typer.Exit(130) from None
    rate.close(len(start))


def _load(source: Path) -> "tuple[LanguageModel, Tokens]":
    if not (source / "config.json").exists():
        from longstate.train.text import load

        return load(source)
    from longstate.interop import load_language_model
    from longstate.train.tokens import TOKENIZER, load_tokens

    model = load_language_model(source)
    if (source / TOKENIZER).exists():
        coding = load_tokens(source)
    elif model.spec.vocab_size == 256:
        coding = load_tokens("bytes")
    else:
        raise InputError(
            f"{source} has no {TOKENIZER}; put the one of this model there, so that text can be "
            f"turned into its {model.spec.vocab_size} tokens"
        )
    if coding.size > model.spec.vocab_size:
        raise InputError(
            f"{source / TOKENIZER} has {coding.size} tokens, the model {model.spec.vocab_size}; "
            "they do not belong together"
        )
    return model, coding


def _standard_input() -> str:
    raw = sys.stdin.buffer.read()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise InputError(f"standard input is not UTF-8 text: offset {e.start}") from None
