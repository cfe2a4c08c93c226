"""Open the argument of a command: a run, the file of a model or a checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstate.errors import InputError

if TYPE_CHECKING:
    from longstate.models import ForecastModel
    from longstate.train import Forecaster, TextModel

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 plus the number of the signal, as in shells."""

Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A folder that `longstate train` wrote, the file of a model, or a folder with a "
        "checkpoint of transformers or mamba-ssm.",
    ),
]
Reading = Annotated[
    Path | None,
    typer.Option(
        help="What the model reads: a text file or a .npy file of token numbers, a CSV file for a "
        "forecaster, a file or folder of series for a classifier."
    ),
]


def open_forecaster(path: Path, command: str) -> "Forecaster":
    """The forecaster in a run.

    Raises:
        InputError: it holds something else; the message says what to use instead.
    """
    from longstate import load

    return as_forecaster(path, command, load(path))


def as_forecaster(path: Path, command: str, found: Any) -> "Forecaster":
    """`found`, which was loaded from `path`, as a forecaster.

    Raises:
        InputError: it is something else; the message says what to use instead.
    """
    from longstate.train import Forecaster

    if not isinstance(found, Forecaster):
        raise _other(path, command, "a forecaster", found)
    return found


def open_forecast_model(path: Path, command: str) -> "ForecastModel":
    """The model of a forecaster, from a run or from a file of the model alone.

    Raises:
        InputError: it holds something else.
    """
    from longstate import load
    from longstate.models import ForecastModel
    from longstate.train import Forecaster

    found = load(path)
    if isinstance(found, Forecaster):
        return found.model
    if not isinstance(found, ForecastModel):
        raise _other(path, command, "a forecaster", found)
    return found


def open_text_model(path: Path, command: str) -> "TextModel":
    """The language model with its tokenizer. For a model without a saved tokenizer it is the
    `tokenizer.json` beside it, or bytes if the model has 256 tokens.

    Raises:
        InputError: it holds something else, or there is no tokenizer.
    """
    from longstate import load

    found = load(path)
    text = as_text_model(path, found)
    if text is None:
        raise _other(path, command, "a language model", found)
    return text


def as_text_model(path: Path, found: Any) -> "TextModel | None":
    """`found`, which was loaded from `path`, as a text model; None if it is no language model."""
    from longstate.models import LanguageModel
    from longstate.train import TextModel

    if isinstance(found, TextModel):
        return found
    if not isinstance(found, LanguageModel):
        return None
    folder = path if path.is_dir() else path.parent
    if (folder / "tokenizer.json").exists():
        return TextModel.of(found, folder)
    if found.spec.vocab_size == 256:
        return TextModel.of(found)
    raise InputError(
        f"{path} has no tokenizer.json, which converts text to the {found.spec.vocab_size} tokens "
        "of the model; copy that of the model there"
    )


def kind_of(found: Any) -> str:
    """The kind of a loaded object, in words."""
    from longstate.models import ForecastModel, LanguageModel
    from longstate.train import Classifier, Forecaster, Regressor, TextModel

    kinds = {
        Forecaster: "a forecaster",
        TextModel: "a language model",
        LanguageModel: "a language model",
        Classifier: "a classifier",
        Regressor: "a regressor",
        ForecastModel: "a forecast model without the record of its training",
    }
    return kinds.get(type(found), f"a layer ({type(found).__name__})")


def _other(path: Path, command: str, needed: str, found: Any) -> InputError:
    instead = {
        ("predict", "a language model"): f"; use `longstate generate {path}`",
        ("stream", "a language model"): f"; use `longstate generate {path}`",
        ("generate", "a forecaster"): f"; use `longstate predict {path} DATA`",
    }
    kind = kind_of(found)
    return InputError(
        f"{path} holds {kind}; `longstate {command}` needs {needed}"
        + instead.get((command, kind), "")
    )
