"""`longstate convert`: write a language model in the format of another library."""

from pathlib import Path
from typing import Annotated

import typer

from longstate.cli._terminal import say
from longstate.errors import InputError


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="A folder with config.json and weights, or a folder of `longstate train text`.",
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to write. It must be new or empty.")
    ],
    to: Annotated[
        str, typer.Option(help="The library that will load it: transformers or mamba-ssm.")
    ],
) -> None:
    """Convert a Mamba, Mamba-2 or FalconMamba model for another library, and check the result."""
    from longstate import load
    from longstate.cli._runs import kind_of
    from longstate.interop import convert_language_model
    from longstate.models import LanguageModel
    from longstate.train import TextModel

    own: LanguageModel | None = None
    if not (source / "config.json").exists():
        found = load(source)
        inner = found.model if isinstance(found, TextModel) else found
        if not isinstance(inner, LanguageModel):
            raise InputError(
                f"{source} holds {kind_of(found)}; `longstate convert` needs a language model"
            )
        own = inner
    model = convert_language_model(source, out, to, model=own)
    weights = {p.dtype for p in model.parameters()}
    types = " and ".join(sorted(str(t).removeprefix("torch.") for t in weights))
    say(
        f"{out} holds {source} for {to}: {len(model.spec.layers)} {model.spec.layers[0]} layers, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters in {types}. Loaded again, "
        "it has the same weights and logits."
    )
