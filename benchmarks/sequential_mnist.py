"""Sequential MNIST with `longstate.Classifier`: an image is 784 samples of one pixel each.

    python benchmarks/sequential_mnist.py --data FOLDER [--seeds 0 1 2] [--minutes 60]

FOLDER has MNIST's two files of test images. Of these 10,000 images the first 9,000 are the training
cases, of which the classifier holds a fifth out for validation, and the last 1,000 are the test
cases: see `smnist.py`, whose model is another one. The settings are the defaults and `warp=0.02`,
which moves and slants an image a little each time that it is trained on.

Models are kept in `benchmarks/trained`, so that the script can be stopped and run again.
"""

from pathlib import Path

from command import parser
from kept import FOLDER
from measure import machine, save
from smnist import VALIDATION, Images, read

import longstate

COLUMNS = ("outcome", "network", "convolutions", "network, half of the image")


def trained(learnt: Images, seed: int, minutes: float) -> longstate.Classifier:
    """The classifier of that seed, from its folder; a stopped training is continued."""
    folder = FOLDER / f"sequential_mnist_{seed}"
    if not (folder / "model.safetensors").exists():
        model = longstate.Classifier(seed=seed, minutes=minutes)
        model.fit(
            learnt.pixels.transpose(1, 2).numpy(), learnt.classes.numpy(), warp=0.02, out=folder
        )
        if model.history_.ended == "interrupted":
            raise KeyboardInterrupt
    return longstate.load(folder)


def figures(model: longstate.Classifier, tested: Images) -> list[float]:
    """Accuracy in percent, of each column."""
    X, y = tested.pixels.transpose(1, 2).numpy(), tested.classes.numpy()
    scores = model._ridge_scores(model._read(X))
    assert scores is not None
    early = [model.predict_proba(X, seen=share) for share in (1.0, 0.5)]
    outcomes = (model.predict_proba(X), early[0], scores.numpy(), early[1])
    return [100 * float((model.classes_[p.argmax(1)] == y).mean()) for p in outcomes]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder with MNIST's files")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--minutes", type=float, default=60.0, help="for each network")
    given = options.parse_args()
    images = read(given.data)
    learnt, tested = images.part(None, VALIDATION), images.part(VALIDATION, None)
    head = ("seed", *COLUMNS, "share of the network", "minutes of its training")
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for seed in given.seeds:
        model = trained(learnt, seed, given.minutes)
        cells = [f"{value:.1f}" for value in figures(model, tested)]
        cells += [f"{model.fusion_.share:g}", f"{model.history_.seconds / 60:.1f}"]
        lines.append(f"| {seed} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    text = [
        "# Sequential MNIST, pixel by pixel",
        "",
        f"Accuracy in percent of {len(tested.classes)} test images, after {len(learnt.classes)} "
        "training images. `python benchmarks/sequential_mnist.py --help` explains the data.",
        "",
        *lines,
        "",
        machine(),
    ]
    save("sequential_mnist", "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
