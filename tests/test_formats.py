"""Files of other formats are named, by every reader, before anything of them is used."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from longstate import _tensorfile as tensorfile
from longstate import load
from longstate._formats import format_of
from longstate.errors import InputError
from longstate.interop import load_language_model
from longstate.reports._subject import Subject, _read_tokens
from longstate.train import read_csv
from longstate.train._corpus import open_corpus
from longstate.train._series_files import read_series
from longstate.train._tokens import ByteTokens, load_tokens

MADE = "longstate reads the folder that it was made from"


class Evil:
    """Unpickling it would make a file."""

    def __reduce__(self):
        return os.mkdir, ("it-was-run",)


def packed(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(name):
    def write(buffer):
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, "1")

    return packed(write)


def tarred(buffer):
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))


MODELS = {
    "gguf": (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "a GGUF file"),
    "lmgg": (b"lmgg" + bytes(60), "a GGML file, the old format"),
    "ggmf": (b"fmgg" + bytes(60), "a GGML file, the old format"),
    "ggjt": (b"tjgg" + bytes(60), "a GGML file, the old format"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0:\x80\x01", "an ONNX file"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(60), "a TensorFlow Lite file"),
    "ort": (b"\x1c\0\0\0ORTM" + bytes(60), "a file of ONNX Runtime"),
    "keras": (zipped("model.weights.h5"), "a Keras file"),
    "script": (zipped("a/constants.pkl"), "a TorchScript file"),
}
OTHERS = {
    "npz": (packed(lambda b: np.savez(b, a=np.zeros(3))), "an archive of NumPy"),
    "npy": (packed(lambda b: np.save(b, np.zeros(3))), "a file of NumPy"),
    "torch": (packed(lambda b: torch.save({"a": torch.zeros(2)}, b)), "a file of torch.save"),
    "evil torch": (packed(lambda b: torch.save(Evil(), b)), "a file of torch.save"),
    "evil pickle": (pickle.dumps(Evil()), "a pickle"),
    "zip": (zipped("a.txt"), "a ZIP archive;"),
    "xlsx": (zipped("[Content_Types].xml"), "a file of Microsoft Office"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(60), "an HDF5 file"),
    "parquet": (b"PAR1\x15\x04" + bytes(60), "a Parquet file"),
    "arrow": (b"ARROW1\0\0" + bytes(60), "an Arrow file"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(60), "a file that zstd compressed"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(60), "a 7z archive"),
    "tar": (packed(tarred), "a tar archive"),
    "pdf": (b"%PDF-1.4\n\xe2\xe3\xcf\xd3" + bytes(60), "a PDF file"),
    "sqlite": (b"SQLite format 3\0" + bytes(60), "an SQLite database"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
}
MARKUP = {
    "html": (b"\n <!DOCTYPE html><p>404</p>", "an HTML page"),
    "xml": (b"<?xml version='1.0'?><Error/>", "an XML file"),
}
BINARY = {**MODELS, **OTHERS}


@pytest.fixture(autouse=True)
def _nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "it-was-run").exists()


def written(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("case", MODELS)
def test_models_of_other_programs_are_named_and_the_way_out_is_said(case, tmp_path):
    data, said = MODELS[case]
    path = written(tmp_path, "model.any", data)
    for read in (load, lambda p: tensorfile.load(p, "layer"), lambda p: load(p.parent)):
        with pytest.raises(InputError, match=f"model.any is {said}.*; {MADE}"):
            read(path)


@pytest.mark.parametrize("case", {**OTHERS, **MARKUP})
def test_files_that_hold_no_model_are_named(case, tmp_path):
    data, said = {**OTHERS, **MARKUP}[case]
    path = written(tmp_path, "model.any", data)
    with pytest.raises(InputError, match=f"model.any is {said}"):
        load(path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("case", ["lmgg", "onnx", "npz", "hdf5", "pointer", "html", "zstd"])
def test_weights_of_a_checkpoint_are_named(case, name, tmp_path):
    data, said = {**BINARY, **MARKUP}[case]
    config = {"model_type": "mamba", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 16}
    written(tmp_path, "config.json", json.dumps(config).encode())
    written(tmp_path, name, data)
    with pytest.raises(InputError, match=f"{name} (holds no weights: it )?is {said}"):
        load_language_model(tmp_path)


@pytest.mark.parametrize("case", ["gguf", "pointer", "html", "zip"])
def test_a_config_of_another_format_is_named(case, tmp_path):
    data, said = {**BINARY, **MARKUP}[case]
    written(tmp_path, "config.json", data)
    with pytest.raises(InputError, match=f"config.json is not JSON but {said.strip(';')}"):
        load_language_model(tmp_path)


@pytest.mark.parametrize("case", {**BINARY, **MARKUP})
def test_readers_of_data_name_the_format(case, tmp_path):
    data, said = {**BINARY, **MARKUP}[case]
    path, series = written(tmp_path, "a.csv", data), written(tmp_path, "a.ts", data)
    with pytest.raises(InputError, match=f"a.csv is {said}.*a CSV file was expected"):
        read_csv(path)
    with pytest.raises(InputError, match=f"a.ts is {said}.*a .ts file was expected"):
        read_series([series])
    with pytest.raises(InputError, match=f"a.csv is {said}.*a tokenizer.json was expected"):
        load_tokens(path)
    if case in MARKUP:
        assert open_corpus([path], ByteTokens(), tmp_path).tokens == len(data)
        return
    with pytest.raises(InputError, match=f"a.csv is {said}.*a text was expected"):
        open_corpus([path], ByteTokens(), tmp_path)
    with pytest.raises(InputError, match=f"a.csv is {said}.*a text or a .npy file was expected"):
        _read_tokens(Subject("m", torch.nn.Identity(), "tokens", None, tmp_path), 256, path)


def test_a_safetensors_file_is_no_data(tmp_path):
    path = tmp_path / "a.csv"
    tensorfile.save(path, "layer", {"w": torch.zeros(2)}, {})
    with pytest.raises(InputError, match="is a safetensors file; a text was expected"):
        open_corpus([path], ByteTokens(), tmp_path)
    with pytest.raises(InputError, match="is a safetensors file; a CSV file was expected"):
        read_csv(path)


@pytest.mark.parametrize("text", ["GGUF is a format", "BZh and PAR1", "%PDF", "Rar!", "ORC,y"])
def test_texts_that_begin_like_another_format_are_texts(text, tmp_path):
    path = written(tmp_path, "a.csv", f"{text},z\n1,2\n".encode())
    assert format_of(path) == "a text file"
    assert len(read_csv(path)) == 1
    assert open_corpus([path], ByteTokens(), tmp_path).tokens > 4


def test_a_compressed_table_is_read(tmp_path):
    path = written(tmp_path, "a.csv.gz", gzip.compress(b"a,b\n1,2\n"))
    assert list(read_csv(path).columns) == ["a", "b"]
    with pytest.raises(InputError, match="is a file that gzip compressed; a text was expected"):
        open_corpus([path], ByteTokens(), tmp_path)
