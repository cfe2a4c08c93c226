"""What PyTorch raises without a class of its own is one sentence."""

import pytest

from longstate import cli

GLOO = "[/src/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error: reset by peer"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "error: there is not enough memory for this; smaller sizes need less"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."),
            "error: there is not enough memory for this; smaller sizes need less",
        ),
        (RuntimeError(GLOO), "error: the connection to another process is lost"),
        (RuntimeError("expected a matrix"), None),
    ],
)
def test_errors_of_pytorch(error, sentence, monkeypatch, capsys):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    if sentence is None:
        with pytest.raises(RuntimeError, match="expected a matrix"):
            cli.main(["info", "run"])
        return
    assert cli.main(["info", "run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(sentence)
    assert len(said.splitlines()) == 1
