"""Text that grows token by token."""

from longstate.models._text_stream import TextStream


def read(bytes_):
    return bytes(bytes_).decode("utf-8", errors="replace")


def test_characters_of_several_bytes_are_not_split():
    stream = TextStream(read)
    given = [stream.push(b) for b in "aé€😀z".encode()]
    assert given == ["a", "", "é", "", "", "€", "", "", "", "😀", "z"]
    assert stream.text == "aé€😀z"
    assert not stream.stopped


def test_invalid_bytes_are_not_held_back_for_ever():
    stream = TextStream(read)
    given = [stream.push(0xE2) for _ in range(20)]
    assert "".join(given) == "\ufffd" * 16
    assert len(stream._tokens) < 16
    stream.push(ord("a"))
    stream.close()
    assert stream.text.endswith("\ufffda")
    cut = TextStream(read)
    assert [cut.push(0xE2), cut.close(), cut.text] == ["", "\ufffd", "\ufffd"]


def test_a_possible_beginning_of_a_stop_string_is_held_back():
    stream = TextStream(read, ["END", "EN!"])
    given = [stream.push(b) for b in b"aENbEEN"]
    assert given == ["a", "", "", "ENb", "", "E", ""]
    assert (stream.push(ord("D")), stream.stopped) == ("", True)
    assert stream.text == "aENbE"
    other = TextStream(read, ["END"])
    assert [other.push(b) for b in b"xEN"] == ["x", "", ""]
    assert (other.close(), other.stopped, other.text) == ("EN", False, "xEN")


def test_the_first_of_several_stop_strings_counts():
    stream = TextStream(lambda numbers: "abcdef" * len(numbers), ["de", "bc"])
    assert (stream.push(0), stream.stopped) == ("a", True)


def test_spaces_that_depend_on_earlier_tokens():
    """As tokenizers with word pieces do: the first word has no space in front."""

    def decode(numbers):
        return " ".join(f"w{n}" for n in numbers)

    stream = TextStream(decode, [" w3 w4"])
    given = [stream.push(n) for n in (1, 2, 3, 4)]
    assert given == ["w1", " w2", "", ""]
    assert stream.stopped
