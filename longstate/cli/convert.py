"""`longstate convert`: a language model from one library's folder into another's."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN", help="Folder with config.json and weights, or of `longstate train text`."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; new or empty.")],
    to: Annotated[str, typer.Option(help="Library to write for: transformers or mamba-ssm.")],
) -> None:
    """Write a Mamba, Mamba-2 or FalconMamba model for another library, and check it."""
    from longstate._tensorfile import kind_of
    from longstate.cli.show import say
    from longstate.interop.checkpoints import convert_language_model
    from longstate.train.text import MODEL, load

    run = not (source / "config.json").exists() and kind_of(source / MODEL) == "language"
    model = convert_language_model(source, out, to, model=load(source)[0] if run else None)
    weights = {p.dtype for p in model.parameters()}
    types = " and ".join(sorted(str(t).removeprefix("torch.") for t in weights))
    say(
        f"{out} holds {source} for {to}: {len(model.spec.layers)} {model.spec.layers[0]} layers, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters in {types}. Loaded again, "
        "it has the same weights and logits."
    )
