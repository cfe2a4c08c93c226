"""The report in a real browser: no errors, no requests, visible figures."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from longstate import reports
from longstate.reports import _memory_examine as memory_examine
from longstate.reports import memory, reduction
from longstate.reports._subject import open_subject
from tests.reports.memory_samples import text_run
from tests.reports.samples import full, full_panel, report
from tests.reports.test_reduction_report import text_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium"),
]

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip


@dataclass(frozen=True)
class Visit:
    complaints: list[str]
    requests: list[str]
    picture: np.ndarray


def visit(page: str, folder: Path, width: int = 1200, *options: str) -> Visit:
    (folder / "page.html").write_text(page, "utf-8")
    log, shot = folder / "net.json", folder / "shot.png"
    run = subprocess.run(
        [
            CHROMIUM, *QUIET, *options, f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={log}",
            "--enable-logging=stderr", f"--window-size={width},1400", f"--screenshot={shot}",
            f"{(folder / 'page.html').as_uri()}",
        ],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert shot.exists(), run.stderr
    complaints = re.findall(r"CONSOLE.*", run.stderr)
    asked = [event.get("params", {}) for event in json.loads(log.read_text("utf-8"))["events"]]
    # The browser asks its maker for the time and the like; those requests have no page behind them.
    outside = sorted(
        {
            what["url"]
            for what in asked
            if what.get("url", "").startswith(("http:", "https:", "ws:", "wss:"))
            and what.get("initiator", "not an origin") != "not an origin"
        }
    )
    return Visit(complaints, outside, imread(shot)[..., :3])


def blue(picture: np.ndarray) -> int:
    """Pixels in the colour of the model's lines: the pictures are drawn, in the page's colours."""
    return int((np.abs(picture - np.array([0x1F, 0x5F, 0xBF]) / 255).max(-1) < 0.02).sum())


def test_opens_without_errors_or_requests(tmp_path):
    seen = visit(reports.render(full()), tmp_path)
    assert seen.complaints == []
    assert seen.requests == []
    assert blue(seen.picture) > 500


def test_data_cannot_run_scripts_or_make_requests(tmp_path):
    hostile = (
        '<img src="http://127.0.0.1:9/x.png" onerror="console.error(1)"><script>alert(1)</script>'
    )
    seen = visit(reports.render(report(hostile)), tmp_path)
    assert (seen.complaints, seen.requests) == ([], [])


def test_dark_scheme_is_dark(tmp_path):
    light = visit(reports.render(report()), tmp_path).picture
    dark = visit(
        reports.render(report()), tmp_path, 1200, "--blink-settings=preferredColorScheme=0"
    ).picture
    assert np.median(light) > 0.9
    assert np.median(dark) < 0.2


@pytest.mark.parametrize("width", [390, 1200])
def test_never_wider_than_the_screen(tmp_path, width):
    assert measured(reports.render(report("x" * 200)), tmp_path, width) <= width


@pytest.mark.parametrize("made", [full(), full_panel()], ids=["series", "panel"])
def test_no_table_of_a_forecast_is_wider_than_a_telephone(tmp_path, made):
    """So that the column that decides is seen without scrolling."""
    page = reports.render(made)
    assert measured(page, tmp_path, 390) <= 390
    assert measured(page, tmp_path, 390, TABLES) == 0
    assert page.count('class="scroll"') >= 7


def test_a_table_that_is_too_wide_is_noticed(tmp_path):
    page = reports.render(report())
    wide = page.replace("squared error</th>", "x" * 60 + "</th>", 1)
    assert measured(wide, tmp_path, 390, TABLES) > 50


TABLES = "Math.max(...[...d.querySelectorAll('.scroll')].map(x => x.scrollWidth - x.clientWidth))"


def measured(page: str, tmp_path: Path, width: int, what: str = "d.scrollWidth") -> int:
    """A number of a page on a screen of `width`: what it takes, or `what` in JavaScript."""
    # A frame has the width of a telephone; a browser's own window does not go below 500.
    (tmp_path / "report.html").write_text(page, "utf-8")
    outer = (
        f'<body><iframe id="f" src="report.html" style="width:{width}px;height:900px;border:0">'
        "</iframe><script>onload = () => { const d = document.getElementById('f')"
        f".contentDocument.documentElement; console.log('WIDTH ' + ({what})) }}</script>"
    )
    seen = visit(outer, tmp_path, 1300, "--allow-file-access-from-files")
    (said,) = [line for line in seen.complaints if "WIDTH" in line]
    return int(re.findall(r"WIDTH (\d+)", said)[0])


@pytest.fixture(scope="module")
def memory_page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_examine, "SEQUENCES", 180)
        patch.setattr(memory_examine, "LAGS", (0, 3))
        subject = open_subject(text_run(tmp_path_factory.mktemp("text") / "run"))
        return memory.render(memory.examine(subject, subject.read(None)))


def test_memory_page_opens_without_errors_or_requests(memory_page, tmp_path):
    seen = visit(memory_page, tmp_path)
    assert seen.complaints == []
    assert seen.requests == []
    assert blue(seen.picture) > 300


@pytest.mark.parametrize("width", [390, 1200])
def test_memory_page_is_never_wider_than_the_screen(memory_page, tmp_path, width):
    assert measured(memory_page, tmp_path, width) <= width


def test_hidden_attention_is_seen_on_a_dark_page(memory_page, tmp_path):
    """A picture within the page: its policy must let it through."""
    cut = memory_page[: memory_page.index("<header>")]
    figure = next(f for f in memory_page.split("<figure>")[1:] if "Hidden attention" in f)
    alone = cut + "<figure>" + figure.split("</figure>")[0] + "</figure></body></html>"
    dark = visit(alone, tmp_path, 1200, "--blink-settings=preferredColorScheme=0").picture
    light = visit(alone, tmp_path).picture
    for picture in (dark, light):
        tint = picture[..., 2] - picture[..., 0]  # more blue than red
        assert int((tint > 0.2).sum()) > 2000


@pytest.fixture(scope="module")
def reduction_page(tmp_path_factory):
    return reduction.render(text_report(tmp_path_factory.mktemp("text")))


def test_reduction_page_opens_without_errors_or_requests(reduction_page, tmp_path):
    seen = visit(reduction_page, tmp_path)
    assert seen.complaints == []
    assert seen.requests == []
    assert blue(seen.picture) > 100


@pytest.mark.parametrize("width", [390, 1200])
def test_reduction_page_is_never_wider_than_the_screen(reduction_page, tmp_path, width):
    assert measured(reduction_page, tmp_path, width) <= width


def test_the_browser_test_finds_errors(tmp_path):
    # Errors that the tests above must find.
    page = '<img src="http://127.0.0.1:9/x.png"><script>console.error("loud")</script>'
    seen = visit(page, tmp_path)
    assert any("loud" in line for line in seen.complaints)
    assert seen.requests == ["http://127.0.0.1:9/x.png"]
    assert blue(seen.picture) == 0
