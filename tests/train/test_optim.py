from torch import nn

from longstate.layers import S4D
from longstate.train import Training
from longstate.train._optim import make_optimiser, set_rate


def test_dynamics_have_their_own_rate_and_no_decay():
    layer = S4D(4, d_state=4)
    model = nn.Sequential(nn.Linear(3, 4), layer)
    groups = make_optimiser(model, Training(dynamics_rate=0.5, weight_decay=0.1)).param_groups
    dynamics, vectors, matrices = groups
    own = {id(getattr(layer, name)) for name in layer.dynamics}
    assert {id(p) for p in dynamics["params"]} == own
    assert (dynamics["lr"], dynamics["weight_decay"]) == (0.5, 0)
    assert vectors["weight_decay"] == 0
    assert matrices["weight_decay"] == 0.1
    assert all(p.dim() >= 2 for p in matrices["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_the_rate_warms_up_and_ends_at_zero():
    optimiser = make_optimiser(nn.Linear(2, 2), Training(learning_rate=1.0))
    rates = []
    for step in range(100):
        set_rate(optimiser, step, 100)
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.001


def test_every_group_follows_the_schedule_at_its_own_rate():
    optimiser = make_optimiser(
        nn.Sequential(S4D(4, d_state=4), nn.Linear(4, 4)),
        Training(learning_rate=1.0, dynamics_rate=0.25),
    )
    set_rate(optimiser, 9, 1000)  # a fifth of the way through the warm-up of 50 steps
    assert [group["lr"] for group in optimiser.param_groups] == [0.05, 0.2, 0.2]
