"""LinearCDE: its equation, groups, and paths."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from longstate.layers import LinearCDE

VARIANTS = [{"variant": "dense"}, {"variant": "block", "block": 3}, {"variant": "diagonal"}]


def made(**options) -> LinearCDE:
    torch.manual_seed(0)
    return LinearCDE(3, d_state=6, **options).double()


def dense(layer: LinearCDE) -> Tensor:
    """The matrices A_i (i, n, n)."""
    return torch.stack([torch.block_diag(*blocks) for blocks in layer.A.detach()])


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: o["variant"])
def test_a_solver_of_differential_equations_finds_the_same_states(options):
    layer = made(**options)
    A, B = dense(layer).numpy(), layer.B.detach().numpy()
    u, dt = torch.randn(1, 7, 3).double(), torch.rand(1, 7).double() + 0.2
    z = np.zeros(6)
    for t in range(7):
        slope = np.concatenate([[1.0], u[0, t].numpy()])
        M = np.einsum("i,ikl->kl", slope, A)
        span = (0, float(dt[0, t]))
        z = solve_ivp(lambda _, z, M=M, s=slope: M @ z + B @ s, span, z, rtol=1e-12, atol=1e-14).y
        z = z[:, -1]
    _, state = layer(u, dt=dt)
    torch.testing.assert_close(state["z"][0], torch.from_numpy(z))


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: o["variant"])
def test_a_step_may_be_split_and_a_pause_changes_nothing(options):
    layer = made(**options)
    u = torch.randn(2, 5, 3).double()
    _, whole = layer(u)
    halves = u.repeat_interleave(2, 1)
    _, split = layer(halves, dt=torch.full((2, 10), 0.5).double())
    torch.testing.assert_close(split["z"], whole["z"])
    with_pause = torch.cat([u, torch.randn(2, 1, 3).double()], 1)
    dt = torch.ones(2, 6).double()
    dt[:, -1] = 0
    _, paused = layer(with_pause, dt=dt)
    torch.testing.assert_close(paused["z"], whole["z"])


def test_chen_the_matrix_of_a_path_is_the_product_of_those_of_its_parts():
    layer = made()
    layer.B.data.zero_()
    u = torch.randn(1, 9, 3).double()

    def flow(path: Tensor) -> Tensor:
        start = torch.eye(6).double()
        _, state = layer(path.expand(6, -1, -1), {"z": start})
        return state["z"].mT

    torch.testing.assert_close(flow(u), flow(u[:, 4:]) @ flow(u[:, :4]))
    # and of a path that goes back the way it came, nothing is left
    layer.A.data[0].zero_()
    there_and_back = torch.cat([u, -u.flip(1)], 1)
    torch.testing.assert_close(flow(there_and_back), torch.eye(6).double())


def _log(p: tuple[int, ...]) -> Tensor:
    """A real logarithm of an even permutation's matrix, from its cycles."""
    log, pairs, seen = torch.zeros(5, 5).double(), [], set()
    for i in range(5):
        cycle = [i]
        while p[cycle[-1]] != i:
            cycle.append(p[cycle[-1]])
        m = len(cycle)
        if i in seen or m == 1:
            continue
        seen |= set(cycle)
        if m == 2:
            v = torch.zeros(5).double()
            v[cycle[0]], v[cycle[1]] = 0.5**0.5, -(0.5**0.5)
            pairs.append(v)
            continue
        for f in range(1, (m + 1) // 2):  # a rotation by 2 pi f / m in the plane of frequency f
            angles = [2 * math.pi * f * j / m for j in range(m)]
            c, s = torch.zeros(5).double(), torch.zeros(5).double()
            for place, angle in zip(cycle, angles, strict=True):
                c[place], s[place] = math.cos(angle), math.sin(angle)
            c, s = c * (2 / m) ** 0.5, s * (2 / m) ** 0.5
            log += 2 * math.pi * f / m * (torch.outer(s, c) - torch.outer(c, s))
    if pairs:
        log += math.pi * (torch.outer(pairs[0], pairs[1]) - torch.outer(pairs[1], pairs[0]))
    return log


def _even(p: tuple[int, ...]) -> bool:
    return sum(p[i] > p[j] for i, j in itertools.combinations(range(5), 2)) % 2 == 0


@pytest.mark.parametrize("stable", [False, True])
def test_one_dense_layer_multiplies_500_even_permutations_exactly(stable):
    group = [p for p in itertools.permutations(range(5)) if _even(p)]
    layer = LinearCDE(60, d_state=5, stable=stable).double()
    layer.A.data = torch.stack([torch.zeros(5, 5).double(), *map(_log, group)])[:, None]
    layer.B.data.zero_()
    words = torch.from_numpy(np.random.default_rng(0).integers(0, 60, 500))
    u = torch.nn.functional.one_hot(words, 60).double()[None]
    _, state = layer(u, {"z": torch.arange(5.0).double()[None]})
    things = list(range(5))
    for w in words.tolist():  # what was at place j goes to place p(j)
        moved = [0] * 5
        for j in range(5):
            moved[group[w][j]] = things[j]
        things = moved
    assert state["z"][0].round().long().tolist() == things
    torch.testing.assert_close(state["z"][0], torch.tensor(things).double())


def test_diagonal_matrices_commute_so_the_order_of_the_inputs_is_lost():
    u = torch.randn(1, 6, 3).double()
    start = {"z": torch.randn(1, 6).double()}
    for variant, same in (("diagonal", True), ("dense", False)):
        layer = made(variant=variant)
        layer.B.data.zero_()
        _, one = layer(u, start)
        _, two = layer(u.flip(1), start)
        assert torch.allclose(one["z"], two["z"]) == same


def test_the_state_neither_grows_nor_vanishes_at_first():
    layer = made()
    layer.B.data.zero_()
    start = torch.randn(1, 6).double()
    _, state = layer(torch.randn(1, 20, 3).double(), {"z": start})
    lost = state["z"].norm() / start.norm()
    assert math.exp(-20 * 0.1) < lost < 1


def test_options_are_checked():
    with pytest.raises(ValueError, match="variant must be one of dense, block, diagonal"):
        LinearCDE(3, variant="full")
    with pytest.raises(ValueError, match="a multiple of block; got 6 and 4"):
        LinearCDE(3, d_state=6, variant="block")
    with pytest.raises(ValueError, match="decay_min and decay_max must be in order"):
        LinearCDE(3, decay_min=0)


@pytest.mark.parametrize("variant", ["dense", "diagonal"])
def test_a_learned_start_is_where_sequences_begin_and_it_learns(variant):
    layer = made(variant=variant, start="learned")
    u = torch.randn(2, 5, 3).double()
    first = layer.start.detach().expand(2, -1).clone().requires_grad_()
    y, state = layer(u)
    given, after = layer(u, {"z": first})
    torch.testing.assert_close(y, given, rtol=0, atol=0)
    torch.testing.assert_close(state["z"], after["z"], rtol=0, atol=0)
    reset = torch.zeros(2, 5, dtype=torch.bool)
    reset[:, 2] = True
    torch.testing.assert_close(layer(u, reset=reset)[0][:, 2:], layer(u[:, 2:])[0])
    (learned,) = torch.autograd.grad(y.sum(), layer.start)
    (of_state,) = torch.autograd.grad(given.sum(), first)
    torch.testing.assert_close(learned, of_state.sum(0))
    assert bool((learned != 0).any())


def test_the_start_is_zero_or_learned():
    assert LinearCDE(3).start is None
    with pytest.raises(ValueError, match=r"start must be 'zero' or 'learned'; got 'random'"):
        LinearCDE(3, start="random")


@pytest.mark.parametrize("options", VARIANTS[:2], ids=lambda o: o["variant"])
def test_a_stable_layer_never_lengthens_a_state(options):
    layer = made(**options, stable=True)
    with torch.no_grad():
        layer.A.copy_(torch.randn_like(layer.A))  # any parameters, not the first ones
        layer.B.zero_()
    u, dt = 5 * torch.randn(4, 40, 3).double(), torch.rand(4, 40).double()
    z = {"z": torch.randn(4, 6).double()}
    lengths = [z["z"].norm(dim=1)]
    for t in range(40):
        _, z = layer(u[:, t : t + 1], z, dt=dt[:, t : t + 1])
        lengths.append(z["z"].norm(dim=1))
    longer = torch.stack(lengths).diff(dim=0)
    assert bool((longer < 0).all())
    free = made(**options)
    free.load_state_dict(layer.state_dict())
    _, grown = free(u, {"z": torch.randn(4, 6).double()}, dt=dt)
    assert bool((grown["z"].norm(dim=1) > 1e3).any())


def test_a_stable_layer_begins_as_one_that_is_not():
    u = torch.randn(2, 9, 3).double()
    torch.testing.assert_close(made(stable=True)(u)[0], made()(u)[0])


def test_a_stable_layer_needs_matrices_that_rotate():
    with pytest.raises(ValueError, match=r"variant 'diagonal' with blocks of 1"):
        LinearCDE(3, variant="diagonal", stable=True)
