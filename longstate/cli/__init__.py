"""The command line: parse, call, print. Nothing is computed here.

Every mistake of the caller's is one sentence on standard error and exit code 2.
"""

import sys
from typing import Annotated

import typer

from longstate.cli import bench, cite, convert, demo, forecast, memory, reduce, runs, stream, text
from longstate.errors import InputError

_VERSION = "Print the version and exit."
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
train = typer.Typer(no_args_is_help=True, help="Train a model.")
app.add_typer(train, name="train")
train.command("forecast")(forecast.train)
train.command("text")(text.train)
app.command()(runs.evaluate)
app.command()(forecast.predict)
app.command()(runs.info)
app.command()(stream.stream)
app.command()(text.generate)
app.command()(demo.demo)
app.command()(convert.convert)
app.command()(bench.bench)
app.command()(memory.certify)
app.command()(memory.memory)
app.command()(reduce.reduce)
app.command()(cite.cite)


def _print_version(asked: bool) -> None:
    if asked:
        from longstate import __version__

        print(f"longstate {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help=_VERSION),
    ] = False,
) -> None:
    """State space sequence models that run anywhere PyTorch runs."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        app(arguments, prog_name="longstate", standalone_mode=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1  # whoever was reading has left
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 0
    return 0
