"""Text files of any size as memory-mapped tokens.

Files are concatenated; the last tenth is for validation. With bytes, the files themselves are the
tokens. With a tokenizer they are encoded once, in pieces, into a file with two or four bytes per
token.
"""

import codecs
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from longstate._files import missing, write_whole, writing
from longstate._formats import refuse_format, start_of
from longstate.errors import InputError
from longstate.train._tokens import ByteTokens, Tokens

VALIDATION = 0.1
"""Share of the bytes, at the end, that is not used for training."""
PIECE = 1 << 20
"""Bytes that are encoded in one piece."""
_AHEAD = 1 << 16


@dataclass(frozen=True)
class Corpus:
    """Tokens of a text, in order.

    Args:
        parts: consecutive memory-mapped arrays.
        train: number of tokens before the validation part.
        tokens: number of all tokens.
        bytes: of the whole text. validation_bytes: of its validation part.
        digest: hash of the text and its tokenizer.
    """

    parts: tuple[np.ndarray, ...]
    train: int
    tokens: int
    bytes: int
    validation_bytes: int
    digest: str

    @property
    def bytes_per_token(self) -> float:
        """Over the validation part."""
        return self.validation_bytes / (self.tokens - self.train)

    def validation(self, most: int) -> np.ndarray:
        """The first tokens of the validation part (at most `most`), int64."""
        return self.window(self.train, min(most, self.tokens - self.train))

    def window(self, start: int, length: int) -> np.ndarray:
        """Tokens `start` to `start + length` (length), int64."""
        found, at = [], start
        before = 0
        for part in self.parts:
            if before <= at < before + len(part) and at < start + length:
                piece = part[at - before : start + length - before]
                found.append(np.asarray(piece, dtype=np.int64))
                at += len(piece)
            before += len(part)
        return np.concatenate(found)


def open_corpus(
    paths: Sequence[Path],
    tokens: Tokens,
    folder: Path,
    show: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Open files as one text.

    Args:
        paths: regular files, none of them empty.
        tokens: with bytes the files are mapped directly; a tokenizer writes into `folder`, once.
        folder: of the run.
        show: called with the number of encoded bytes and of all bytes.

    Raises:
        InputError: a file is missing, empty, a folder, unreadable or, for a tokenizer, not UTF-8.
    """
    sizes = [_size(path) for path in paths]
    total = sum(sizes)
    split = _line_start(paths, sizes, int(total * (1 - VALIDATION)))
    tokenizer = getattr(tokens, "path", None)
    digest = digest_of(paths, sizes, b"bytes" if tokenizer is None else tokenizer.read_bytes())
    if isinstance(tokens, ByteTokens):
        maps = tuple(np.memmap(path, dtype=np.uint8, mode="r") for path in paths)
        return Corpus(maps, split, total, total, total - split, digest)
    kind = np.dtype("<u2" if tokens.size <= 1 << 16 else "<u4")
    path, facts = folder / "tokens.bin", folder / "tokens.json"
    train = _encoded(facts, path, digest)
    if train is None:
        with contextlib.suppress(OSError):  # they hold other tokens
            facts.unlink()
        with writing(path) as file:
            train, done = 0, 0
            for length, text, learnt in _pieces(paths, sizes, split):
                new = np.asarray(tokens.encode(text), dtype=kind)
                file.write(new.tobytes())
                train += len(new) if learnt else 0
                done += length
                if show is not None:
                    show(done, total)
        write_whole(facts, json.dumps({"digest": digest, "train": train}) + "\n")
    if not path.stat().st_size:
        raise InputError("the tokenizer makes no tokens of the text")
    whole = np.memmap(path, dtype=kind, mode="r")
    return Corpus((whole,), train, len(whole), total, total - split, digest)


def _size(path: Path) -> int:
    if not path.exists():
        raise missing(path, "file")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the text files in it")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; save the text to one, so it can be mapped")
    try:
        refuse_format(path, start_of(path), "a text", markup=True)
        size = path.stat().st_size
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from None
    if not size:
        raise InputError(f"{path} is empty; there is nothing to learn from it")
    return size


def digest_of(paths: Sequence[Path], sizes: Sequence[int], start: bytes) -> str:
    """Hash of sizes, ends and evenly spaced samples: reading a large file would take minutes.

    `start`: what to hash besides.
    """
    known = hashlib.sha256(start)
    for path, size in zip(paths, sizes, strict=True):
        known.update(f"{size}\n".encode())
        with path.open("rb") as file:
            for at in np.linspace(0, max(0, size - 4096), 256).astype(int):
                file.seek(int(at))
                known.update(file.read(4096))
    return known.hexdigest()[:16]


def _line_start(paths: Sequence[Path], sizes: Sequence[int], split: int) -> int:
    """The first beginning of a line, or else of a word or a letter, at or soon after `split`."""
    before = 0
    for path, size in zip(paths, sizes, strict=True):
        if split < before + size:
            with path.open("rb") as file:
                file.seek(split - before)
                ahead = file.read(_AHEAD)
            break
        before += size
    near = ahead[: len(ahead) // 2]  # in a short text, leave some text after it
    for mark in (b"\n", b" "):
        if mark in near:
            return split + near.index(mark) + 1
    return split + next((i for i, byte in enumerate(ahead) if byte & 0xC0 != 0x80), len(ahead))


def _encoded(facts: Path, path: Path, digest: str) -> int | None:
    """Number of training tokens, if `path` holds this text; otherwise None."""
    try:
        known = json.loads(facts.read_text(encoding="utf-8"))
        return int(known["train"]) if known["digest"] == digest and path.exists() else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _pieces(
    paths: Sequence[Path], sizes: Sequence[int], split: int
) -> Iterator[tuple[int, str, bool]]:
    """Bytes read, text, and whether it is in the training part; cut between lines or words."""
    before = 0
    for path, size in zip(paths, sizes, strict=True):
        cut = min(max(split - before, 0), size)
        with path.open("rb") as file:
            for start, end in ((0, cut), (cut, size)):
                for length, text in _decoded(file, path, start, end):
                    yield length, text, end <= cut
        before += size


def _decoded(file: IO[bytes], path: Path, start: int, end: int) -> Iterator[tuple[int, str]]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    at, held = start, ""
    file.seek(start)
    while at < end:
        raw = file.read(min(PIECE, end - at))
        if not raw:
            raise InputError(f"{path} became shorter while it was read")
        waiting = len(decoder.getstate()[0])
        try:
            text = held + decoder.decode(raw, final=at + len(raw) >= end)
        except UnicodeDecodeError as e:
            wrong = at - waiting + e.start
            raise InputError(_not_utf8(path, wrong, e.object[e.start])) from None
        at += len(raw)
        cut = len(text) if at >= end else max(text.rfind("\n"), text.rfind(" ")) + 1 or len(text)
        held = text[cut:]
        yield len(raw), text[:cut]


def _not_utf8(path: Path, offset: int, byte: int) -> str:
    with path.open("rb") as file:
        utf16 = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    hint = "; it looks like UTF-16, which iconv converts" if utf16 else ""
    return (
        f"{path} is not UTF-8 text: byte 0x{byte:02x} at offset {offset:,}{hint}; convert it, or "
        "use --tokenizer bytes, which accepts any file"
    )
