"""A claim of a paper, and the checks that decide it. The claims are in `claims_*.py`."""

from dataclasses import dataclass

from verdicts import Check, Figure

FILES = "Read in the authors' stored results."
CODE = "Read in the authors' code; the figures of the paper were not read."
ABSTRACT = "Read in the abstract."
NOTES = "From notes and reviews by others; the paper itself was not read."
KNOWN = "As it is generally reported; the tables of the paper were not read, so none is quoted."


@dataclass(frozen=True)
class Claim:
    """A row of the table.

    Args:
        title: the claim in a few words.
        claimed: what the paper says, without unverified figures.
        papers: authors, year and arXiv number.
        source: how we know what was claimed.
        commands: that measure it, without `python benchmarks/`.
        checks: all must hold.
        remark: how the experiment differs from the paper's, or what surprised.
        beside: figures that are shown and decide nothing.
    """

    title: str
    claimed: str
    papers: tuple[tuple[str, str], ...]
    source: str
    commands: tuple[str, ...]
    checks: tuple[Check, ...]
    remark: str = ""
    beside: tuple[Figure, ...] = ()


MAMBA = ("Gu and Dao, 2023", "2312.00752")
LONGHORN = ("Liu et al., 2024", "2407.14207")
S4 = ("Gu et al., 2022", "2111.00396")
S5 = ("Smith et al., 2023", "2208.04933")


def at(studies: str, task: str, name: str, layer: str, length: int) -> Figure:
    """The accuracy of a layer in a study of `screens.py`; chance needs no seeds."""
    drawn = layer != "chance"
    return Figure(f"{name}, length {length}", studies, task, layer, f"at {length}", drawn=drawn)
