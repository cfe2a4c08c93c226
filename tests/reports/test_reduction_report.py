"""The page about a reduction: its figures are those that were measured."""

import re
from dataclasses import replace

import numpy as np
import pytest
from typer.main import get_command

from longstate import reduce
from longstate.cli import app
from longstate.compress import Healing, size_curve
from longstate.memory import KINDS
from longstate.reports import _reduction_examine as examine
from longstate.reports import _reduction_figures as figures
from longstate.reports import reduction
from longstate.reports._figure import Labels, axes, log_axis
from longstate.reports._reduction_advice import advice, cheapest
from longstate.reports._subject import open_subject, read_windows
from tests.compress.helpers import language, tokens
from tests.reports.memory_samples import checkpoint, forecast_run, text_run
from tests.reports.test_forecast_report import TAGS, Reader


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return text_report(tmp_path_factory.mktemp("text"))


def text_report(folder):
    """The report of a text model with a selective and a linear layer."""
    subject = open_subject(text_run(folder / "run"))
    reading = subject.read(None)
    small, found = reduce(subject.found, reading.data(2, 64), keep=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examine, "LENGTH", 40)
        patch.setattr(examine, "_ROUNDS", 1)
        return reduction.examine(subject, small, found, reading, "small")


def test_all_sections_are_on_the_page(made):
    page = reduction.render(made)
    text = " ".join(Reader(page).text)
    for part in (
        "What to do about it",
        "The layers",
        "Error of each layer",
        "Size of the state and the task",
        "Bits of a parked state and the task",
        "What was cut",
        "blocks.0.mixer: 16 to",
        "Environment",
    ):
        assert part in text, part
    assert page.index("What to do about it") < page.index("The layers")
    assert made.notes == ()


def test_the_last_line_has_the_measured_figures(made):
    last = reduction.headline(made)
    assert [t for t in Reader(reduction.render(made)).text if t.strip()][-1] == last
    found = re.fullmatch(
        r"nats per token (\S+) to (\S+), state (.+) to (.+), (\S+)x \w+ tokens \(.+\)", last
    )
    assert float(found[1]) == pytest.approx(made.before, rel=1e-3)
    assert float(found[2]) == pytest.approx(made.after, rel=1e-3)
    one, two, *_ = made.paces
    assert float(found[5]) == pytest.approx(max(one / two, two / one), abs=0.006)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ([(2.0, 1.0), (2.2, 1.0), (3.0, 1.2)], "2.20x faster tokens (2.00 to 2.50)"),
        ([(1.0, 2.0), (1.0, 4.0), (1.0, 1.25)], "2.00x slower tokens (1.25 to 4.00)"),
        ([(1.0, 1.25), (1.0, 1.25), (1.5, 1.0)], "tokens about as fast (0.80x to 1.50x)"),
    ],
)
def test_rounds_that_disagree_show_no_difference(made, monkeypatch, seconds, said):
    """The whole model and the smaller one in turn, the other one first in every second round."""
    taken = {"one": [9.0, *(a for a, _ in seconds)], "two": [9.0, *(b for _, b in seconds)]}
    order = []

    def measured(run):
        order.append(run)
        return taken[run].pop(0)

    monkeypatch.setattr(examine, "_ROUNDS", 3)
    monkeypatch.setattr(examine, "_seconds", measured)
    paces = examine._in_turn("one", "two", 1)
    assert reduction.headline(replace(made, paces=paces)).endswith(said)
    assert order == ["two", "one", "one", "two", "two", "one", "one", "two"]


def test_the_curve_begins_with_the_whole_model(made):
    first = made.sizes.points[0]
    assert first.keep == 1
    assert first.metric == pytest.approx(made.before)
    assert first.bytes == made.found.bytes_before
    sizes = [p.bytes for p in made.sizes.points]
    assert sizes == sorted(sizes, reverse=True)
    assert made.sizes.left_out == ()


def test_the_curve_ends_when_its_time_is_over():
    asked = []
    model = language("s4d")
    found = size_curve(model, lambda m: asked.append(m) or 1.0, tokens(2, 8), seconds=0)
    assert len(found.points) == len(asked) == 1
    assert found.left_out == (0.75, 0.5, 0.375, 0.25, 0.125, 0.0625)


def test_the_spectrum_belongs_to_its_layer(made):
    assert sum(x**2 for x in made.found.layers[1].spectrum) == pytest.approx(1)
    for row in made.found.layers:
        assert figures.kept_units(row) == len(row.spectrum) * row.after / row.before


def test_errors_of_linear_layers_are_inside_their_bounds(made):
    row = made.found.layers[1]
    assert row.least <= row.measured <= row.predicted


def test_each_figure_names_the_kind_of_its_numbers(made):
    page = reduction.render(made)
    kinds = re.findall(r'<figcaption><span class="kind">([\w ]+)</span>', page)
    assert len(kinds) == page.count("<figure>") == 5
    assert set(kinds) <= {kind.replace("_", " ") for kind in KINDS}


def test_the_page_is_well_formed_and_loads_nothing(made):
    hostile = replace(made, name='<script>alert(1)</script>"><img src=x>', out="</code>&")
    reader = Reader(reduction.render(hostile))
    assert reader.tags <= TAGS | {"code", "strong"}
    outside = [v for n, v in reader.attributes if n in ("src", "href", "action")]
    assert [v for v in outside if not v.startswith(("#", "data:"))] == []
    assert len(reader.ids) == len(set(reader.ids))


def test_the_advice_follows_the_measured_metric(made):
    fine = advice(replace(made, before=1.0, after=1.001))
    assert fine[0].text.startswith("Use it")
    for found in fine:  # commands that the program has
        words = found.command.split()
        assert words[:1] != ["longstate"] or words[1] in get_command(app).commands
    bad = replace(made, before=1.0, after=1.2, sizes=None)
    assert "--heal-minutes" in advice(bad)[0].command
    healing = Healing("nats per token", 1.0, 1.3, 1.2, 4, 10, 3.0, "no progress")
    healed = replace(bad, found=bad.found.healed(healing))
    assert advice(healed)[0].command == "--keep"
    assert "healed" in reduction.render(healed)
    points = made.sizes.points
    steep = [p._replace(metric=1.0 if p.keep >= 0.75 else 2.0) for p in points]
    some = replace(bad, sizes=replace(made.sizes, points=tuple(steep)))
    assert cheapest(some).keep == 0.75
    assert "--keep 0.75" in advice(some)[1].command


def test_a_forecaster_is_scored_on_unseen_rows(tmp_path):
    run, data = forecast_run(tmp_path)
    subject = open_subject(run)
    reading = subject.read(data)
    small, found = reduce(subject.found, reading.data(1, 1), keep=0.5)
    report = reduction.examine(subject, small, found, reading, "small")
    scores = {s.method: s.mse for s in small.evaluate(reading.frame).scores}
    assert report.after == scores["model"]
    assert reduction.headline(report).startswith("mean squared error")
    assert reduction.headline(report).endswith(f", {report.paces.sentence('forecast')}")
    assert "language models only" in " ".join(report.notes)
    windows = read_windows(subject.forecaster, reading.frame, 80)
    assert sum(len(f.point) for f in windows) == 80


def test_without_data_the_page_lists_what_is_missing(tmp_path):
    run, _ = forecast_run(tmp_path)
    subject = open_subject(run)
    small, found = reduce(subject.found, keep=0.5)
    report = reduction.examine(subject, small, found, subject.read(None), "small")
    text = " ".join(Reader(reduction.render(report)).text)
    assert "What was not measured" in text
    assert "Give data." in text
    assert reduction.headline(report).startswith("state ")


def test_a_checkpoint_has_a_page(tmp_path):
    np.save(tmp_path / "tokens.npy", np.arange(400) % 40)
    subject = open_subject(checkpoint(tmp_path / "theirs"))
    reading = subject.read(tmp_path / "tokens.npy")
    small, found = reduce(subject.found, reading.data(2, 32), keep=0.5)
    report = reduction.examine(subject, small, found, reading, "small")
    assert report.metric == "nats per token"
    assert "blocks.1.mixer" in reduction.render(report)


def test_a_text_is_split_to_heal_and_to_measure(made, tmp_path):
    reading = open_subject(text_run(tmp_path / "run")).read(None)
    learn, judge = reading.split()
    assert len(learn.tokens) == round(0.75 * len(reading.tokens))
    assert learn.tokens.tolist() + judge.tokens.tolist() == reading.tokens.tolist()


@pytest.mark.parametrize("values", [(5e-3, 6e-3), (2200, 2400), (1e-4, 1e4), (4.78853, 4.78861)])
def test_an_axis_has_ticks_that_differ(values):
    """Also a logarithmic axis without a power of ten on it, and values with equal first digits."""
    with axes() as ax:
        ax.plot(values, values)
        ax.set_xscale("log")
        log_axis(ax.xaxis)
        ax.yaxis.set_major_formatter(Labels())
        ax.figure.draw_without_rendering()
        for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            labels = [t.label1.get_text() for t in ticks]
            assert 2 <= len(labels) == len(set(labels))
