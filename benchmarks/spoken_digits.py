"""Spoken digits from raw audio at 8 kHz, and at 4 kHz without another training.

    python benchmarks/spoken_digits.py --data fsdd.zip [--seeds 0 1 2] [--minutes 25]

The Free Spoken Digit Dataset has ten digits by six speakers. Recordings with index 5 to 9 of each
digit and speaker are the test cases; those with a higher index are the training cases, of which
`longstate.Classifier`, with its default settings, holds a fifth out for validation. Its input is
the samples of the files, 1,100 to 18,300 of them. They are read by a bank of oscillators, a
diagonal state space layer, whose energies the layers behind it read once in 64 samples. The bank
begins as a spectrogram with a logarithmic axis, and is trained with the rest.

At 4 kHz the test cases have every second sample: "filtered" after a low-pass filter against aliases
(`scipy.signal.resample_poly`, a linear-phase FIR filter), "plain" without one. The classifier reads
them with `rate=2`. The last column reads the filtered ones as if they had the interval of the
training. Random convolutions take part at 8 kHz as far as validation says that they help, and not
at 4 kHz.

Models are kept in `benchmarks/trained`, so that the script can be stopped and run again.
"""

import io
import statistics
import time
import warnings
import wave
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from command import parser, peers
from kept import FOLDER
from measure import machine, save

import longstate

with peers(__name__, __doc__, "scipy"):
    from scipy.signal import resample_poly

TEST = range(5, 10)
COLUMNS = (
    "8 kHz", "network", "convolutions", "network, half", "4 kHz, filtered", "4 kHz, plain",
    "4 kHz, rate=1",
)  # fmt: skip


class Recordings(NamedTuple):
    """One array (1, t) for each recording, and its digit."""

    X: list[np.ndarray]
    y: np.ndarray

    def changed(self, change: Any) -> list[np.ndarray]:
        return [change(x[0])[None] for x in self.X]


def read(path: Path) -> tuple[Recordings, Recordings]:
    """Training and test cases."""
    parts: tuple[list[Any], list[Any]] = ([], [])
    with zipfile.ZipFile(path) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".wav")):
            digit, _, index = Path(name).stem.split("_")
            if int(index) < TEST.start:
                continue
            with wave.open(io.BytesIO(archive.read(name))) as file:
                samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            parts[int(index) in TEST].append((samples[None].astype(float), int(digit)))
    learnt, tested = (
        Recordings([x for x, _ in part], np.array([d for _, d in part])) for part in parts
    )
    return learnt, tested


def trained(learnt: Recordings, seed: int, minutes: float) -> longstate.Classifier:
    """The classifier of that seed, from its folder; a stopped training is continued."""
    folder = FOLDER / f"spoken_digits_{seed}"
    if not (folder / "model.safetensors").exists():
        began = time.monotonic()
        model = longstate.Classifier(seed=seed, minutes=minutes)
        model.fit(learnt.X, learnt.y, out=folder, show=told)
        if model.history_.ended == "interrupted":
            raise KeyboardInterrupt
        print(f"seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
    return longstate.load(folder)


def told(progress: Any) -> None:
    if progress.batch == 1:
        look = progress.looks[-1]
        print(
            f"epoch {progress.epoch}: validation loss {look.validation_loss:.4f}, "
            f"{progress.seconds:.0f} s",
            flush=True,
        )


def figures(model: longstate.Classifier, tested: Recordings) -> dict[str, float]:
    """Accuracy in percent, of each column."""
    X, y = tested
    filtered = tested.changed(lambda x: resample_poly(x, 1, 2))
    plain = tested.changed(lambda x: x[::2])

    def right(X: list[np.ndarray], **options: Any) -> float:
        p = model.predict_proba(X, **options)
        return 100 * float((model.classes_[p.argmax(1)] == y).mean())

    scores = model._ridge_scores(model._read(X))
    assert scores is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the docstring says that the network decides alone
        return {
            "8 kHz": right(X),
            "network": right(X, seen=1.0),
            "convolutions": 100 * float((model.classes_[scores.argmax(1).numpy()] == y).mean()),
            "network, half": right(X, seen=0.5),
            "4 kHz, filtered": right(filtered, rate=2.0),
            "4 kHz, plain": right(plain, rate=2.0),
            "4 kHz, rate=1": right(filtered, seen=1.0),
        }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, required=True, help="fsdd.zip")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--minutes", type=float, default=25.0, help="for each network")
    given = options.parse_args()
    learnt, tested = read(given.data)
    rows = []
    for seed in given.seeds:
        model = trained(learnt, seed, given.minutes)
        found = figures(model, tested)
        rows.append((found, model.history_.seconds, model.fusion_.share))
        print(seed, found, flush=True)
    head = ("seed", *COLUMNS, "share of the network", "minutes of its training")
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for seed, (found, seconds, share) in zip(given.seeds, rows, strict=True):
        cells = [f"{found[c]:.1f}" for c in COLUMNS] + [f"{share:g}", f"{seconds / 60:.1f}"]
        lines.append(f"| {seed} | " + " | ".join(cells) + " |")
    if len(rows) > 1:
        values = [[found[c] for found, _, _ in rows] for c in COLUMNS]
        cells = [f"{statistics.mean(v):.1f} ± {statistics.stdev(v):.1f}" for v in values]
        lines.append("| mean ± deviation | " + " | ".join(cells) + " | | |")
    text = [
        "# Spoken digits from raw audio",
        "",
        f"Accuracy in percent of {len(tested.y)} test recordings, after {len(learnt.y)} training "
        "recordings at 8 kHz. `python benchmarks/spoken_digits.py --help` explains the columns; "
        "\"network\" and \"network, half\" are the network alone, after the whole recording and "
        "after a half.",
        "",
        *lines,
        "",
        machine(),
    ]  # fmt: skip
    save("spoken_digits", "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
