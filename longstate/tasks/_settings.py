"""Settings of a screen and of its runs. Nothing heavy is imported, so that `--help` is fast."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field

from longstate.errors import expect, expect_whole


@dataclass(frozen=True)
class Settings:
    """Settings of all runs of a screen.

    Args:
        width: Channels between the blocks.
        blocks: Blocks with a layer each.
        seconds: Processor time of the training of one run, at most.
        scale: Steps of training as a multiple of each task's own.

    Raises:
        InputError: a value is out of its range.
    """

    width: int = 64
    blocks: int = 2
    seconds: float = 30.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        expect_whole("width", self.width)
        expect_whole("blocks", self.blocks)
        for name in ("seconds", "scale"):
            value = getattr(self, name)
            expect(0 < value < math.inf, f"{name} must be above 0; got {value!r}")


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        task: its name.
        layer: its name.
        rate: learning rate.
        seed: of the initial weights and of the rows.
        settings: of the screen.
        version: digest of the text of a user's own layer.
    """

    task: str
    layer: str
    rate: float
    seed: int
    settings: Settings = field(default_factory=Settings)
    version: str = ""

    def file(self) -> str:
        """The name of the file of its outcome; another one for other settings."""
        text = json.dumps(asdict(self), sort_keys=True)
        safe = "".join(c if c.isalnum() else "_" for c in self.layer)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return f"{self.task}-{safe}-{self.rate:g}-{self.seed}-{digest}.json"
