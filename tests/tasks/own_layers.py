"""Layers of a user: one that keeps the contract, and some that break it."""

import torch

from longstate.layers import Layer

number = 5


class Running(Layer):
    """The running mean of what came so far, mixed by a linear map."""

    own_gate = True

    def __init__(self, d_model: int):
        super().__init__()
        self.d_model = d_model
        self.map = torch.nn.Linear(d_model, d_model)

    def init_state(self, batch):
        zero = self.map.weight.new_zeros(batch, self.d_model)
        return zero, zero[:, :1]

    def forward(self, u, state=None):
        total, count = self.init_state(len(u)) if state is None else state
        sums = total[:, None] + u.cumsum(1)
        counts = count[:, None] + torch.arange(1, u.shape[1] + 1)[None, :, None]
        return self.map(sums / counts), (sums[:, -1], counts[:, -1].to(u.dtype))


class NoState(Running):
    def forward(self, u, state=None):
        return u


class Narrow(Running):
    def forward(self, u, state=None):
        return u[..., :1], ()


class Future(Running):
    def forward(self, u, state=None):
        return u.flip(1), ()


class Forgets(Running):
    def forward(self, u, state=None):
        return u.cumsum(1), ()


class Infinite(Running):
    def forward(self, u, state=None):
        return u / 0, ()


class Raises(Running):
    def forward(self, u, state=None):
        raise RuntimeError("first\nsecond")


class Plain(torch.nn.Linear):
    def __init__(self, d_model: int):
        super().__init__(d_model, d_model)
