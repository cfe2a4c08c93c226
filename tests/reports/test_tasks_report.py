"""The page about a screen: its figures are those of the outcomes."""

import pytest

from longstate.memory import KINDS
from longstate.reports import tasks as report
from longstate.tasks import Cell, Plan, Screen, held, task
from tests.reports.test_forecast_report import TAGS, Reader


def cell(name: str, layer: str, accuracy: float, cut: int = 0) -> Cell:
    t = task(name)
    length = t.budget.length
    return Cell(
        task=name, layer=layer, rate=0.003, accuracy=accuracy, spread=0.0125,
        longer=dict.fromkeys(t.budget.longer, accuracy / 2),
        each={length: [accuracy - 0.01, accuracy, accuracy + 0.01]}
        | {n: [accuracy / 2] * 3 for n in t.budget.longer},
        rows=0.75, chance=t.chance or 0.0,
        demand=t.demand(length), held=held(t, accuracy, length), state_bytes=2048,
        parameters=1000, seconds=12.0, cut=cut, runs=3,
    )  # fmt: skip


def made(complete: bool = True) -> Screen:
    plan = Plan(("mamba", "lstm"), ("recall", "narma10"))
    cells = [cell("recall", "mamba", 0.875, 1), cell("recall", "lstm", 0.125),
             cell("narma10", "mamba", 0.25), cell("narma10", "lstm", 0.5)]  # fmt: skip
    errors = [] if complete else ["lstm on recall: RuntimeError: <b>no</b> luck"]
    return Screen(plan, cells, errors, complete, {"longstate": "0"})


def test_the_ranking_is_the_mean_score():
    ranked = made().ranking()
    assert [r[0] for r in ranked] == ["mamba", "lstm"]
    assert ranked[0][1] == pytest.approx(((0.875 - 0.125) / 0.875 + 0.25) / 2)
    assert ranked[1][1] == pytest.approx(0.25)
    assert report.headline(made()) == (
        "Mean score over 2 tasks, from 0 at chance to 1: mamba 0.55, lstm 0.25."
    )
    assert report.headline(made(False)).endswith("Not all runs have ended.")


def test_rows_are_sorted_and_have_all_columns():
    rows = report.rows(made())
    assert [r[0].strip() for r in rows] == ["recall", "mamba", "lstm", "narma10", "lstm", "mamba"]
    assert {len(r) for r in rows} == {1, len(report.HEAD)}
    assert rows[1][1:] == [
        "0.875", "0.013", "0.750", "0.438 at 40, 0.438 at 80", "0.12", "18.13 exact",
        "8.42 lower bound", "2,048 B", "12 s",
    ]  # fmt: skip
    assert rows[4][7] == "-"


def test_the_page_has_everything_and_no_script():
    page = report.render(made(False))
    reader = Reader(page)
    text = " ".join(reader.text)
    for part in ("Scores", "recall", task("recall").why, "Bits needed, and bits that states held",
                 "How to read this", "mamba on recall", "beyond the training length",
                 "Settings and environment", "<b>no</b> luck"):  # fmt: skip
        assert part in text, part
    assert "<b>no</b>" not in page
    assert reader.tags <= TAGS
    assert "mathdefault" not in page  # an axis with labels for TeX
    assert all(kind.replace("_", " ") in text for kind in KINDS)


def test_an_empty_screen_is_a_page(tmp_path):
    empty = Screen(Plan(("lstm",), ("recall",)), [], [], False, {})
    written = report.write(empty, tmp_path / "report.html")
    assert "No run has ended yet." in written.read_text(encoding="utf-8")
