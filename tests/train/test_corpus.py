"""Text files as tokens on disk."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from longstate.errors import InputError
from longstate.train import ByteTokens, FileTokens, load_tokens
from longstate.train import _corpus as corpus
from longstate.train._corpus import open_corpus
from tests.train.text_helpers import make_tokenizer, tiny, words


def everything(found):
    return found.window(0, found.tokens)


def test_byte_tokens_are_the_joined_files(tmp_path):
    texts = [b"first\n" * 5, b"x", b"\xff\x00third" * 9]
    paths = [tmp_path / str(i) for i in range(3)]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text)
    found = open_corpus(paths, ByteTokens(), tmp_path)
    whole = np.frombuffer(b"".join(texts), np.uint8)
    assert np.array_equal(everything(found), whole)
    for start in range(len(whole)):
        for length in (1, 2, 31, len(whole) - start):
            expected = whole[start : start + length]
            assert np.array_equal(found.window(start, length), expected)
    assert found.validation_bytes == len(whole) - found.train
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2"]  # nothing was copied


def test_the_last_tenth_is_for_validation_and_begins_with_a_line(tmp_path):
    path = words(tmp_path / "text")
    data = path.read_bytes()
    found = open_corpus([path], ByteTokens(), tmp_path)
    assert data[found.train - 1 : found.train] == b"\n"
    assert 0 <= found.train - 0.9 * len(data) < 40


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_encoding_in_pieces_equals_encoding_the_whole(piece, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "PIECE", piece)
    tokens = FileTokens(make_tokenizer(tmp_path / "tokenizer.json"))
    paths = [words(tmp_path / "a", 40), words(tmp_path / "b", 30)]
    paths[1].write_bytes("日本é".encode() * 20)  # neither lines nor words to cut at
    whole = b"".join(p.read_bytes() for p in paths)
    found = open_corpus(paths, tokens, tmp_path / "run")
    assert tokens.decode(everything(found).tolist()).encode() == whole
    tail = tokens.decode(found.window(found.train, found.tokens - found.train).tolist())
    assert tail.encode() == whole[len(whole) - found.validation_bytes :]
    bytewise = open_corpus(paths, ByteTokens(), tmp_path)
    assert bytewise.validation_bytes == found.validation_bytes


def test_encoding_is_repeated_only_after_a_change(tmp_path):
    path = make_tokenizer(tmp_path / "tokenizer.json")
    text, run = words(tmp_path / "text"), tmp_path / "run"
    first = open_corpus([text], FileTokens(path), run)
    (run / ".tokens.bin.part").write_bytes(b"of a run that was killed")
    calls = []
    again = open_corpus([text], FileTokens(path), run, lambda *n: calls.append(n))
    assert calls == []
    assert np.array_equal(everything(first), everything(again))
    text.write_bytes(text.read_bytes()[:-5] + b"other")
    changed = open_corpus([text], FileTokens(path), run, lambda *n: calls.append(n))
    assert calls
    assert changed.digest != first.digest


def test_an_encoding_that_fails_leaves_nothing(tmp_path):
    path = make_tokenizer(tmp_path / "tokenizer.json")
    text = tmp_path / "text"
    text.write_bytes(b"fine \n" * 1000 + b"\xff")
    with pytest.raises(InputError, match="byte 0xff at offset 6,000"):
        open_corpus([text], FileTokens(path), tmp_path / "run")
    assert os.listdir(tmp_path / "run") == []


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"a\xe9b" + b"c" * 50, "0xe9 at offset 1"),
        ("日本".encode() + b"\xc3(" + b"c" * 50, "0xc3 at offset 6"),
        (b"c" * 50 + "日".encode()[:2], "0xe6 at offset 50"),
    ],
)
def test_says_where_a_file_is_not_utf8(data, offset, piece, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "PIECE", piece)
    tokens = FileTokens(make_tokenizer(tmp_path / "tokenizer.json"))
    good, text = words(tmp_path / "good"), tmp_path / "text"
    text.write_bytes(data)
    with pytest.raises(InputError, match=f"text is not UTF-8 text: byte {offset}; convert it, or"):
        open_corpus([good, text], tokens, tmp_path / "run")


def test_utf16_is_recognised(tmp_path):
    tokens = FileTokens(make_tokenizer(tmp_path / "tokenizer.json"))
    text = tmp_path / "text"
    text.write_text("hello\n" * 50, encoding="utf-16")
    with pytest.raises(InputError, match="offset 0; it looks like UTF-16"):
        open_corpus([text], tokens, tmp_path / "run")


def test_files_that_cannot_be_used(tmp_path, monkeypatch):
    good, empty = words(tmp_path / "novel.txt"), tmp_path / "empty"
    empty.touch()
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "nvoel.txt", r"there is no file .*nvoel\.txt; did you mean .*/novel\.txt\?"),
        (tmp_path / "none" / "x", "there is no file .*; the folder .* does not exist"),
        (empty, "empty is empty; there is nothing to learn"),
        (tmp_path, "is a folder; give the text files in it"),
        (tmp_path / "pipe", "is not a regular file"),
    ):
        with pytest.raises(InputError, match=message):
            open_corpus([good, path], ByteTokens(), tmp_path / "run")

    def locked(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", locked)  # root may read anything
    with pytest.raises(InputError, match=r"novel\.txt cannot be read: Permission denied"):
        open_corpus([good], ByteTokens(), tmp_path / "run")


@pytest.mark.parametrize("text", [b"a", b"ab", b"a" * 30, b"a b\n" * 8])
def test_a_text_shorter_than_a_context(text, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(text)
    with pytest.raises(InputError, match=f"the text has {len(text)} tokens, .* needs 33 of them"):
        tiny().fit([path], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


MEMORY = """
import sys
from pathlib import Path

from tests.train.text_helpers import peak_kib, tiny
folder = Path(sys.argv[1])
def peak(name, size):
    with (folder / name).open("wb") as file:
        file.truncate(size)
    tiny(steps=3).fit([folder / name], out=folder / ("run" + name))
    return peak_kib()
small = peak("small", 100_000)
print(peak("large", 1_000_000_000) - small)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files and kibibytes are Linux's")
def test_memory_does_not_grow_with_the_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # 2048 validation windows, around each of which the kernel maps 64 KiB that it may take back.
    mapped = 2048 * 64
    assert int(done.stdout.split()[-1]) < 2 * mapped, "KiB more for a file of 1 GB"


def test_tokenizers_that_cannot_be_used(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(InputError, match=r"there is no tokenizer .*tokenizer\.json"):
        load_tokens(tmp_path)
    path.write_text("{}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"install it with pip install 'longstate\[text\]'"):
        load_tokens(path)
    monkeypatch.undo()
    pytest.importorskip("tokenizers", reason="needs the extra `text`")
    with pytest.raises(InputError, match=r"not a tokenizer\.json that the library tokenizers can"):
        load_tokens(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="it is not UTF-8 text"):
        load_tokens(path)
    make_tokenizer(path)
    assert load_tokens(tmp_path).size == load_tokens(path).size
    with pytest.raises(InputError, match=r"the text .* is not UTF-8"):
        load_tokens(path).encode("a\udcff")


def test_truncation_and_padding_of_a_tokenizer_are_disabled(tmp_path):
    path = make_tokenizer(tmp_path / "tokenizer.json")
    from tokenizers import Tokenizer

    inner = Tokenizer.from_file(str(path))
    inner.enable_truncation(4)
    inner.enable_padding(length=64)
    inner.save(str(path))
    assert len(load_tokens(path).encode("to be or not " * 20)) > 64


def test_bytes_are_encoded_and_decoded():
    tokens = ByteTokens()
    text = "né 日本 \x00\n"
    assert tokens.decode(tokens.encode(text)) == text
    assert tokens.encode("a\udcff") == [97, 255]
    assert tokens.decode([97, 0xE6]) == "a\ufffd"


def test_nothing_is_learnt_from_no_files(tmp_path):
    with pytest.raises(InputError, match="there are no files"):
        tiny(steps=1).fit([], out=tmp_path / "run")


@pytest.mark.parametrize(("size", "bytes_each"), [(1 << 16, 2), ((1 << 16) + 1, 4)])
def test_a_token_takes_as_many_bytes_as_the_largest_needs(size, bytes_each, tmp_path):
    class Largest:
        """Every letter is the largest token."""

        numbers = range(size)

        def encode(self, text):
            return [size - 1] * len(text)

        def decode(self, tokens):
            return "x" * len(tokens)

    Largest.size = size
    found = open_corpus([words(tmp_path / "text", 9)], Largest(), tmp_path / "run")
    assert set(everything(found).tolist()) == {size - 1}
    assert (tmp_path / "run" / "tokens.bin").stat().st_size == bytes_each * found.tokens
