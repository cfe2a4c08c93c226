"""Decode text token by token, up to the beginning of a stop string.

Tokens are not characters: one token may be a part of a character. Text is returned only when no
later token can change it, and when it cannot be the beginning of a stop string. Only the last few
tokens are decoded again each time.
"""

from collections.abc import Callable, Sequence

_LONGEST = 8  # tokens that one character may take; invalid bytes are returned after that


class TextStream:
    """Push tokens, get text.

    Args:
        decode: function from a list of tokens to text.
        stops: strings that end the text, none of them empty.

    Attributes:
        text: all text returned so far.
        stopped: whether a stop string came. It is not part of the text.
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = ()):
        self._decode, self._stops = decode, tuple(stops)
        self._tokens: list[int] = []  # the last returned tokens, then the new ones
        self._known = 0  # how many of them were returned
        self._before = ""  # their text
        self._held = ""  # may be the beginning of a stop string
        self._given: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        return "".join(self._given)

    def push(self, token: int) -> str:
        """Add a token. Returns the text that is now final, often empty."""
        self._tokens.append(token)
        after = self._decode(self._tokens)
        half = after.endswith("\ufffd") and len(self._tokens) - self._known < _LONGEST
        if half:
            return ""
        fresh = after[len(self._before) :]
        self._tokens = self._tokens[self._known :]
        self._known, self._before = len(self._tokens), self._decode(self._tokens)
        return self._give(fresh, last=False)

    def close(self) -> str:
        """The rest of the text: nothing comes after it."""
        return self._give(self._decode(self._tokens)[len(self._before) :], last=True)

    def _give(self, fresh: str, *, last: bool) -> str:
        text = self._held + fresh
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            text, self._held = text[: min(found)], ""
        else:
            keep = 0 if last else self._could_begin(text)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self._given.append(text)
        return text

    def _could_begin(self, text: str) -> int:
        """Characters at the end of `text` that a stop string may begin with."""
        longest = 0
        for stop in self._stops:
            for n in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:n]):
                    longest = n
                    break
        return longest
