"""How the page of claims reads tables, and how rules make verdicts of figures."""

import math
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("benchmark_modules")


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
