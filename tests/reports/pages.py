"""Pages of forecast reports, read as tables and as text."""

import math
from dataclasses import replace
from html.parser import HTMLParser

from longstate import reports
from tests.reports.samples import HORIZON, evaluation, one_example
from tests.reports.samples import report as full_report
from tests.reports.test_forecast_report import Reader


def lean(**changes):
    """An evaluation without the pictures that other tests look at."""
    return replace(evaluation(), **{"examples": (), "quantiles": (), **changes})


def report():
    return replace(full_report(), evaluation=lean(), systems={}, history=None)


class Tables(HTMLParser):
    """The cells of each table, by the heading before it."""

    def __init__(self, page: str):
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self.heading, self.row, self.inside = "", [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag if tag in ("h2", "th", "td") else self.inside
        if tag == "h2":
            self.heading = ""
        if tag == "tr":
            self.row = []
            self.found.setdefault(self.heading, []).append(self.row)
        if tag in ("th", "td"):
            self.row.append("")

    def handle_endtag(self, tag):
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data):
        if self.inside == "h2":
            self.heading += data
        elif self.inside:
            self.row[-1] += data.replace("\u00a0", " ")


def tables(made):
    return Tables(reports.render(made)).found


def text(made):
    return text_of(reports.render(made))


def text_of(page):
    return " ".join(" ".join(Reader(page).text).split())


def by_step(share):
    return tuple(share - 0.01 * i for i in range(HORIZON))


def future(target="temperature"):
    one = one_example(target)
    return replace(one, truth=(math.nan,) * HORIZON, forecasts={"model": one.forecasts["model"]})
