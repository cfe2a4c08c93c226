"""Tasks that several processes train; imported by each of them."""

import numpy as np
import torch

from longstate.layers import S4D, Mamba
from longstate.models import Stack
from longstate.train import Training, train


class Sums:
    """Learn running sums, in float64. Batches of 5, of 5 and of 1, for each epoch."""

    def __init__(self, dropout=0.0, dtype=torch.float64):
        torch.manual_seed(0)
        self.model = Stack([Mamba(4, d_state=3), S4D(4, d_state=4)], dropout=dropout).to(dtype)
        self.u = torch.randn(11, 12, 4, generator=torch.Generator().manual_seed(1)).to(dtype)

    def epoch(self, epoch):
        order = np.random.default_rng(epoch).permutation(len(self.u))
        return [order[:5], order[5:10], order[10:]]

    def loss(self, indices):
        u = self.u[indices]
        return (self.model(u)[0] - u.cumsum(1)).square().mean()

    def validate(self):
        return float(self.loss(np.arange(11)))


def fit(settings=None, dropout=0.0, dtype=torch.float64, **options):
    """Train with these settings; returns the losses at each evaluation, and the weights."""
    task = Sums(dropout, dtype)
    history = train(task, Training(epochs=3, learning_rate=0.02, **(settings or {})), **options)
    losses = [(look.train_loss, look.validation_loss) for look in history.looks]
    return torch.tensor(losses).double(), dict(task.model.state_dict()), history.ended
