"""Each file of `examples/` runs as a reader would run it, and shows what the gallery shows.

Pictures and output are compared in their words and shapes: numbers may differ between machines, and
what a picture looks like in pixels is nobody's promise. `python tools/draw_examples.py` draws them
again where a difference is meant.
"""

import importlib.util
import re
from collections import Counter
from xml.etree import ElementTree

import pytest

from tools.draw_examples import EXAMPLES, FIGURES, ROOT, run

PATHS = sorted(EXAMPLES.glob("*.py"))
LARGEST_PICTURE = 60_000  # bytes; they lie in the repository
_NUMBER = re.compile(r"[-−+]?(?:\d[\d,]*\.?\d*|\.\d+|inf|nan)(?:e[-+]?\d+)?")


def shape_of_text(text: str) -> list[str]:
    """The words of each line, with every number the same."""
    return [" ".join(_NUMBER.sub("#", line).split()) for line in text.splitlines()]


def shape_of_picture(svg: str) -> tuple[list[str], Counter]:
    """Its words, numbers on axes left out, and how many things of each kind were drawn."""
    root = ElementTree.fromstring(svg)
    words = ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("}text")]
    words = [w.strip() for w in words if re.search(r"[^\W\d]", w)]
    groups = [e.get("id", "") for e in root.iter() if e.tag.endswith("}g")]
    kinds = [re.sub(r"_\d+$", "", name) for name in groups]
    drawn = {"axes", "legend", "patch", "FillBetweenPolyCollection", "PolyCollection"}
    return words, Counter(kind for kind in kinds if kind in drawn)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_example_runs_and_shows_what_the_gallery_shows(path, tmp_path):
    done = run(path, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "an example should print something"
    kept = (FIGURES / f"{path.stem}.txt").read_text("utf-8")
    assert shape_of_text(done.stdout) == shape_of_text(kept)
    drawn = (tmp_path / f"{path.stem}.svg").read_text("utf-8")
    picture = (FIGURES / f"{path.stem}.svg").read_text("utf-8")
    assert shape_of_picture(drawn) == shape_of_picture(picture)


def test_pictures_are_small_and_belong_to_an_example():
    assert {p.stem for p in FIGURES.glob("*.svg")} == {p.stem for p in PATHS}
    for path in FIGURES.glob("*.svg"):
        assert path.stat().st_size < LARGEST_PICTURE, path.name


def test_the_gallery_shows_every_example():
    file = ROOT / "docs" / "_site" / "gallery.py"
    spec = importlib.util.spec_from_file_location("gallery", file)
    gallery = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gallery)
    assert sorted(gallery.NAMES) == [path.stem for path in PATHS]
    assert len(gallery.NAMES) >= 10


def test_a_changed_picture_is_seen():
    picture = (FIGURES / "constant_memory.svg").read_text("utf-8")
    shape = shape_of_picture(picture)
    assert "the state of a Mamba layer" in shape[0]
    assert shape_of_picture(picture.replace("bytes to carry", "kilobytes")) != shape
    assert shape_of_text("3 of 40: -1.5e-7 s") == shape_of_text("31 of 4: 2 s") == ["# of #: # s"]
    assert shape_of_text("3 of 40") != shape_of_text("3 in 40")
