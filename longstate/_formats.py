"""Name the format of a file by its first bytes, to refuse it in one sentence."""

import re
import zipfile
from pathlib import Path

from longstate.errors import InputError

ZIP = "a ZIP archive or a file of torch.save"  # of which the end is missing
SAVED = "a file of torch.save"
PICKLE = "a pickle"
TEXT = "a text file"
EMPTY = "an empty file"
PARQUET, ARROW, ARROW_STREAM = "a Parquet file", "an Arrow file", "a stream of Arrow"
PICKLES = (ZIP, SAVED, PICKLE)
"""What `format_of` says of the files of torch.save."""
TABLE = re.compile(r"\.(csv(\.gz|\.bz2|\.xz)?|parquet|arrow|feather)$", re.IGNORECASE)
"""The ending of the name of a table."""
_GGML = "a GGML file, the old format of llama.cpp"
# The models of other programs, made from a checkpoint.
_MODELS = {
    b"GGUF": "a GGUF file, the format of llama.cpp",
    **dict.fromkeys((b"lmgg", b"fmgg", b"tjgg", b"algg"), _GGML),
}
_MODELS_AT_4 = {b"TFL3": "a TensorFlow Lite file", b"ORTM": "a file of ONNX Runtime"}
_ONNX = re.compile(rb"\x08[\x01-\x20]\x12[\x01-\x40][ -~]")  # its version, then its producer
_BINARY = {
    b"\x80": PICKLE,
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a file of NumPy",
    b"\x1f\x8b": "a file that gzip compressed",
    b"BZh": "a file that bzip2 compressed",
    b"\xfd7zXZ\0": "a file that xz compressed",
    b"\x28\xb5\x2f\xfd": "a file that zstd compressed",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"PAR1": PARQUET,
    b"ARROW1": ARROW,
    b"\xff\xff\xff\xff": ARROW_STREAM,
    b"ORC": "an ORC file",
    b"MATLAB": "a file of Matlab",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old file of Microsoft Office",
    b"%PDF": "a PDF file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
}
_TAR = (257, b"ustar")
_MARKUP = {
    b"<!doctype html": "an HTML page (a server may have sent an error)",
    b"<html": "an HTML page (a server may have sent an error)",
    b"<?xml": "an XML file (a server may have sent an error)",
}
_POINTER = b"version https://git-lfs"
_LFS = "a pointer of Git LFS (`git lfs pull` brings the file itself)"
# A file of this name in a ZIP archive, and what the archive is then.
_MEMBERS = (
    (r".*/constants\.pkl", "a TorchScript file"),
    (r".*/data\.pkl", SAVED),
    (r".*\.npy", "an archive of NumPy (.npz)"),
    (r"\[Content_Types\]\.xml", "a file of Microsoft Office"),
    (r"model\.weights\.h5", "a Keras file"),
)
_START = 512  # bytes that decide


def format_of(path: str | Path) -> str | None:
    """What a file that is no safetensors file is, in words; None if its first bytes do not tell."""
    found = named(start_of(path))
    if found == ZIP:
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return ZIP
        return next(
            (said for form, said in _MEMBERS if any(re.fullmatch(form, n) for n in names)),
            "a ZIP archive",
        )
    return found


def start_of(path: str | Path) -> bytes:
    """The bytes that decide."""
    with Path(path).open("rb") as file:
        return file.read(_START)


def table_format(path: Path) -> str | None:
    """`PARQUET`, `ARROW` or `ARROW_STREAM`; None if a path is no such file.

    Raises:
        InputError: the file cannot be read.
    """
    if not path.is_file():
        return None
    try:
        found = named(start_of(path))
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from None
    return found if found in (PARQUET, ARROW, ARROW_STREAM) else None


def named(start: bytes) -> str | None:
    """What a file that begins with these bytes is, in words; None if they do not tell."""
    if not start:
        return EMPTY
    if start.startswith(_POINTER):
        return _LFS
    if is_text(start):
        words = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        return next((said for first, said in _MARKUP.items() if words.startswith(first)), TEXT)
    if start[8:9] == b"{":  # where a safetensors header begins
        return None
    if start.startswith(b"PK\3\4"):
        return ZIP
    for first, said in {**_MODELS, **_BINARY}.items():
        if start.startswith(first):
            return said
    if start[4:8] in _MODELS_AT_4:
        return _MODELS_AT_4[start[4:8]]
    if start[_TAR[0] :].startswith(_TAR[1]):
        return "a tar archive"
    return "an ONNX file" if _ONNX.match(start) else None


def is_text(start: bytes) -> bool:
    """Whether these bytes are UTF-8 text without control characters; the last character may be
    cut."""
    text = start.decode("utf-8", "ignore")
    controls = any(ord(c) < 32 and c not in "\t\n\r\f\v\b\x1b" for c in text)
    return not controls and len(start) - len(text.encode()) <= 3


def refuse_format(path: Path, start: bytes, expected: str, markup: bool = False) -> None:
    """Refuse a file that is not text, or a pointer of Git LFS, if its format is known.

    Args:
        path: for the message.
        start: its first bytes.
        expected: such as "a CSV file".
        markup: whether HTML and XML are accepted.

    Raises:
        InputError: names the format.
    """
    found = "a safetensors file" if _is_safetensors(start) else named(start)
    if found == ZIP:
        found = format_of(path) if path.is_file() else ZIP
    if found in (None, TEXT, EMPTY) or (markup and found in _MARKUP.values()):
        return
    raise InputError(f"{path} is {found}; {expected} was expected")


def _is_safetensors(start: bytes) -> bool:
    return start[8:9] == b"{" and start[5:8] == b"\0\0\0" and b'"' in start


def refuse_converted(path: str | Path) -> None:
    """Refuse the model of another program, and a folder that contains one.

    Raises:
        InputError: the message says which format is needed.
    """
    path = Path(path)
    files = [path] if path.is_file() else [p for p in sorted(path.glob("*")) if p.is_file()]
    models = {*_MODELS.values(), *_MODELS_AT_4.values(), "an ONNX file", "a TorchScript file"}
    for file in files:
        found = format_of(file)
        if found in {*models, "a Keras file"}:
            raise InputError(
                f"{file} is {found}; longstate reads the folder that it was made from, with "
                "config.json and model.safetensors or pytorch_model.bin"
            )
