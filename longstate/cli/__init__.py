"""The command line: parse arguments, call the library, print results. Nothing is computed here.

Wrong input gives one sentence on standard error and exit code 2. The exit code is 1 if the output
cannot be written, 130 after Ctrl-C, and 143 or 129 after SIGTERM or SIGHUP during a training.
"""

import contextlib
import re
import sys
from typing import Annotated, Any

import typer
import typer.core

from longstate.cli import (
    _terminal,
    bench,
    cite,
    classify,
    convert,
    demo,
    forecast,
    forecast_use,
    memory,
    reduce,
    runs,
    stream,
    tasks,
    text,
)
from longstate.cli._interrupts import interrupts
from longstate.cli._runs import INTERRUPTED
from longstate.errors import InputError

_VERSION = "Print the version and exit."
_UsageError: type[Exception] = typer.BadParameter.__bases__[
    0
]  # typer shows its base class under no public name


class _Commands(typer.core.TyperGroup):
    """Commands that Ctrl-C ends with exit code 130, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
train = typer.Typer(no_args_is_help=True, help="Train a model.")
app.add_typer(train, name="train")
train.command("forecast")(forecast.train)
train.command("classify")(classify.train)
train.command("text")(text.train)
suite = typer.Typer(no_args_is_help=True, help="Compare layers on small tasks that need memory.")
app.add_typer(suite, name="tasks")
suite.command("list")(tasks.show_list)
suite.command("run")(tasks.run)
app.command()(runs.evaluate)
app.command()(forecast_use.predict)
app.command()(forecast_use.backtest)
app.command()(runs.info)
app.command()(stream.stream)
app.command()(text.generate)
app.command()(demo.demo)
app.command()(convert.convert)
app.command()(bench.bench)
app.command()(bench.warm)
app.command()(memory.certify)
app.command()(memory.memory)
app.command()(reduce.reduce)
app.command()(cite.cite)


def _print_version(asked: bool) -> None:
    if asked:
        from longstate import __version__

        _terminal.write(f"longstate {__version__}\n")
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
    code = 1
    try:
        _terminal.prepare()
        with interrupts(main.__code__):
            code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _close_output()  # the reading program has ended
        return code or 1
    except OSError as error:
        _close_output()
        what = error.filename or "the output"
        _complain(f"{what} cannot be used: {error.strerror or error}")
        ended = error.__context__  # after SIGHUP the terminal is gone too
        return ended.code if isinstance(ended, SystemExit) and isinstance(ended.code, int) else 1
    return code


def _run(arguments: list[str] | None) -> int:
    try:
        code = app(arguments, prog_name="longstate", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except _UsageError as error:
        return _explain(error)
    except InputError as error:
        _complain(str(error))
        return 2
    except (MemoryError, RuntimeError) as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        _complain(sentence)
        return 2
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 0


def _sentence(error: MemoryError | RuntimeError) -> str | None:
    """What PyTorch means that has no class of its own; None for all else."""
    said = str(error)
    if isinstance(error, MemoryError) or re.search("not enough memory|can't allocate memory", said):
        return "there is not enough memory for this; smaller sizes need less"
    if "/gloo/" in said:
        return (
            "the connection to another process is lost: it has ended, or the network hangs. What "
            "it wrote last says why; the same command goes on from the last checkpoint"
        )
    return None


def _explain(error: Any) -> int:
    """Print what typer says of wrong usage as one sentence; where it printed the help, nothing."""
    words = " ".join(error.format_message().split()).strip(" .")
    if words:
        said = re.sub(r"(^|: |\. )(?=[A-Z][a-z])(.)", _continued, words)
        where = "longstate" if error.ctx is None else error.ctx.command_path
        _complain(f"{said}; `{where} --help` shows the usage")
    return int(error.exit_code)


def _continued(start: re.Match[str]) -> str:
    """The start of a sentence, as a part of one."""
    return start[1].replace(".", ";") + start[2].lower()


def _complain(sentence: str) -> None:
    with contextlib.suppress(OSError):
        _terminal.note(f"error: {sentence}")


def _close_output() -> None:
    """Close standard output, so that Python does not try to write the rest when it ends."""
    with contextlib.suppress(OSError):
        sys.stdout.close()
