"""How a language model is made and trained by `longstate train text`, in one place."""

import math
from dataclasses import dataclass

from longstate.errors import InputError
from longstate.models import layer_class
from longstate.train.settings import Training

DEPTH = 3
"""Blocks of a model of one layer, where no number is asked for."""
LOOKS = 10
"""Looks at the validation part, at least, where there are so many steps."""
INTERVAL = 50
"""Steps between two looks, at most."""
STEPS = 800
"""Where neither steps nor epochs nor minutes are asked for."""
MOST_STEPS = 1_000_000
"""Where only minutes are."""


@dataclass(frozen=True)
class TextSettings:
    """How a language model is made and trained.

    Args:
        layer: a name, or several with commas between: a pattern that is repeated.
        tokenizer: "bytes", or the path of a `tokenizer.json`.
        context: tokens of a training window.
        d_model: channels. n_layers: blocks; None is one pattern, or `DEPTH` of a single name.
        batch: windows per step.
        steps: of the optimiser. epochs: instead, passes over the training text.
        minutes: stop after this much time. The rate falls by the clock too, where that ends first.
        learning_rate: at its highest.
        seed: of weights and windows.

    Raises:
        InputError: a value is out of its range.
    """

    layer: str = "longhorn"
    tokenizer: str = "bytes"
    context: int = 1024
    d_model: int = 256
    n_layers: int | None = None
    batch: int = 2
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("context", "d_model", "n_layers", "batch", "steps", "seed"):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}; got {value}")
        for name in ("epochs", "minutes", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be a number above 0; got {value}")
        if self.steps is not None and self.epochs is not None:
            raise InputError("give steps or epochs, not both")
        for name in self.pattern:
            layer_class(name)

    @property
    def pattern(self) -> list[str]:
        return [name.strip().lower() for name in self.layer.split(",")]

    @property
    def layers(self) -> tuple[str, ...]:
        """One name per block."""
        pattern = self.pattern
        n = self.n_layers or (len(pattern) if len(pattern) > 1 else DEPTH)
        return tuple(pattern[i % len(pattern)] for i in range(n))

    def total_steps(self, train_tokens: int) -> int:
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return max(1, round(self.epochs * train_tokens / (self.batch * self.context)))
        return STEPS if self.minutes is None else MOST_STEPS

    def training(self, steps: int) -> Training:
        """What the loop is told, whose epochs are the stretches between two looks."""
        looks = min(steps, max(LOOKS, -(-steps // INTERVAL)))
        return Training(
            epochs=looks,
            minutes=self.minutes,
            batch_size=self.batch,
            learning_rate=self.learning_rate,
            dynamics_rate=min(self.learning_rate, 1e-3),
            weight_decay=0.1,
            patience=looks + 1,
        )
