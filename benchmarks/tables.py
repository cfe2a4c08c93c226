"""Read the results back: the Markdown tables that the scripts write into `results/`."""

import math
import re
from pathlib import Path
from typing import NamedTuple

_FILE = re.compile(r"\d{4}-\d{2}-\d{2}_(.+)\.md")
_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_CELL = re.compile(
    rf"(?P<middle>{_NUMBER})(?: \((?P<low>{_NUMBER}) to (?P<high>{_NUMBER})\)"
    rf"| \((?P<error>{_NUMBER})\)| ± (?P<sd>{_NUMBER}))?"
)
_SEEDS = re.compile(r"(\d+) seeds|seeds ((?:\d+,)+\d+)")


class Spread(NamedTuple):
    """A figure and how far it varies, as its file states it.

    Attributes:
        middle: the mean, or the only value.
        low, high: the lowest and the highest seed, or one deviation or standard error on both
            sides of the mean; the same as `middle` if the file gives none.
    """

    middle: float
    low: float
    high: float


def spread(cell: str) -> Spread:
    """The figure in a cell: `0.5`, `0.5 (0.4 to 0.6)`, `0.5 ± 0.1` or `0.5 (0.1)`.

    Where runs diverged there is none: NaN, with which no rule holds.

    Raises:
        ValueError: the cell has another form, such as words about a run that diverged.
    """
    found = _CELL.fullmatch(cell.strip())
    if found is None:
        if cell.strip().endswith(" diverged"):
            return Spread(math.nan, math.nan, math.nan)
        raise ValueError(f"a cell must be a figure with or without a spread; got {cell!r}")
    part = {k: float(v.replace(",", "")) for k, v in found.groupdict().items() if v is not None}
    middle, error = part["middle"], part.get("error", part.get("sd", 0.0))
    return Spread(middle, part.get("low", middle - error), part.get("high", middle + error))


class Table(NamedTuple):
    """Attributes:
    head: the names of the columns.
    rows: the cells, without the space around them.
    """

    head: list[str]
    rows: list[list[str]]

    def row(self, **where: str) -> dict[str, str] | None:
        """The first row with these cells, by the names of the columns; None if there is none.

        Args:
            where: `first` is the first column, whatever its name.
        """
        for named in self.named():
            first = named[self.head[0]]
            if all((first if k == "first" else named.get(k)) == v for k, v in where.items()):
                return named
        return None

    def named(self) -> list[dict[str, str]]:
        """Every row, its cells by the names of the columns."""
        return [dict(zip(self.head, cells, strict=True)) for cells in self.rows]


class Result(NamedTuple):
    """One file.

    Attributes:
        path: of the file.
        text: all of it.
        tables: the first table under each heading; "" is the one before the first `##`.
    """

    path: Path
    text: str
    tables: dict[str, Table]

    def seeds(self, row: dict[str, str]) -> int | None:
        """Over how many seeds a row is: by its column "seeds", by that column of another table of
        the file (the fewest), or by the text, as "3 seeds" or "seeds 0,1,2"."""
        stated = [row] if "seeds" in row else [r for t in self.tables.values() for r in t.named()]
        counts = [_count(r["seeds"]) for r in stated if r.get("seeds")]
        if counts:
            return min(counts)
        found = _SEEDS.search(self.text)
        return None if found is None else int(found[1]) if found[1] else _count(found[2])


def _count(seeds: str) -> int:
    """Of "3", or of a list such as "0, 1, 2"."""
    return seeds.count(",") + 1 if "," in seeds else int(seeds)


def read(path: Path) -> Result:
    """Read a file of results.

    Raises:
        ValueError: a row of a table has another number of cells than its head.
    """
    text = path.read_text("utf-8")
    tables: dict[str, Table] = {}
    heading, lines = "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip().strip("|").split("|")])
            continue
        if lines and heading not in tables:
            tables[heading] = _table(lines, path)
        lines = []
        if line.startswith("## "):
            heading = line[3:].strip()
    return Result(path, text, tables)


def _table(lines: list[list[str]], path: Path) -> Table:
    head, _, *rows = lines
    for cells in rows:
        if len(cells) != len(head):
            raise ValueError(f"{path.name}: {len(cells)} cells under {len(head)} columns: {cells}")
    return Table(head, rows)


def newest(folder: Path) -> dict[str, Result]:
    """The newest file of each study, by the name of the study."""
    found: dict[str, Result] = {}
    for path in sorted(folder.glob("*.md")):
        name = _FILE.fullmatch(path.name)
        if name is not None:
            found[name[1]] = read(path)
    return found
