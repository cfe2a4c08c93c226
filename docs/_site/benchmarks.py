"""The pages about speed, made from the dated files in benchmarks/results."""

import re
from pathlib import Path

_FILE = re.compile(r"(\d{4}-\d{2}-\d{2})_(.+)\.md")
_QUOTED = re.compile(
    r"^\[Table: ([^\]]+)\]\((?:\.\./)((?:\.\./)*)benchmarks/results/([^)]+)\)$", flags=re.M
)


def pages(root: Path) -> dict[str, str]:
    """Path in the site -> text in Markdown."""
    results = sorted((root / "benchmarks" / "results").glob("*.md"))
    made = {f"benchmarks/{path.name}": path.read_text("utf-8") for path in results}
    return {**made, "benchmarks.md": index(results)}


def index(results: list[Path]) -> str:
    newest: dict[str, list[Path]] = {}
    for path in results:
        newest.setdefault(_FILE.fullmatch(path.name)[2], []).insert(0, path)
    rows = []
    for paths in newest.values():
        heading = paths[0].read_text("utf-8").splitlines()[0].lstrip("# ")
        dates = [f"[{_FILE.fullmatch(p.name)[1]}](benchmarks/{p.name})" for p in paths]
        rows.append(f"| {heading} | {dates[0]} | {', '.join(dates[1:])} |")
    return f"""# Benchmarks

Every figure in these documents comes from a dated file that a script of `benchmarks/` wrote. A
script compares outputs first, and then runs all candidates in turn. A file contains the processor,
the versions, the command, medians and their spread.

| what | newest | before |
| --- | --- | --- |
{chr(10).join(rows)}

On your machine, `longstate bench` measures every op and layer, and shows which share of the
machine's limits each reaches: see [the commands](api/commands.md#longstate-bench).
[Contributing](contributing.md#benchmarks) lists the scripts and what they need.
"""


def with_tables(markdown: str, root: Path) -> str:
    """Replace a line `[Table: HEADING](../benchmarks/results/FILE)` by the table."""

    def quote(match: re.Match) -> str:
        heading, up, name = match.groups()
        text = (root / "benchmarks" / "results" / name).read_text("utf-8")
        return table(text, heading) + f"\n\n[Where these come from]({up}benchmarks/{name}).\n"

    return _QUOTED.sub(quote, markdown)


def table(text: str, heading: str) -> str:
    """The first table under a heading.

    Raises:
        ValueError: there is no such heading, or no table under it.
    """
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, flags=re.M | re.S)
    rows = re.findall(r"^\|.*$", found[1], flags=re.M) if found else []
    if not rows:
        raise ValueError(f"there is no table under {heading!r}")
    return "\n".join(rows)
