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
    "binary": (b"PK\0\0,\n1,2\n", "is not a text file"),
    "ragged": (b"a,b\n1,2\n1,2,3\n", "is not a readable CSV file: Expected 2 fields in line 3"),
    "ragged first": (b"a,b\n1,2,3\n", "is not a readable CSV file"),
    "open quote": (b'a,b\n"1,2\n', "is not a readable CSV file"),
    "twice": (b"a,b,a\n1,2,3\n", "names the column 'a' twice"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refuses_in_one_sentence(case, tmp_path):
    content, message = WRONG[case]
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_csv(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_csv(tmp_path)
