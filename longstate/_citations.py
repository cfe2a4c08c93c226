"""How to cite each layer, and this library."""

import re

from longstate._papers import PAPERS as PAPERS
from longstate.errors import InputError, near


def cite(name: str) -> str:
    """BibTeX of the paper of a layer, or of this library.

    Args:
        name: a layer ("s4d", "Mamba2"), "hippo" or "longstate". Case and hyphens do not matter.

    Raises:
        InputError: there is no citation of this name; the message names similar ones.
    """
    from longstate import __version__

    if _plain(name) == "longstate":
        return (
            "@software{longstate,\n"
            "  title = {longstate},\n"
            "  author = {{The longstate authors}},\n"
            "  year = {2026},\n"
            f"  version = {{{__version__}}},\n"
            "}"
        )
    for layer, paper in PAPERS.items():
        if _plain(layer) == _plain(name):
            return paper.bibtex()
    names = [*PAPERS, "longstate"]
    raise InputError(f"there is no citation for {name!r}; {near(name, names)}")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
