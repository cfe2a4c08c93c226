"""`longstate train text` and `longstate generate`. They import what they need when they run."""

import re
from pathlib import Path
from typing import Annotated

import typer

from longstate.cli._options import with_settings
from longstate.cli._runs import INTERRUPTED, Run
from longstate.cli._terminal import input_lines
from longstate.errors import InputError
from longstate.train import TextTraining


@with_settings(training=TextTraining)
def train(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Text files of any size; they are joined. Or tables of any size: Parquet, Arrow "
            "or CSV files, and folders of them.",
        ),
    ],
    column: Annotated[
        str | None,
        typer.Option(
            help="Column with the text, in tables; a CSV file is one if it is given. `text` or the "
            "only column of text, if not given."
        ),
    ] = None,
    layers: Annotated[
        str,
        typer.Option(help="Layer of every block, or a repeated pattern such as mamba,mamba,s4d."),
    ] = "longhorn",
    d_model: Annotated[int, typer.Option(help="Channels between the blocks.")] = 256,
    n_layers: Annotated[
        int | None,
        typer.Option(help="Number of blocks. If not given: one pattern, or 3 blocks of one layer."),
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(metavar="bytes|PATH", help="bytes, or the path of a tokenizer.json.")
    ] = "bytes",
    context: Annotated[int, typer.Option(help="Tokens of a training window.")] = 1024,
    seed: Annotated[
        int, typer.Option(help="Seed of the weights and of the positions of the windows.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run. A run that was stopped there is continued."),
    ] = None,
    *,
    training: TextTraining,
) -> None:
    """Train a language model on text files. The last tenth of the text is used for validation.

    Several processes train together under torchrun: `torchrun --nproc-per-node 2 -m longstate train
    text ...`.
    """
    from longstate.cli.show_text import Shown
    from longstate.train import TextModel, process_group

    model = TextModel(
        layers,
        d_model=d_model,
        n_layers=n_layers,
        tokenizer=tokenizer,
        context=context,
        training=training,
        seed=seed,
    )
    out = out or Path("runs") / f"{files[0].stem}-{re.sub('[,:]', '-', layers)}"
    with process_group() as rank:
        if rank > 0:
            model.fit(files, column=column, out=out)
        else:
            with Shown(training.minutes) as shown:
                model.fit(
                    files, column=column, out=out,
                    show=shown.step, looked=shown.look, encoded=shown.encoded,
                )  # fmt: skip
            shown.ended(model, out)
    if model.history is not None and model.history.ended == "interrupted":
        raise typer.Exit(INTERRUPTED)


def generate(
    run: Run,
    prompt: Annotated[
        str,
        typer.Option(
            help="Text to continue; `-` reads it from standard input.", show_default="a new line"
        ),
    ] = "\n",
    max_tokens: Annotated[int, typer.Option(help="Largest number of tokens to generate.")] = 200,
    temperature: Annotated[
        float,
        typer.Option(help="0 takes the most likely token, 1 draws from the model's probabilities."),
    ] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from this number of most likely tokens.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Draw from the most likely tokens with this total probability."),
    ] = None,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1, earlier tokens become less likely.")
    ] = 1.0,
    stop_strings: Annotated[
        list[str], typer.Option(help="Text that ends the output; can be repeated.")
    ] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Seed of the random draws.")] = 0,
    state_bits: Annotated[
        int | None,
        typer.Option(help="Bits of a number in the states of selective layers, 8 or 4."),
    ] = None,
) -> None:
    """Continue a text. Needs a language model.

    The text is printed on standard output, and the speed on standard error.
    """
    from longstate.cli._runs import open_text_model
    from longstate.cli.show_text import Rate

    model = open_text_model(run, "generate")
    prompt = _standard_input() if prompt == "-" else prompt
    rate = Rate(len(model.tokens.encode(prompt)))
    try:
        for text in model.stream(
            prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            stop_strings=stop_strings,
            seed=seed,
            state_bits=state_bits,
        ):
            rate.write(text)
    except KeyboardInterrupt:
        rate.close()
        raise typer.Exit(INTERRUPTED) from None
    rate.close()


def _standard_input() -> str:
    raw = b"".join(input_lines())
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise InputError(f"standard input is not UTF-8 text: offset {e.start}") from None
