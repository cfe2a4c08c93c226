"""Make the two pages in docs/examples/: the memory reports of a forecaster and a small text model.

Run `longstate demo` and then `python docs/memory_examples.py longstate-demo TEXT` from the
repository's root, where TEXT is a text file for training: the committed page used tinyshakespeare,
1.1 MB of Shakespeare's plays. It takes about four minutes on two cores.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F

from longstate import _tensorfile as tensorfile
from longstate.models import LanguageModel, LanguageSpec
from longstate.reports import memory
from longstate.reports._subject import open_subject

PAGES = Path(__file__).parent / "examples"
STEPS, ROWS, CONTEXT = 600, 8, 256


def train(text: torch.Tensor) -> LanguageModel:
    """Train two Mamba layers on the bytes of the first nine tenths of a text."""
    torch.manual_seed(0)
    model = LanguageModel(LanguageSpec(vocab_size=256, d_model=64, layers=("mamba", "mamba")))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    places = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20) * (1 - 0.95 * step / STEPS)
        starts = torch.randint(int(0.9 * len(text)) - CONTEXT - 1, (ROWS,), generator=places)
        rows = torch.stack([text[i : i + CONTEXT + 1] for i in starts.tolist()])
        logits, _ = model(rows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    print(f"last loss: {loss.item() / 0.6931:.2f} bits per byte")
    return model


def save(model: LanguageModel, folder: Path) -> None:
    facts = {"spec": json.loads(model.spec.to_json()), "tokens": "bytes"}
    tensorfile.save(folder / "model.safetensors", "language", dict(model.state_dict()), facts)
    (folder / "settings.json").write_text(json.dumps({"context": CONTEXT}))


def main(forecaster: Path, file: Path) -> None:
    subject = replace(open_subject(forecaster), name="the forecaster of longstate demo")
    memory.write(memory.examine(subject, subject.read(None)), PAGES / "memory-forecaster.html")
    with tempfile.TemporaryDirectory() as folder:
        save(train(torch.tensor(list(file.read_bytes()))), Path(folder))
        subject = replace(open_subject(folder), name="two Mamba layers that read Shakespeare")
        unseen = Path(folder) / "unseen.txt"
        whole = file.read_bytes()
        unseen.write_bytes(whole[int(0.9 * len(whole)) :])
        reading = replace(subject.read(unseen), what="plays of Shakespeare that it had not seen")
        memory.write(memory.examine(subject, reading), PAGES / "memory-text.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
