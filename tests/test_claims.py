"""The page of claims: made from the results, and nothing typed by hand."""

import math
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER, RESULTS = ROOT / "benchmarks", ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "claims.md"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """The scripts import each other by bare names, which must not stay."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


@pytest.fixture
def results(tmp_path) -> Path:
    """A copy of the results."""
    return Path(shutil.copytree(RESULTS, tmp_path / "results"))


def page(folder: Path = RESULTS) -> str:
    import claims
    from tables import newest

    return claims.page(newest(folder))


def test_the_page_is_what_the_command_writes():
    assert PAGE.read_text("utf-8") == page(), "run python benchmarks/claims.py"


def test_every_measured_figure_stands_in_a_linked_file():
    figures = 0
    for section in page().split("\n## ")[1:]:
        linked = re.findall(r"\]\(\.\./benchmarks/results/([^)]+)\)", section)
        text = "\n".join((RESULTS / name).read_text("utf-8") for name in linked)
        rows = re.findall(r"^\| .* \| (.*) \| .* \|$", section, flags=re.M)
        rows += re.findall(r"^For comparison\. (.*)\.$", section, flags=re.M)
        for row in rows:
            for name, cell in re.findall(r"(?:^|<br>|; )([^<;]+): ([^<;]+)", row):
                assert cell == "-" or f"| {cell} |" in text, (name, cell, linked)
                figures += cell != "-"
    assert figures > 40


def test_no_figure_is_typed_into_a_claim():
    """Lengths and columns come from the tables; words have no decimals, percents or numbers."""
    import claims

    for claim in claims.CLAIMS:
        words = [claim.title, claim.claimed, claim.remark, *(c.words for c in claim.checks)]
        words += [f.name.partition(", length ")[0] for c in claim.checks for f in c.figures]
        for text in words:
            assert not re.search(r"\d\.\d|(?<!-)\b\d{2,}|\d ?%", text.split("](")[0]), text


def test_another_figure_makes_another_page_and_verdict(results):
    path = max(results.glob("*_parity.md"))
    text = path.read_text("utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| Signed |"))
    worse = re.sub(r"\d\.\d{3} \(.*?\)", "0.512 (0.500 to 0.520)", row)
    path.write_text(text.replace(row, worse), "utf-8")
    title = "\n## Decays in [0, 1] cannot compute parity, signed ones can\n"
    before, after = (p.partition(title)[2].partition("\n## ")[0] for p in (page(), page(results)))
    assert "**Verdict: held.**" in before
    assert "**Verdict: held in part.**" in after
    assert "signed, length 256: 0.512 (0.500 to 0.520)" in after


def test_a_study_that_does_not_exist_is_not_measured_yet(results):
    for path in results.glob("*_parity.md"):
        path.unlink()
    section = page(results).partition("\n## Decays in [0, 1]")[2].partition("\n## ")[0]
    assert "**Verdict: not measured yet.**" in section
    assert "`python benchmarks/screens.py parity`" in section


def test_the_newest_file_counts(results):
    from tables import newest

    path = max(results.glob("*_parity.md"))
    shutil.copy(path, results / "2099-01-01_parity.md")
    assert newest(results)["parity"].path.name == "2099-01-01_parity.md"


def test_the_table_at_the_top_links_to_every_claim():
    import claims

    text = page()
    for claim in claims.CLAIMS:
        assert f"(#{claims.anchor(claim.title)})" in text
        assert f"\n## {claim.title}\n" in text


def test_commands_name_scripts_and_studies():
    import claims
    import screens

    for claim in claims.CLAIMS:
        assert claim.commands or not claim.checks, claim.title
        for command in claim.commands:
            script, *options = shlex.split(command)
            assert (FOLDER / script).exists(), command
            if script == "screens.py":
                assert options[0] in screens.STUDIES, command


def test_measure_runs_every_study_once_without_those_that_need_data(monkeypatch, capsys):
    import subprocess

    import claims

    ran: list[str] = []

    def run(command: list, **_: object) -> subprocess.CompletedProcess:
        ran.append(" ".join([Path(command[1]).name, *command[2:]]))
        return subprocess.CompletedProcess(command, int(command[1].name == "a5.py"))

    monkeypatch.setattr(subprocess, "run", run)
    claims.measure()
    said = capsys.readouterr().out
    assert {"a5.py", "screens.py parity", "impulse_fit.py"} <= set(ran)
    assert len(ran) == len(set(ran))
    assert not any("FOLDER" in command or ".csv" in command for command in ran)
    assert "not run, needs data: forecast_etth1.py ETTh1.csv" in said
    assert "failed: a5.py" in said


def test_every_figure_of_a_study_of_screens_is_in_its_plan():
    """A misspelt layer or task would be "not measured yet" for ever."""
    import claims
    import screens

    from longstate.tasks import task

    for claim in claims.CLAIMS:
        figures = [f for check in claim.checks for f in check.figures]
        for figure in (*figures, *claim.beside):
            for name in figure.studies.split("|"):
                study = screens.STUDIES.get(name)
                if study is None:
                    continue
                layers = [layer.rpartition(":")[2] for layer in study.layers]
                budget = task(figure.table).budget
                assert figure.row in ("chance", *layers), figure
                assert figure.table in study.tasks, figure
                assert figure.column in [f"at {n}" for n in (budget.length, *budget.longer)]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("0.5", (0.5, 0.5, 0.5)),
        ("0.512 (0.500 to 0.520)", (0.512, 0.5, 0.52)),
        ("-0.25 (-0.5 to 0.125)", (-0.25, -0.5, 0.125)),
        ("0.50 ± 0.25", (0.5, 0.25, 0.75)),
        ("0.50 (0.25)", (0.5, 0.25, 0.75)),
        ("2,816", (2816, 2816, 2816)),
        ("5.5e-16", (5.5e-16,) * 3),
    ],
)
def test_a_cell_is_read(cell, expected):
    from tables import spread

    assert tuple(spread(cell)) == expected


@pytest.mark.parametrize("cell", ["", "-", "3 of 3", "yes", "1 2"])
def test_a_cell_without_a_figure_is_refused(cell):
    from tables import spread

    with pytest.raises(ValueError, match="figure"):
        spread(cell)


def test_no_rule_holds_of_runs_that_diverged():
    from tables import Spread, spread
    from verdicts import RULES

    for cell in ("3 of 3 diverged", "0.6 (nan), 2 of 3 diverged"):
        assert all(map(math.isnan, spread(cell)))
    lost, found = spread("3 of 3 diverged"), Spread(0.5, 0.5, 0.5)
    for rule in RULES:
        count = rule.holds.__code__.co_argcount
        for values in ([lost] * count, [lost, *[found] * (count - 1)]):
            assert rule.holds(*values) is False, rule.name


def test_tables_are_read_with_their_headings(tmp_path):
    from tables import read

    path = tmp_path / "2026-01-01_study.md"
    path.write_text(
        "# Title\n\nText, seeds 0,1,2,7.\n\n| a | b |\n|--|--:|\n| x | 1 |\n\n## Second\n\n"
        "| a | b | seeds |\n|--|--:|--:|\n| x | 2 | 5 |\n| x | 3 | 0, 1 |\n\n| c |\n|--|\n| 9 |\n"
    )
    found = read(path)
    assert list(found.tables) == ["", "Second"]
    first, second = found.tables.values()
    assert first.row(first="x") == {"a": "x", "b": "1"}
    assert second.row(first="x", b="3")["seeds"] == "0, 1"
    assert second.row(first="y") is None
    assert [found.seeds(row) for row in second.named()] == [5, 2]
    assert found.seeds(first.row(first="x")) == 2  # the fewest of another table of the file
    path.write_text("# Title\n\nText, seeds 0,1,2,7.\n\n| a | b |\n|--|--:|\n| x | 1 |\n")
    assert read(path).seeds({"a": "x", "b": "1"}) == 4
    path.write_text("| a | b |\n|--|--:|\n| x |\n")
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        read(path)


def made(cells: dict[str, str], seeds: int) -> dict:
    """A result of one table."""
    from tables import Result, Table

    rows = [[name, cell, str(seeds)] for name, cell in cells.items()]
    return {"s": Result(Path("s.md"), "", {"t": Table(["layer", "v", "seeds"], rows)})}


def test_rules_look_at_spreads_and_seeds():
    from verdicts import HIGHER, LOWER, Check, Figure

    a, b = Figure("a", "s", "t", "a", "v"), Figure("b", "s", "t", "b", "v")
    apart = made({"a": "0.8 (0.7 to 0.9)", "b": "0.5 (0.4 to 0.6)"}, 3)
    overlap = made({"a": "0.8 (0.5 to 0.9)", "b": "0.5 (0.4 to 0.6)"}, 3)
    assert Check("", HIGHER, (a, b)).holds(apart) is True
    assert Check("", LOWER, (b, a)).holds(apart) is True
    assert Check("", HIGHER, (b, a)).holds(apart) is False
    assert Check("", HIGHER, (a, b)).holds(overlap) is False
    few = made({"a": "0.8 (0.7 to 0.9)", "b": "0.5 (0.4 to 0.6)"}, 2)
    assert Check("", HIGHER, (a, b)).holds(few) is None
    assert Check("", HIGHER, (a, b)).holds(made({"a": "0.8"}, 3)) is None
    assert Figure("a", "other|s", "t", "a", "v").find(apart).spread.middle == 0.8
    both = {"few": few["s"], "s": overlap["s"]}  # the first with enough seeds
    assert Figure("a", "few|s", "t", "a", "v").find(both).spread.low == 0.5


@pytest.mark.parametrize(
    ("rule", "values", "holds"),
    [
        ("SOLVES", (0.99,), True), ("SOLVES", (0.98,), False),
        ("FAILS", (0.5, 0.125), True), ("FAILS", (0.6, 0.125), False),
        ("AT_CHANCE", (0.54, 0.5), True), ("AT_CHANCE", (0.56, 0.5), False),
        ("AS_GOOD", (0.91, 1.0), True), ("AS_GOOD", (0.89, 1.0), False),
        ("CONSTANT", (1.0, 0.91), True), ("CONSTANT", (0.8, 1.0), False),
        ("KEPT", (-0.01,), True), ("KEPT", (0.01,), False),
        ("SILENT", (0.95,), True), ("SILENT", (0.6,), False),
        ("TIMES", (2000.0, 1.0), True), ("TIMES", (900.0, 1.0), False),
        ("EXACT", (1e-15,), True), ("EXACT", (1e-9,), False),
    ],
)  # fmt: skip
def test_each_rule_can_hold_and_fail(rule, values, holds):
    import verdicts
    from tables import Spread

    found = getattr(verdicts, rule)
    assert found in verdicts.RULES
    assert found.holds(*(Spread(v, v, v) for v in values)) is holds


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([True, True], "held"),
        ([True, False], "held in part"),
        ([False, False], "did not hold"),
        ([None, None], "not measured yet"),
        ([], "not measured yet"),
        ([True, None], "held; 1 of 2 checks not measured yet"),
    ],
)
def test_verdicts(outcomes, said):
    from verdicts import verdict

    assert verdict(outcomes) == said


def test_a_screen_is_written_as_a_table_that_can_be_read_back(tmp_path, monkeypatch):
    import screens
    from tables import read, spread

    from tests.reports.test_tasks_report import made as made_screen

    monkeypatch.setattr(screens, "machine", lambda: "a processor")
    found = made_screen(complete=False)
    path = tmp_path / "2026-01-01_screen.md"
    path.write_text(screens.text(screens.STUDIES["screen"], "command", found), "utf-8")
    result = read(path)
    assert "Not all runs have ended." in result.text
    assert list(result.tables) == ["recall", "narma10"]
    row = result.tables["recall"].row(first="mamba")
    cell = found.cells[0]
    assert tuple(spread(row["at 20"])) == (0.875, 0.865, 0.885)
    assert row["at 80"] == "0.438 (0.438 to 0.438)"
    assert (row["seeds"], row["stopped by time"]) == (str(cell.runs), str(cell.cut))
    assert result.tables["recall"].row(first="chance")["at 40"] == "0.125"
