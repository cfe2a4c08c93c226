"""Accuracy on associative recall against the share of the state that is kept.

    python benchmarks/reduce_recall.py       one thread; the first run also trains the models

Mamba-2 and Mamba with states of 32, two layers of 32 channels, three seeds, are trained on 6 pairs
of 16 keys and 16 values (`recall.py`), then reduced without any training. Every method sees the
same 500 rows of tokens and nothing else; accuracy is that on 2,000 other rows. The size of a
state is the same in both layers ("even"), or follows from its effect on the output ("measured").
"""

import statistics
from collections.abc import Iterable

import torch
from command import parser
from measure import machine, save
from recall import SEEDS, recall, right, trained

from longstate import reduce
from longstate.models import LanguageModel

FULL, SIZES = 32, (16, 8, 4, 2)
METHODS = {
    "mamba2": ("auto", "energy", "ghost", "magnitude", "random"),
    "mamba": ("auto", "ghost", "magnitude", "random"),
}
NAMES = {"ghost": "GHOST's score", "random": "random columns", "magnitude": "weights"}
PUBLISHED = ("ghost", "magnitude", "random")


def accuracies(model: LanguageModel, method: str, allocation: str) -> list[float]:
    """After a reduction to each of the sizes."""
    fit, test = recall(500, 11)[0], recall(2000, 12)
    found = []
    for r in SIZES:
        small = reduce(model, fit, keep=r / FULL, method=method, allocation=allocation).model
        found.append(right(small, *test))
    return found


def spread(values: Iterable[float]) -> str:
    """Mean and standard error over seeds, in percent, and the least."""
    v = [100 * x for x in values]
    error = statistics.stdev(v) / len(v) ** 0.5
    return f"{statistics.mean(v):.1f} ± {error:.1f} ({min(v):.1f})"


def behind(found: dict[tuple[str, str], list[list[float]]]) -> list[str]:
    """Where the best published score is ahead by more than one standard error of the difference."""
    lines = []
    ours = [found["auto", allocation] for allocation in ("measured", "even")]
    for i, r in enumerate(SIZES):
        best = max(ours, key=lambda seeds: sum(s[i] for s in seeds))
        for (method, allocation), seeds in found.items():
            gaps = [b[i] - a[i] for a, b in zip(best, seeds, strict=True)]
            error = statistics.stdev(gaps) / len(gaps) ** 0.5
            if method in PUBLISHED and statistics.mean(gaps) > error:
                lines.append(f"r = {r}: {method}, {allocation}, by {statistics.mean(gaps):.1%}")
    return lines


def table(layer: str) -> list[str]:
    models = {seed: trained(layer, seed) for seed in SEEDS}
    test = recall(2000, 12)
    whole = [right(m, *test) for m in models.values()]
    lines = ["", f"## {layer}, whole model: {spread(whole)}", ""]
    lines += ["Percent, mean ± standard error over three seeds (least of them).", ""]
    lines += [f"| method | sizes | {' | '.join(f'r = {r}' for r in SIZES)} |"]
    lines += ["|---|---|" + "---|" * len(SIZES)]
    found = {}
    for method in METHODS[layer]:
        for allocation in ("measured", "uniform"):
            rows = [accuracies(m, method, allocation) for m in models.values()]
            found[method, allocation.replace("uniform", "even")] = rows
            cells = " | ".join(spread(row[i] for row in rows) for i in range(len(SIZES)))
            name = "ours" if method == "auto" else NAMES.get(method, method)
            sizes = allocation.replace("uniform", "even")
            lines.append(f"| {name} | {sizes} | {cells} |")
            print(lines[-1], flush=True)
    kept = [rows[1] / w for rows, w in zip(found["auto", "measured"], whole, strict=True)]
    lines += ["", f"Ours at r = 8 keeps {min(kept):.1%} of the accuracy in the worst seed."]
    worse = behind(found)
    lines += ["", "Published scores ahead by more than one standard error: "]
    lines[-1] += "; ".join(worse) + "." if worse else "none."
    return lines


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", choices=sorted(METHODS))
    given = options.parse_args()
    torch.set_num_threads(1)
    lines = ["# Associative recall with a smaller state", "", machine()]
    for layer in METHODS:
        if given.only in (None, layer):
            lines += table(layer)
    save("reduce_recall", "\n".join(lines))


if __name__ == "__main__":
    main()
