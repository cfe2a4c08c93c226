"""The site: built with warnings as errors, every link followed, every page opened in a browser."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlparse

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium"),
    pytest.mark.skipif(
        importlib.util.find_spec("mkdocstrings") is None, reason="needs the extra 'docs'"
    ),
]

# Opens each page in a frame as wide as a telephone, and sends home what it saw. A policy forbids
# every request to another host; the browser says on the console what it refused.
TOUR = """<!doctype html><meta charset="utf-8"><iframe style="width:390px;height:800px"></iframe>
<script>
const frame = document.querySelector("iframe"), seen = {};
const pages = PAGES;
const wait = ms => new Promise(done => setTimeout(done, ms));
(async () => {
  for (const page of pages) {
    console.log("PAGE " + page);
    await new Promise(done => { frame.onload = done; frame.src = page; });
    await wait(60);
    const d = frame.contentDocument, root = d.documentElement;
    const scrolls = e => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) ||
      scrolls(e.parentElement));
    const wide = [...d.querySelectorAll("main *")]
      .filter(e => e.getBoundingClientRect().right > 391 && e.offsetParent && !scrolls(e))
      .map(e => e.tagName + "." + e.className);
    seen[page] = {
      width: Math.max(root.scrollWidth, d.body.scrollWidth), wide: wide.slice(0, 5),
      broken: [...d.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
      heading: (d.querySelector("h1") || {}).innerText || "",
    };
  }
  await fetch("/seen", { method: "POST", body: JSON.stringify(seen) });
})();
</script>"""
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def pages_of(site: Path) -> list[str]:
    return sorted("/" + p.relative_to(site).as_posix() for p in site.rglob("*.html"))


class Server(ThreadingHTTPServer):
    """Serves a folder, refuses outside requests, and keeps what the tour reports."""

    def __init__(self, folder: Path):
        self.missing: list[str] = []
        self.report: dict = {}
        self.done = threading.Event()
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def end_headers(self):
        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.report = json.loads(self.rfile.read(length))
        self.send_response(204)
        self.end_headers()
        self.server.done.set()

    def send_error(self, code, message=None, explain=None):
        self.server.missing.append(self.path)
        super().send_error(code, message, explain)

    def log_message(self, *_):
        pass


def tour(folder: Path, pages: list[str], work: Path) -> tuple[dict, list[str], list[str]]:
    """What each page looked like, what the console said, what was asked for in vain."""
    (folder / "tour.html").write_text(TOUR.replace("PAGES", json.dumps(pages)), "utf-8")
    server = Server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log = (work / "chromium.log").open("w+", encoding="utf-8")
    browser = subprocess.Popen(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-sync",
            f"--user-data-dir={work / 'profile'}", "--enable-logging=stderr",
            "--window-size=1000,900", "--remote-debugging-port=0",
            f"http://127.0.0.1:{server.server_port}/tour.html",
        ],
        stderr=log, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert server.done.wait(300), "the browser did not finish its tour"
    finally:
        browser.terminate()
        browser.wait(30)
        server.shutdown()
        server.server_close()
        (folder / "tour.html").unlink()
    log.seek(0)
    said = re.findall(r"CONSOLE[^\]]*\] (\".*)", log.read())
    log.close()
    missing = [path for path in server.missing if path != "/favicon.ico"]
    return server.report, [line for line in said if not line.startswith('"PAGE ')], missing


@pytest.fixture(scope="module")
def visit(site, tmp_path_factory):
    return tour(site, pages_of(site), tmp_path_factory.mktemp("browser"))


def test_pages_make_no_outside_requests_and_log_nothing(visit):
    seen, said, missing = visit
    assert len(seen) > 40
    assert said == []
    assert missing == []


def test_pages_fit_a_narrow_screen(visit):
    """The page is not wider than 390 pixels, and what is wider scrolls in a box of its own."""
    seen, _, _ = visit
    assert {page: s["width"] for page, s in seen.items() if s["width"] > 390} == {}
    assert {page: s["wide"] for page, s in seen.items() if s["wide"]} == {}


def test_pages_have_a_heading_and_complete_pictures(visit):
    seen, _, _ = visit
    assert [page for page, s in seen.items() if not s["heading"]] == []
    assert [picture for s in seen.values() for picture in s["broken"]] == []


class Links(HTMLParser):
    def __init__(self, page: Path):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}


def test_every_link_target_exists(site):
    parsed = {page: Links(site / page[1:]) for page in pages_of(site)}
    broken = []
    for page, inside in parsed.items():
        for link in inside.links:
            url = urlparse(urljoin(f"http://site{page}", link))
            if url.scheme not in ("http", "https") or url.netloc != "site":
                continue
            path = unquote(url.path) + ("index.html" if url.path.endswith("/") else "")
            exists = path in parsed or (site / path[1:]).is_file()
            anchors = parsed[path].anchors if path in parsed else {url.fragment}
            if not exists or url.fragment not in anchors:
                broken.append(f"{page}: {link}")
    assert broken == []


def test_links_outside_are_plain_links(site):
    """Nothing is loaded from another host, not even in an attribute that no page uses yet."""
    loads = re.compile(r"<(?:script|img|iframe|source|video|audio)[^>]+src=\"(?:https?:)?//", re.I)
    styles = re.compile(r"<link(?![^>]*rel=\"(?:canonical|prev|next)\")[^>]+href=\"https?://", re.I)
    for page in pages_of(site):
        text = (site / page[1:]).read_text("utf-8")
        assert not loads.search(text), page
        assert not styles.search(text), page


def test_the_browser_test_finds_errors(tmp_path):
    """Errors that the tests above must find."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "bad.html").write_text(
        '<h1></h1><img src="gone.png"><img src="http://192.0.2.1/x.png">'
        '<main style="overflow:hidden"><p style="width:800px">cut off</p></main>'
        '<div style="width:900px">wide</div><script>console.error("loud")</script>',
        "utf-8",
    )
    seen, said, missing = tour(folder, ["/bad.html"], tmp_path)
    assert seen["/bad.html"]["width"] > 390
    assert seen["/bad.html"]["wide"] == ["P."]
    assert seen["/bad.html"]["broken"]
    assert any("loud" in line for line in said)
    assert any("192.0.2.1" in line for line in said)
    assert missing == ["/gone.png"]
