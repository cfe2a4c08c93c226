"""The text in columns of tables."""

import gzip
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.testing import assert_close

from longstate.cli import main
from longstate.errors import InputError
from longstate.train import _text_tables as tables
from longstate.train._text_tables import are_tables, text_of_tables
from tests.saved import FOLDER
from tests.train.text_helpers import make_tokenizer, tiny

ROWS = [f"row {i} né à 日本 " + "word " * (i % 9) for i in range(700)]
ROWS[3], ROWS[4], ROWS[5] = "two\nlines\n", "", 'a "quote", and a comma'
TEXT = "".join(row if row.endswith("\n") else row + "\n" for row in ROWS if row)


def write(path, rows=ROWS, column="text", kind="string", group=100):
    """A table in the format of the path's ending: `.stream` is Arrow's other format."""
    pa = pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    from pyarrow import csv, feather, ipc, parquet

    types = {"string": pa.string(), "large": pa.large_string(), "view": pa.string_view()}
    text = pa.array(rows, types.get(kind, pa.string()))
    text = text.dictionary_encode() if kind == "dictionary" else text
    made = pa.table({"number": range(len(rows)), column: text})
    if path.suffix == ".parquet":
        parquet.write_table(made, path, row_group_size=group)
    elif path.suffix == ".feather":
        feather.write_feather(made, path, chunksize=group)
    elif path.suffix == ".csv":
        csv.write_csv(made, path)
    else:
        new = ipc.new_stream if path.suffix == ".stream" else ipc.new_file
        with new(str(path), made.schema) as file:
            file.write_table(made, max_chunksize=group)
    return path


def text_of(path, column=None, folder=None):
    folder = folder or path.parent / "out"
    return text_of_tables([path], column, folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.stream", "a.feather", "a.csv"])
def test_every_format_has_the_same_text(name, tmp_path):
    path = write(tmp_path / name, column="body")
    assert text_of(path, "body") == TEXT
    assert are_tables([path], None) == (not name.endswith(".csv"))
    assert are_tables([path], "body")


@pytest.mark.parametrize("kind", ["dictionary", "large", "view"])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_every_type_of_text(kind, name, tmp_path):
    assert text_of(write(tmp_path / name, kind=kind, group=1000)) == TEXT


def test_missing_rows_are_left_out(tmp_path):
    assert text_of(write(tmp_path / "a.parquet", [None, "one", None, "", "two"])) == "one\ntwo\n"


def test_a_folder_is_its_tables_in_the_order_of_their_names(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "b.parquet", ["three"])
    write(folder / "c.csv", ["four"], column="text")
    write(folder / "a.arrow", ["one", "two"])
    (folder / "d.csv.gz").write_bytes(gzip.compress(b"text\nfive\n"))
    (folder / "README.md").write_text("not a table")
    assert text_of(folder, folder=tmp_path / "out") == "one\ntwo\nthree\nfour\nfive\n"


def test_the_text_is_written_once_and_again_after_a_change(tmp_path):
    path, out = write(tmp_path / "a.parquet", column="body"), tmp_path / "out"
    shown = []
    first = text_of_tables([path], None, out, lambda *n: shown.append(n))
    size = path.stat().st_size
    assert shown == [(size, size)]
    before = first.stat().st_mtime_ns
    (out / f".{first.name}.0.part").write_bytes(b"of a process that was killed")
    assert text_of_tables([path], None, out).stat().st_mtime_ns == before
    write(path, [*ROWS[:-1], "other"], column="body")
    assert text_of(path, folder=out).endswith("other\n")
    assert sorted(os.listdir(out)) == ["text.json", "text.txt"]
    assert text_of_tables([path], "body", out).stat().st_mtime_ns > before


def test_a_text_that_fails_leaves_no_other_text(tmp_path):
    out = tmp_path / "out"
    good, bad = write(tmp_path / "a.parquet"), write(tmp_path / "b.parquet")
    assert text_of(good, folder=out) == TEXT
    raw = bad.read_bytes()
    bad.write_bytes(raw[: len(raw) // 3] + bytes(len(raw) // 3) + raw[2 * len(raw) // 3 :])
    with pytest.raises(InputError, match=r"b\.parquet is not a readable Parquet file: "):
        text_of_tables([good, bad], None, out)
    assert os.listdir(out) == ["text.txt"]  # of the good one; without its facts nobody takes it
    assert text_of(good, folder=out) == TEXT


def test_a_model_learns_from_tables_as_from_the_text(tmp_path):
    path = write(tmp_path / "a.parquet", group=64)
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    tokens = make_tokenizer(tmp_path / "tokenizer.json")
    for tokenizer in ("bytes", str(tokens)):
        of_text = tiny(tokenizer=tokenizer, steps=4).fit(tmp_path / "a.txt")
        run = tmp_path / f"run{len(tokenizer)}"
        of_table = tiny(tokenizer=tokenizer, steps=4).fit(path, out=run)
        assert_close(of_table.model.state_dict(), of_text.model.state_dict(), rtol=0, atol=0)
        assert of_table.score(path) == of_table.score(tmp_path / "a.txt")


def test_a_stopped_training_continues_at_its_place_in_the_data(tmp_path):
    def stop(progress):
        if progress.step == 7:
            signal.raise_signal(signal.SIGINT)

    path, run = write(tmp_path / "a.parquet", group=64), tmp_path / "run"
    whole = tiny().fit(path)
    assert tiny().fit(path, out=run, show=stop).history.ended == "interrupted"
    written = (run / "text.txt").stat().st_mtime_ns
    found = tiny().fit(path, out=run)
    assert (run / "text.txt").stat().st_mtime_ns == written
    assert_close(found.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    losses = [[look.bits_per_byte for look in m.history.looks] for m in (found, whole)]
    assert losses[0] == losses[1]
    write(path, ROWS[1:], group=64)
    with pytest.raises(InputError, match="belongs to another run: its text is"):
        tiny().fit(path, out=run)


def test_tables_that_cannot_be_used(tmp_path, monkeypatch):
    good = write(tmp_path / "good.parquet")
    (tmp_path / "empty").mkdir()
    (tmp_path / "ragged.csv").write_text("a,text\n1,x\n2,y,z\n")
    (tmp_path / "latin.csv").write_bytes(b"a,text\n1,\xe9t\xe9\n")
    (tmp_path / "short.parquet").write_bytes(good.read_bytes()[:200])
    (tmp_path / "short.arrow").write_bytes(b"ARROW1\0\0" + bytes(30))
    two = write(tmp_path / "two.csv", column="body")
    blank = write(tmp_path / "blank.parquet", ["", None])
    for path, column, message in (
        (tmp_path / "no.csv", None, "there is no file"),
        (
            tmp_path / "empty",
            None,
            r"is a folder without tables \(CSV, Parquet or Arrow\); give the text",
        ),
        (good, "body", "has no column 'body'; its columns are 'number', 'text': name one with"),
        (good, "number", "holds int64 in the column 'number'; text was expected"),
        (two, "text", "has no column 'text'; its columns are 'number', 'body': name one with"),
        (tmp_path / "ragged.csv", "text", r"ragged\.csv is not a readable CSV file: Expected 2"),
        (tmp_path / "latin.csv", "text", r"latin\.csv is not UTF-8 text"),
        (tmp_path / "short.parquet", None, r"short\.parquet is not a readable Parquet file"),
        (tmp_path / "short.arrow", None, r"short\.arrow is not a readable Arrow file"),
        (blank, None, r"blank\.parquet holds no text"),
    ):
        with pytest.raises(InputError, match=message):
            text_of_tables([path], column, tmp_path / "out")
    with pytest.raises(InputError, match="column is for tables; got 'text' with a text"):
        tiny().fit(text="to be", column="text")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs pyarrow: pip install 'longstate\[parquet\]'"):
        text_of(good)


ROOT = Path(__file__).parents[2]
MEMORY = """
import sys
from pathlib import Path

from longstate.train._text_tables import text_of_tables
from tests.saved import FOLDER
from tests.train.text_helpers import peak_kib
from tests.train.test_text_tables import write

folder, name, mib = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
line = "memory that is bounded does not grow with the data 0123456789 "
text_of_tables([write(folder / f"small{name}", [line] * 100)], "text", folder / "small")
before = peak_kib()
found = text_of_tables([folder / f"large{name}"], "text", folder / "large")
assert found.stat().st_size > mib << 20
print(peak_kib() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("name", "group"), [(".parquet", 10**9), (".arrow", 1000), (".csv", 0)])
def test_memory_does_not_grow_with_the_tables(name, group, tmp_path):
    """Also where a Parquet file is one row group."""
    mib = 128
    draw = random.Random(0)  # Parquet would make little of rows that repeat
    rows = [draw.randbytes(540).hex() for _ in range((mib << 20) // 1080 + 1000)]
    write(tmp_path / f"large{name}", rows, group=group)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), name, str(mib)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1024 * mib / 2, "KiB more for 128 MiB"


def test_rows_are_read_a_few_at_a_time(tmp_path):
    for name in ("a.parquet", "a.arrow", "a.csv"):
        path = write(tmp_path / name, [str(i) for i in range(1000)], group=700)
        sizes = [len(rows) for rows in tables._rows(path, "text")]
        assert sum(sizes) == 1000
        assert max(sizes) <= 256


def test_commands_read_tables(tmp_path, capsys):
    folder, run = tmp_path / "data", tmp_path / "run"
    folder.mkdir()
    write(folder / "a.csv", column="body")
    write(folder / "b.parquet", column="body")
    size = "--layers s4d --d-model 8 --n-layers 1 --context 32 --steps 2"
    assert main(f"train text {folder} --column body {size} --out {run}".split()) == 0
    assert (run / "text.txt").read_text(encoding="utf-8") == 2 * TEXT
    (tmp_path / "b.txt").write_text(TEXT, encoding="utf-8")
    for data in (folder / "b.parquet", tmp_path / "b.txt"):
        assert main(["evaluate", str(run), str(data)]) == 0
    assert main(["evaluate", str(run), str(folder / "a.csv"), "--column", "body"]) == 0
    said = capsys.readouterr().out
    assert said.count("bits per byte") >= 3
    assert main(["evaluate", str(FOLDER / "forecast_s4d"), "x.csv", "--column", "body"]) == 2
    assert "--column is for a language model" in " ".join(capsys.readouterr().err.split())
