import bz2
import gzip
import lzma
import os
import threading
import time

import pandas as pd
import pytest

from longstate.errors import InputError
from longstate.train import read_csv


def test_reads_numbers_and_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffdate,y\r\n2024-01-01,1.5\r\n2024-01-02,\r\n".encode())
    frame = read_csv(path)
    assert list(frame.columns) == ["date", "y"]
    assert frame["y"].iloc[0] == 1.5
    assert frame["y"].isna().iloc[1]


WRONG = {
    "empty": (b"", "is empty; a first line with column names was expected"),
    "blank": (b"\n\n", "is empty"),
    "header only": (b"a,b\n", "has a first line and no rows of data"),
    "semicolons": (b"a;b;c\n1,5;2;3\n", r"looks separated by ';'; commas .* were expected"),
    "tabs": (b"a\tb\n1\t2\n", "looks separated by tabs"),
    "bars": (b"a|b\n1|2\n", r"looks separated by '\|'"),
    "latin": ("a,b\n1,\xe9\n".encode("latin-1"), r"is not UTF-8 text \(byte 0xe9 at position 6\)"),
    "latin header": ("\xe9,b\n1,2\n".encode("latin-1"), "is not UTF-8 text"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "is not UTF-8 text"),
    "model": (b"\x98\0\0{\xd7\n1,2\n", "is not a text file; a CSV file was expected"),
    "binary": (b"PK\0\0,\n1,2\n", "is not a text file"),
    "ragged": (b"a,b\n1,2\n1,2,3\n", "is not a readable CSV file: Expected 2 fields in line 3"),
    "ragged first": (b"a,b\n1,2,3\n", "is not a readable CSV file"),
    "open quote": (b'a,b\n"1,2\n', "is not a readable CSV file"),
    "twice": (b"a,b,a\n1,2,3\n", "names the column 'a' twice"),
    "long name": (b"x" * 3_000_000 + b",y\n1,1\n", "has a first line that cannot be read"),
    "cut gzip": (
        gzip.compress(b"a,y\n" + os.urandom(4000).hex().encode())[:2000],
        "cannot be unpacked",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_files_are_refused_with_one_sentence(case, tmp_path):
    content, message = WRONG[case]
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_csv(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 400


def test_paths_that_are_no_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_csv(tmp_path)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_reads_compressed_files_by_their_first_bytes(pack, tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(pack(b"date,y\n2024-01-01,1.5\n"))
    assert read_csv(path)["y"].tolist() == [1.5]


def test_a_pipe_is_read_once(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write():
        with path.open("wb") as pipe:
            pipe.write(b"date,y\n2024-01-01,1.5\n2024-01-02,2.5\n")

    writer = threading.Thread(target=write)
    writer.start()
    assert read_csv(path)["y"].tolist() == [1.5, 2.5]
    writer.join()


def test_many_columns_take_no_longer_than_pandas_does(tmp_path):
    path = tmp_path / "wide.csv"
    names = ",".join(f"c{i}" for i in range(20_000))
    path.write_text(f"{names}\n{','.join('1' * 20_000)}\n")

    def seconds(read):
        began = time.process_time()
        assert read(path).shape == (1, 20_000)
        return time.process_time() - began

    assert min(seconds(read_csv) for _ in range(3)) < 4 * min(
        seconds(pd.read_csv) for _ in range(3)
    )


def test_columns_without_a_name_are_numbered(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",y,\n1,2,3\n")
    assert list(read_csv(path).columns) == ["column 1", "y", "column 3"]
