"""Sequential MNIST: an image is 784 samples of one pixel each, row by row, and the class is asked
at the end.

The data are the 10,000 test images of MNIST, as the files of MNIST hold them: the first 9,000 to
train (the last 500 of them to choose the weights), the last 1,000 to test. Published figures train
on 60,000 other images: accuracies here are lower, and only differences are compared.
"""

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers import S5
from longstate.models import Stack
from longstate.train import Training
from longstate.train._loop import Keeping, Progress, train

FOLDER = Path(__file__).parent / "trained"
IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
TRAIN, VALIDATION = 8500, 9000  # ends of these parts
MEAN, STD = 0.1307, 0.3081  # of MNIST's pixels
D_MODEL, N_LAYERS = 32, 2


class Images(NamedTuple):
    """Pixels (b, 784, 1), less their mean and over their deviation, and classes (b)."""

    pixels: Tensor
    classes: Tensor

    def part(self, begin: int | None, end: int | None) -> "Images":
        return Images(self.pixels[begin:end], self.classes[begin:end])


def read(folder: Path) -> Images:
    with gzip.open(folder / IMAGES) as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784, 1)
    with gzip.open(folder / LABELS) as file:
        classes = np.frombuffer(file.read(), np.uint8, offset=8)
    return Images((torch.tensor(pixels) / 255.0 - MEAN) / STD, torch.tensor(classes).long())


class Classifier(nn.Module):
    """A stack of S5, the mean over time, and one matrix."""

    def __init__(self, d_state: int):
        super().__init__()
        self.embed = nn.Linear(1, D_MODEL)
        self.stack = Stack([S5(D_MODEL, d_state=d_state) for _ in range(N_LAYERS)], dropout=0.1)
        self.head = nn.Linear(D_MODEL, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        y, _ = self.stack(self.embed(pixels))
        logits: Tensor = self.head(y.mean(1))
        return logits


class Digits:
    """A `Task` for the training loop.

    Args:
        model: gives logits (b, 10).
        train, validation: images.
        batch: images of a step.
        seed: of the order.
    """

    def __init__(self, model: nn.Module, train: Images, validation: Images, batch: int, seed: int):
        self.model, self.train, self.validation = model, train, validation
        self.batch, self.seed = batch, seed

    def epoch(self, epoch: int) -> list[np.ndarray]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.train.classes))
        return np.array_split(order, len(order) // self.batch)

    def loss(self, indices: np.ndarray) -> Tensor:
        pixels, classes = self.train
        return F.cross_entropy(self.model(pixels[indices]), classes[indices])

    def validate(self) -> float:
        pixels, classes = self.validation
        return float(F.cross_entropy(logits(self.model, pixels), classes))


@torch.no_grad()
def logits(model: nn.Module, pixels: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model(part) for part in pixels.split(100)])


def accuracy(model: nn.Module, images: Images) -> float:
    """Percent."""
    right = logits(model, images.pixels).argmax(-1) == images.classes
    return 100 * float(right.double().mean())


def trained(images: Images, d_state: int, seed: int, epochs: int) -> Classifier:
    """The classifier of that size and seed: from `benchmarks/trained`, or trained and put there. A
    training that was stopped goes on from its checkpoint."""
    torch.manual_seed(seed)
    model = Classifier(d_state)
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    path = FOLDER / f"smnist_{d_state}_{epochs}_{seed}_{digest}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    FOLDER.mkdir(exist_ok=True)
    settings = Training(
        epochs=epochs, batch_size=50, learning_rate=4e-3, dynamics_rate=1e-3, weight_decay=0.05,
        patience=epochs,
    )  # fmt: skip
    task = Digits(
        model, images.part(None, TRAIN), images.part(TRAIN, VALIDATION), settings.batch_size, seed
    )
    history = train(
        task, settings, seed=seed, keeping=Keeping(path.with_suffix(".checkpoint")), looked=told
    )
    if history.ended == "interrupted":
        raise KeyboardInterrupt
    save_file(model.state_dict(), path)
    return model.eval()


def told(progress: Progress) -> None:
    look = progress.looks[-1]
    print(
        f"step {look.step}: validation loss {look.validation_loss:.4f}, {progress.seconds:.0f} s",
        flush=True,
    )
