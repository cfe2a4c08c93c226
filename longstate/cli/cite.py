"""`longstate cite`: the paper of a layer, as BibTeX."""

from typing import Annotated

import typer

from longstate.cli._terminal import write


def cite(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LAYER]...",
            help="Names such as s4d or mamba2. Without a name, all names are listed.",
        ),
    ] = None,
) -> None:
    """Print BibTeX entries for layers, for `hippo`, or for `longstate` itself."""
    from longstate._citations import PAPERS, cite

    if names:
        write("\n\n".join(cite(name) for name in names) + "\n")
        return
    for name, paper in PAPERS.items():
        write(f"{name.lower():12s} {paper.title} ({paper.year})\n")
    write(f"{'longstate':12s} this library\n")
