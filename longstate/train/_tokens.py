"""Tokenizers: bytes, or any `tokenizer.json`.

The library `tokenizers` is imported only when a `tokenizer.json` is read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from longstate._files import missing
from longstate._formats import refuse_format
from longstate.errors import InputError

TOKENIZER = "tokenizer.json"


class Tokens(Protocol):
    """Converts text to tokens and back. `decode` is used by `longstate.models.generate`."""

    @property
    def size(self) -> int:
        """The number of tokens; all tokens are below it."""

    @property
    def numbers(self) -> Sequence[int]:
        """The valid token numbers, in order; there may be gaps."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


class ByteTokens:
    """Every byte of UTF-8 is a token, so every file can be encoded."""

    size = 256
    numbers = range(256)

    def encode(self, text: str) -> list[int]:
        # Bytes that a shell could not decode are surrogates; they become the same bytes again.
        return list(text.encode("utf-8", "surrogateescape"))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text; bytes that are not UTF-8 become U+FFFD."""
        return bytes(tokens).decode("utf-8", "replace")


class FileTokens:
    """The tokens of a `tokenizer.json`.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        InputError: `tokenizers` is not installed, or the file is missing or not a tokenizer.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        self.path = path / TOKENIZER if path.is_dir() else path
        if not self.path.is_file():
            raise missing(self.path, "tokenizer")
        self._inner = _read(self.path)
        # A file may enable truncation and padding, which must not be used here.
        self._inner.no_truncation()
        self._inner.no_padding()
        self.numbers = sorted(set(self._inner.get_vocab(with_added_tokens=True).values()))
        self.size: int = max(self.numbers, default=-1) + 1
        if self.size < 1:
            raise InputError(f"{self.path} is a tokenizer without tokens")

    def encode(self, text: str) -> list[int]:
        """Encode without the special tokens that a tokenizer adds around a text."""
        try:
            return list(self._inner.encode(text, add_special_tokens=False).ids)
        except (TypeError, UnicodeError):
            raise InputError(f"the text {text[:30]!r} is not UTF-8") from None

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._inner.decode(list(tokens), skip_special_tokens=False))


def load_tokens(name: str | Path) -> Tokens:
    """ "bytes", or the path of a `tokenizer.json` or of its folder.

    Raises:
        InputError: as `FileTokens`.
    """
    return ByteTokens() if str(name) == "bytes" else FileTokens(name)


def _read(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError(
            f"{path} needs the library tokenizers, which is not installed; "
            "install it with pip install 'longstate[text]', or use --tokenizer bytes"
        ) from None
    try:
        raw = path.read_bytes()
        refuse_format(path, raw[:512], "a tokenizer.json")
        text = raw.decode("utf-8")
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a tokenizer.json: it is not UTF-8 text") from None
    try:
        return Tokenizer.from_str(text)
    except Exception as e:  # the library raises no more specific error
        raise InputError(
            f"{path} is not a tokenizer.json that the library tokenizers can read: {e}"
        ) from None
