"""How a model is trained, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """Settings of the loop.

    Args:
        epochs: passes over the training windows at most.
        minutes: stop after this much time; None for no limit. A run that stops by the clock cannot
            be repeated exactly.
        batch_size: windows per step.
        windows_per_epoch: at most so many windows, drawn afresh for each epoch.
        learning_rate: of everything but the layers' dynamics; `dynamics_rate` is theirs.
        weight_decay: of matrices.
        patience: looks at the validation part without progress before stopping; one per epoch.
    """

    epochs: int = 20
    minutes: float | None = None
    batch_size: int = 64
    windows_per_epoch: int = 2048
    learning_rate: float = 2e-3
    dynamics_rate: float = 1e-3
    weight_decay: float = 0.01
    patience: int = 4


@dataclass(frozen=True)
class Size:
    """How large a forecaster's state space part is.

    Args:
        d_model: channels. n_layers: blocks. d_state: states of each layer.
        dropout: in each block, in training.
    """

    d_model: int = 32
    n_layers: int = 2
    d_state: int = 64
    dropout: float = 0.1
