"""The page of claims: made from the results, and nothing typed by hand."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER, RESULTS = ROOT / "benchmarks", ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "claims.md"

pytestmark = pytest.mark.usefixtures("benchmark_modules")


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
    assert "not run, needs data: informer.py ETTh1.csv" in said
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
                layers = map(screens.row_name, study.layers)
                budget = task(figure.table).budget
                assert figure.row in ("chance", *layers), figure
                assert figure.table in study.tasks, figure
                assert figure.column in [f"at {n}" for n in (budget.length, *budget.longer)]


def test_every_layer_of_a_study_has_a_row_of_its_own():
    import screens

    assert screens.row_name("screen_layers:s4d_legs") == "s4d_legs"
    for study in screens.STUDIES.values():
        names = [screens.row_name(layer) for layer in study.layers]
        assert len(set(names)) == len(names), study.title


def test_a_screen_is_written_as_a_table_that_can_be_read_back(tmp_path, monkeypatch):
    import screens
    from tables import read, spread

    from tests.reports.test_tasks_report import made as made_screen

    monkeypatch.setattr(screens, "machine", lambda: "a processor")
    found = made_screen(complete=False)
    path = tmp_path / "2026-01-01_screen.md"
    path.write_text(
        screens.text(screens.STUDIES["screen"], "command", found, "Two machines."), "utf-8"
    )
    result = read(path)
    assert "a processor\n\nTwo machines.\n" in result.text
    assert "Not all runs have ended." in result.text
    assert list(result.tables) == ["recall", "narma10"]
    row = result.tables["recall"].row(first="mamba")
    cell = found.cells[0]
    assert tuple(spread(row["at 20"])) == (0.875, 0.865, 0.885)
    assert row["at 80"] == "0.438 (0.438 to 0.438)"
    assert (row["seeds"], row["stopped by time"]) == (str(cell.runs), str(cell.cut))
    assert result.tables["recall"].row(first="chance")["at 40"] == "0.125"
