"""Write `docs/claims.md`: what papers claim, what this library measured, and the verdict.

    python benchmarks/claims.py [--measure] [--results FOLDER] [--out FILE]

Reads the newest dated file of each study in `benchmarks/results/`. All measured figures are copied
from these files by the cells that `claims_*.py` names; `verdicts.py` has the rules. `--measure`
first runs every study that needs no file of data, one after the other: hours, but what is finished
is kept, and the same command goes on.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import claims_practice
import claims_recall
import claims_state
from claim import Claim
from command import parser
from measure import RESULTS
from tables import Result, newest
from verdicts import FEWEST_SEEDS, RULES, Check, Found, verdict

CLAIMS = (*claims_recall.CLAIMS, *claims_state.CLAIMS, *claims_practice.CLAIMS)
PAGE = Path(__file__).parent.parent / "docs" / "claims.md"
ANSWER = {True: "yes", False: "**no**", None: "not measured yet"}
DATA = (".csv", ".txt", ".zip")
"""Endings of files that do not come with the library."""

INTRODUCTION = """# Claims of the papers, measured again

Papers about state space models make claims. This page takes those that fit two CPU cores, measures
them with small models, and says whether they held. A claim that did not hold stays here.

Small models and short training: "did not hold" means at this size and with this training. It does
not say that a paper is wrong.
"""

RULES_TEXT = f"""## How a verdict is found

A claim is split into checks. Each check is one of the rules below, applied to figures from the
results. All checks hold: **held**. Some hold: **held in part**. None holds: **did not hold**.
A check whose figures do not exist, or come from fewer than {FEWEST_SEEDS} seeds, is **not measured
yet**. The rules are the same for all claims.

The spread of a figure is what its file states: in brackets the lowest and the highest seed, or the
standard error; after ± the standard deviation.
"""

END = """## Measure all of it again

```sh
python benchmarks/claims.py --measure
```

This runs all studies that need no other data, and writes this page. It takes hours. What is
finished is kept, and the same command goes on. Studies that need a file of data name it in their
`--help`. Without `--measure` the command only writes the page, from the newest file of each study.
"""


def page(results: dict[str, Result]) -> str:
    """The whole page."""
    rows = [f"| [{c.title}](#{anchor(c.title)}) | **{outcome(c, results)}** |" for c in CLAIMS]
    rules = [f"- *{rule.name}*: {rule.meaning}" for rule in RULES]
    return "\n".join([
        INTRODUCTION, "| claim | verdict |", "| --- | --- |", *rows, "",
        RULES_TEXT, *rules, "",
        *(section(c, results) for c in CLAIMS),
        END,
    ]).rstrip() + "\n"  # fmt: skip


def outcome(claim: Claim, results: dict[str, Result]) -> str:
    return verdict([check.holds(results) for check in claim.checks])


def section(claim: Claim, results: dict[str, Result]) -> str:
    """One claim: short paragraphs, and a table of its checks."""
    papers = "; ".join(f"[{who}](https://arxiv.org/abs/{number})" for who, number in claim.papers)
    used = files(claim, results)
    lines = [
        f"## {claim.title}", "",
        f"**Verdict: {outcome(claim, results)}.**", "",
        f"**Claimed.** {claim.claimed} ({papers}) *{claim.source}*", "",
    ]  # fmt: skip
    if claim.remark:
        lines += [f"**Note.** {claim.remark}", ""]
    if claim.checks:
        lines += ["| check | measured | holds |", "| --- | --- | --- |"]
        lines += [row(check, results) for check in claim.checks]
        lines.append("")
    beside = [f"{f.name}: {x.cell}" for f in claim.beside if (x := f.find(results))]
    if beside:
        lines += [f"For comparison. {'; '.join(beside)}.", ""]
    if used:
        links = ", ".join(f"[{study}](../benchmarks/results/{r.path.name})" for study, r in used)
        lines += [f"**Results.** {links}. {seeds(claim, results)}", ""]
    said = ", ".join(f"`python benchmarks/{command}`" for command in claim.commands)
    lines += [f"**Measure it again.** {said or 'There is no command for this yet.'}", ""]
    return "\n".join(lines)


def row(check: Check, results: dict[str, Result]) -> str:
    """A check: its words and rule, its figures as they stand in the results, the answer."""
    found = check.found(results)
    pairs = zip(check.figures, found, strict=True)
    cells = [f"{figure.name}: {'-' if f is None else f.cell}" for figure, f in pairs]
    answer = ANSWER[check.holds(results)]
    few = [f.seeds for f in found if f is not None and f.seeds and not f.enough]
    if few:
        answer += f" (seeds: {min(few)})"
    return f"| {check.words} *({check.rule.name})* | {'<br>'.join(cells)} | {answer} |"


def each(claim: Claim, results: dict[str, Result]) -> list[Found]:
    """All figures of a claim that exist."""
    figures = (*claim.beside, *(f for check in claim.checks for f in check.figures))
    return [found for figure in figures if (found := figure.find(results))]


def files(claim: Claim, results: dict[str, Result]) -> list[tuple[str, Result]]:
    """The results that a claim uses, by the name of the study."""
    paths = {f.result.path for f in each(claim, results)}
    return [(study, result) for study, result in results.items() if result.path in paths]


def seeds(claim: Claim, results: dict[str, Result]) -> str:
    counts = sorted({f.seeds for f in each(claim, results) if f.seeds is not None})
    if not counts:
        return "No seeds: chance plays no part."
    return f"Seeds: {' or '.join(map(str, counts))}."


def anchor(title: str) -> str:
    """As the site makes it from a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip())


def measure() -> None:
    """Run every study once, but for those that need a file of data; go on after one that fails."""
    for command in dict.fromkeys(c for claim in CLAIMS for c in claim.commands):
        script, *options = shlex.split(command)
        if "FOLDER" in options or any(option.endswith(DATA) for option in options):
            print(f"not run, needs data: {command}", flush=True)
            continue
        print(command, flush=True)
        done = subprocess.run([sys.executable, Path(__file__).parent / script, *options])
        if done.returncode:
            print(f"failed: {command}", flush=True)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--measure", action="store_true", help="run the studies first")
    options.add_argument("--results", type=Path, default=RESULTS)
    options.add_argument("--out", type=Path, default=PAGE)
    given = options.parse_args()
    if given.measure:
        measure()
    given.out.write_text(page(newest(given.results)), "utf-8")
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
