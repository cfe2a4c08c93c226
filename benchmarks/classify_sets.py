"""Accuracy of `longstate.Classifier` on small public sets, beside three classifiers of aeon.

    python benchmarks/classify_sets.py [--seeds 0 1 2] [--sets ArrowHead ...] [--minutes 10]

The sets are inside the packages aeon, pyts and tslearn, with their usual split into training and
test cases. Every method gets the same cases, in the same run, and one configuration for all sets:
its default. aeon's MiniRocket and MultiRocketHydra take neither unequal lengths nor missing values;
1-NN DTW takes unequal lengths. "With gaps" removes every sample of a set with probability 0.3, from
training and test cases: longstate alone reads these. Figures are kept in `benchmarks/trained`, so
that the script can be stopped and run again.

Columns of longstate: the outcome; its network alone, after the whole series and after a half; its
random convolutions with ridge alone.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from command import parser, peers
from measure import machine, save

import longstate
from longstate.train import read_series

with peers(__name__, __doc__, "aeon pyts tslearn"):
    import aeon
    import pyts
    import tslearn
    from aeon.classification.convolution_based import (
        MiniRocketClassifier,
        MultiRocketHydraClassifier,
    )
    from aeon.classification.distance_based import KNeighborsTimeSeriesClassifier

KEPT = Path(__file__).parent / "trained" / "classify_sets.json"
AEON = (
    "ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand", "JapaneseVowels",
    "PickupGestureWiimoteZ", "OSULeaf", "ACSF1",
)  # fmt: skip
PYTS, TSLEARN = ("Coffee", "PigCVP"), ("Trace",)
GAPS = " with gaps"
SETS = (*AEON, *PYTS, *TSLEARN, "JapaneseVowels" + GAPS, "ItalyPowerDemand" + GAPS)
MISSING = 0.3
OURS = ("longstate", "network", "network, half", "convolutions")
PEERS = ("MiniRocket", "MultiRocketHydra", "1-NN DTW")


class Set(NamedTuple):
    """Cases (channels, time) and classes, of training and test."""

    X: list[np.ndarray]
    y: np.ndarray
    X_test: list[np.ndarray]
    y_test: np.ndarray

    @property
    def plain(self) -> bool:
        """Whether all cases have one length, and no value is missing."""
        both = [*self.X, *self.X_test]
        return len({x.shape for x in both}) == 1 and not any(np.isnan(x).any() for x in both)


def read_set(name: str) -> Set:
    if name.endswith(GAPS):
        whole, random = read_set(name.removesuffix(GAPS)), np.random.default_rng(0)

        def thin(x: np.ndarray) -> np.ndarray:
            gone = random.random(x.shape) < MISSING
            gone[:, 0] = False
            return np.where(gone, np.nan, x)

        return whole._replace(X=[thin(x) for x in whole.X], X_test=[thin(x) for x in whole.X_test])
    if name in AEON:
        folder = Path(aeon.__file__).parent / "datasets" / "data" / name
        both = [read_series(folder / f"{name}_{part}.ts") for part in ("TRAIN", "TEST")]
        return Set(*(v for part in both for v in (part.X, np.asarray(part.y))))
    if name in PYTS:
        folder = Path(pyts.__file__).parent / "datasets" / "cached_datasets" / "UCR" / name
        parts: list[Any] = []
        for part in ("TRAIN", "TEST"):
            table = np.loadtxt(folder / f"{name}_{part}.txt")
            parts += [list(table[:, None, 1:]), table[:, 0].astype(int)]
        return Set(*parts)
    stored = np.load(Path(tslearn.__file__).parent / ".cached_datasets" / f"{name}.npz")
    return Set(
        list(stored["X_train"].transpose(0, 2, 1)), stored["y_train"],
        list(stored["X_test"].transpose(0, 2, 1)), stored["y_test"],
    )  # fmt: skip


def ours(data: Set, seed: int, minutes: float) -> dict[str, float]:
    began = time.monotonic()
    model = longstate.Classifier(seed=seed, minutes=minutes).fit(data.X, data.y)
    seconds = time.monotonic() - began

    def right(p: np.ndarray) -> float:
        return 100 * float((model.classes_[p.argmax(1)] == data.y_test).mean())

    scores = model._ridge_scores(model._read(data.X_test))
    assert scores is not None
    return {
        "longstate": right(model.predict_proba(data.X_test)),
        "network": right(model.predict_proba(data.X_test, seen=1.0)),
        "network, half": right(model.predict_proba(data.X_test, seen=0.5)),
        "convolutions": right(scores.numpy()),
        "seconds": seconds,
        "share": model.fusion_.share,
    }


def theirs(data: Set, method: str, seed: int) -> float | None:
    """Accuracy of a classifier of aeon; None if it cannot read the set."""
    makers: dict[str, Callable[[], Any]] = {
        "MiniRocket": lambda: MiniRocketClassifier(random_state=seed),
        "MultiRocketHydra": lambda: MultiRocketHydraClassifier(random_state=seed),
        "1-NN DTW": lambda: KNeighborsTimeSeriesClassifier(distance="dtw", n_neighbors=1),
    }
    if not data.plain and (method != "1-NN DTW" or np.isnan(data.X[0]).any()):
        return None
    shaped = np.stack if data.plain else list
    model = makers[method]().fit(shaped(data.X), data.y)
    return 100 * float((model.predict(shaped(data.X_test)) == data.y_test).mean())


def measure(name: str, seed: int, minutes: float, peers: list[str], kept: dict[str, Any]) -> None:
    """Add the figures of one set to `kept`, those that are not there yet."""
    data = read_set(name)
    found = kept.setdefault(name, {})
    if f"longstate {seed}" not in found:
        found[f"longstate {seed}"] = ours(data, seed, minutes)
    for method in peers:
        key = f"{method} {0 if method == '1-NN DTW' else seed}"  # DTW draws nothing
        if key not in found:
            found[key] = theirs(data, method, seed)
    print(name, seed, found, flush=True)
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(kept, indent=1))


def cell(figures: list[float | None]) -> str:
    values = [v for v in figures if v is not None]
    if not values:
        return "cannot read it" if figures else "not run"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def table(kept: dict[str, Any], seeds: list[int]) -> list[str]:
    head = ("set", "training, test, classes", "channels, length", *OURS, *PEERS, "seconds")
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name, found in kept.items():
        data = read_set(name)
        lengths = sorted({x.shape[1] for x in data.X})
        size = f"{len(data.X)}, {len(data.X_test)}, {len(np.unique(data.y))}"
        length = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
        own = [found[f"longstate {s}"] for s in seeds if f"longstate {s}" in found]
        cells = [cell([one[column] for one in own]) for column in OURS]
        for method in PEERS:
            cells.append(cell([found[k] for s in seeds if (k := f"{method} {s}") in found]))
        cells.append(f"{statistics.mean(one['seconds'] for one in own):.0f}")
        row = (name, size, f"{len(data.X[0])}, {length}", *cells)
        lines.append("| " + " | ".join(row) + " |")
    return lines


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--sets", nargs="+", default=list(SETS))
    options.add_argument("--minutes", type=float, default=10.0, help="for each network")
    options.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    given = options.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for seed in given.seeds:
        for name in given.sets:
            measure(name, seed, given.minutes, given.peers, kept)
    shown = {name: kept[name] for name in SETS if name in kept}
    lines = [
        "# Classification of whole series",
        "",
        f"Accuracy in percent of the test cases: mean ± deviation over seeds {given.seeds}; DTW "
        f"draws nothing. A network trains for at most {given.minutes:g} minutes. `python "
        "benchmarks/classify_sets.py --help` explains the columns.",
        "",
        *table(shown, given.seeds),
        "",
        f"aeon {aeon.__version__}. {machine()}",
    ]
    save("classify_sets", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
