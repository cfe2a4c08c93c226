import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from longstate import reports
from longstate.errors import InputError
from longstate.reports._forecast_memory import layer_memory
from longstate.systems import DenseSystem
from longstate.testing import assert_within_reference_error
from tests.reports.samples import HORIZON, evaluation, one_example, report, score, system

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><svg onload=alert(1)>",
    "$\\frac{1}{0}$ & \\1 \\g<0> %s {0}",
    "javascript:alert(1)",
    "温度 🌡 \u202e\x00",
)

TAGS = {
    "html", "head", "meta", "link", "title", "style", "body", "header", "section", "footer", "div",
    "h1", "h2", "h3", "p", "span", "ul", "li", "table", "thead", "tbody", "tr", "th", "td",
    "figure", "figcaption", "code", "svg", "g", "defs", "path", "text", "use", "clippath", "rect",
    "tspan",
}  # fmt: skip


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that elements nest."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.text, self.ids = set(), [], [], []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(made: reports.ForecastReport) -> tuple[str, Reader]:
    page = reports.render(made)
    return page, Reader(page)


def test_contains_everything_that_was_given():
    page, reader = read(report())
    text = " ".join(" ".join(reader.text).split())
    for part in (
        "the model has a 50.0 % smaller squared error than ridge",
        "Tested on 1,611 windows",
        "seasonal naive",
        "Error by distance into the future",
        "Calibration of the quantiles",
        "temperature, from 2013-10-20 22:00",
        "Loss while training",
        "Response to one sample",
        "Time scales of the states",
        "PyTorch 2.13.0",
        "covariates none",
        "column temperature has a gap",
    ):  # fmt: skip
        assert part in text or part in text.replace("  ", " "), part
    assert page.count("<svg ") == 7


def test_every_figure_shows_the_kind_of_its_numbers():
    page = reports.render(report())
    kinds = re.findall(r'<figcaption><span class="kind">(\w+)</span>', page)
    assert kinds == ["estimate"] * 5 + ["exact"] * 2
    assert page.count("<figure>") == len(kinds)


@pytest.mark.parametrize("name", HOSTILE)
def test_text_from_the_data_is_escaped(name):
    _, reader = read(report(name))
    assert reader.tags <= TAGS
    assert not [a for a in reader.attributes if a[0].startswith("on")]
    assert name.replace("\x00", "\ufffd") in "".join(reader.text).replace("\x00", "\ufffd")


def test_the_page_makes_no_requests():
    page, reader = read(report("<a href=http://example.com>"))
    outside = [v for n, v in reader.attributes if n in ("src", "href", "action", "data", "srcset")]
    assert [v for v in outside if not v.startswith(("#", "data:,"))] == []
    css = page[page.index("<style>") : page.index("</style>")]
    active = css + " ".join(v for n, v in reader.attributes if n != "aria-label")
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", active)
    policies = [v for n, v in reader.attributes if n == "content" and "-src" in v]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_names_in_the_pictures_are_unique_and_found():
    page, reader = read(report())
    assert len(reader.ids) == len(set(reader.ids))
    assert set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', page)) == set(reader.ids)


def test_colours_come_from_the_page():
    page = reports.render(report())
    pictures = "".join(re.findall(r"<svg .*?</svg>", page, flags=re.S))
    assert not re.search(r"#[0-9a-f]{6}\b", pictures)
    used = set(re.findall(r"var\(--(\w+)\)", page))
    light, dark = (set(re.findall(r"--(\w+):", part)) for part in page.split("@media")[:2])
    assert used <= light
    assert light == dark


def test_the_same_report_is_the_same_page():
    assert reports.render(report()) == reports.render(report())


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (0.1, "has a 50.0 % smaller squared error than ridge"),
        (0.2, "is equal to ridge, the best of the simple methods"),
        (0.21, "does not beat ridge: its squared error is 5.0 % larger. Use ridge."),
    ],
)
def test_headline_says_whether_the_model_is_better(model, says):
    found = evaluation(model=model)
    assert says in reports.headline(found)
    assert ('<h1 class="good">' in reports.render(reports.ForecastReport(found))) == (model < 0.2)


def test_a_headline_that_chance_explains_is_neither_good_nor_bad():
    for model, more in ((0.21, "a 5.0 % larger"), (0.19, "a 5.0 % smaller")):
        found = evaluation(model=model)
        scores = tuple(replace(s, noise=0.02) for s in found.scores)
        unsure = replace(found, scores=scores)
        assert reports.headline(unsure).endswith(
            f"the model has {more} squared error than ridge, the best of the simple methods, "
            "which may be chance."
        )
        assert '<h1 class="even">' in reports.render(reports.ForecastReport(unsure))
        assert '<h1 class="even">' not in reports.render(reports.ForecastReport(found))


def test_headline_without_a_baseline():
    alone = replace(evaluation(), scores=(score("model", 0.1),))
    assert reports.headline(alone).endswith("the model's mean squared error is 0.1879.")
    perfect = replace(evaluation(), scores=(score("model", 0.1), score("ridge", 0.0)))
    assert "ridge, which has no error" in reports.headline(perfect)


def test_the_smallest_evaluation_is_rendered():
    least = replace(
        evaluation(), scores=(score("model", 0.0, 1), score("ridge", 0.0, 1)), horizon=1,
        windows=1, quantiles=(), examples=(),
    )  # fmt: skip
    page, _ = read(reports.ForecastReport(least))
    assert page.count("<svg ") == 1
    one_step = one_example()
    one_step = replace(
        one_step, times=one_step.times[:2], past=one_step.past[:1], truth=(float("nan"),),
        forecasts={"model": (1.0,)}, quantiles={0.5: (1.0,)},
    )  # fmt: skip
    page, _ = read(reports.ForecastReport(replace(least, examples=(one_step,))))
    assert page.count("<svg ") == 2


def test_a_bad_baseline_does_not_compress_the_figure():
    hopeless = replace(evaluation(), scores=(*evaluation().scores[:3], score("ridge", 0.15)))
    assert "Cut off at the top: last value." in reports.render(reports.ForecastReport(hopeless))
    assert "Cut off" not in reports.render(reports.ForecastReport(evaluation()))


def test_rows_without_times_are_numbers():
    numbered = replace(evaluation(), examples=(one_example(dated=False),))
    page, reader = read(reports.ForecastReport(numbered))
    assert "temperature, from 8024" in page
    assert "8010" in [t.strip() for t in reader.text]  # a tick, not a year


def of_float32(found, exact):
    """For the comparison in reduced precision: the values of a system of float32."""
    exact = torch.from_numpy(exact)
    return torch.from_numpy(found).float(), exact, exact.float()


def test_memory_of_a_known_system():
    found = layer_memory("x", system(0.9), 64)
    slow, fast = (float(np.float32(a)) for a in (0.9, 0.45))  # the system is of float32
    assert_close(found.time_constants, -1 / np.log([slow, fast]))
    lags = np.arange(64)
    response = slow**lags + fast**lags
    assert_within_reference_error(*of_float32(found.strength, response))
    energy = np.cumsum(response**2)
    assert found.half == np.searchsorted(energy, 0.5 * energy[-1])
    assert found.most == np.searchsorted(energy, 0.99 * energy[-1])
    dense = layer_memory("x", system(0.9).to_dense(), 64)
    assert_close(np.sort(dense.time_constants), np.sort(found.time_constants))
    assert_within_reference_error(*of_float32(dense.strength, response))


def test_what_is_left_of_the_window_at_the_last_step():
    """The newest sample of the window is a horizon back there."""
    window, horizon = 48, HORIZON
    found = layer_memory("x", system(0.9), 96)
    slow, fast = (float(np.float32(a)) for a in (0.9, 0.45))
    energy = (slow ** np.arange(window + horizon) + fast ** np.arange(window + horizon)) ** 2
    expected = float(energy[horizon:].sum() / energy.sum())
    assert abs(found.of_window(window, horizon) - expected) < 1e-6
    assert 0 < expected < 0.05
    said = " ".join(" ".join(read(replace(report(), systems={"x": system()}))[1].text).split())
    assert f"x, which remembers most, gives {100 * expected:.0f} % of its response" in said
    assert "So the layers add next to nothing to the line there." in said
    long = " ".join(read(replace(report(), systems={"x": system(0.99)}))[1].text)
    assert "next to nothing" not in long
    assert layer_memory("x", replace(system(), C=torch.zeros(1, 2)), 96).of_window(48, 12) == 0


def test_memory_without_decay():
    turn = DenseSystem(
        torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.ones(2, 1), torch.ones(1, 2),
        torch.zeros(1, 1), discrete=True,
    )  # fmt: skip
    made = reports.ForecastReport(evaluation(), systems={"turn": turn})
    assert np.isinf(layer_memory("turn", turn, 8).time_constants).all()
    assert "does not fade" in reports.render(made)
    assert "2 states do not fade" in reports.render(made)


def test_system_without_output():
    silent = replace(system(0.0), C=torch.zeros(1, 2))
    assert "<svg" in reports.render(reports.ForecastReport(evaluation(), systems={"s": silent}))


def test_deep_models_show_some_layers():
    many = {f"layer {i}": system(0.5 + i / 30) for i in range(9)}
    page = reports.render(reports.ForecastReport(evaluation(), systems=many))
    assert page.count("layer 8") == 4  # sentence, table, both pictures
    assert page.count("layer 1<") == 1  # table only


def test_continuous_systems_are_refused():
    with pytest.raises(ValueError, match="the system of x must be discrete"):
        layer_memory("x", replace(system(), discrete=False), 8)


def test_the_page_is_written_atomically(tmp_path, monkeypatch):
    path = reports.write(report(), tmp_path / "report.html")
    assert path.is_absolute()
    assert path.read_text("utf-8") == reports.render(report())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match="No space left on device; the file there is unchanged"):
        reports.write(replace(report(), name="new"), path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert "run of temperature" in path.read_text("utf-8")


def test_environment_names_versions():
    found = reports.environment()
    assert found["PyTorch"] == torch.__version__
    assert list(found)[:2] == ["longstate", "Python"]
