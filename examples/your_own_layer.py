"""A layer of your own with the contract of all layers: a leaky average for each channel.

h_t = a h_{t-1} + (1 - a) u_t,  y_t = h_t        0 < a < 1 by construction
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from longstate.layers import Layer
from longstate.layers._base import check_call
from longstate.ops import diagonal_scan
from longstate.testing import check_layer


class LeakyAverage(Layer):
    dynamics = ("logit",)

    def __init__(self, d_model: int):
        super().__init__()
        self.d_model = d_model
        self.logit = nn.Parameter(torch.linspace(0, 4, d_model))

    def init_state(self, batch: int) -> Tensor:
        return self.logit.new_zeros(batch, self.d_model)

    def forward(self, u, state=None, *, dt=None, mask=None, reset=None):
        state = check_call(self, u, state, dt, mask, reset)
        if dt is not None:
            raise ValueError("LeakyAverage takes regular samples; dt must be None")
        a = torch.sigmoid(self.logit)
        keep = torch.ones(u.shape[:2], dtype=torch.bool) if mask is None else mask
        # A masked sample has no effect, also if it is NaN.
        decay = torch.where(keep[..., None], a, 1.0)
        x = (1 - a) * torch.where(keep[..., None], u, 0.0)
        h, state = diagonal_scan(x=x, a=decay, h0=state, reset=reset)
        return torch.where(keep[..., None], h, 0.0).to(u.dtype), state


def try_it(layer: type[Layer]) -> str:
    try:
        check_layer(lambda: layer(4), takes_dt=False)
    except AssertionError as error:
        return str(error).splitlines()[0]
    return f"{layer.__name__} keeps the contract"


class Forgetful(LeakyAverage):
    """A common mistake: the carried state is not used."""

    def forward(self, u, state=None, **flags):
        return super().forward(u, None, **flags)


print(try_it(LeakyAverage))
print(try_it(Forgetful))

layer = LeakyAverage(4)
u = torch.zeros(1, 120, 4)
u[:, 10:60] = 1
with torch.no_grad():
    y, _ = layer(u)
figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
axis.plot(u[0, :, 0], color="#c3cad1", lw=4, label="input")
for i in range(4):
    axis.plot(y[0, :, i], label=f"a = {torch.sigmoid(layer.logit[i]):.2f}")
axis.set_xlabel("sample")
axis.legend(loc="upper right")
figure.savefig("your_own_layer.svg")
