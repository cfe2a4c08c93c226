"""A sequence cut along time over processes is the whole sequence in one process, in float64."""

import copy

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves, tree_map

from longstate.errors import InputError
from longstate.layers import GRU, S4, S4D, S5, SMR, Attention, LinOSS, Mamba
from longstate.models import LanguageModel, LanguageSpec, Stack
from longstate.parallel import shard_time, sum_gradients
from tests.layers.test_contract import LAYERS, NO_DT
from tests.parallel.ranks import on_ranks

ROWS, TIME = 3, 37
CUTS = {2: (9, 28), 4: (1, 17, 6, 13)}
MORE = {
    "s4-both": lambda: S4(3, d_state=6, bidirectional=True),
    "s4d-both": lambda: S4D(3, d_state=6, bidirectional=True),
    "s5-both": lambda: S5(5, d_state=8, bidirectional=True),
    "smr-gru": lambda: SMR(GRU(5, d_state=7)),
    "smr-attention": lambda: SMR(Attention(4, n_heads=1)),
    "hybrid": lambda: Stack(
        [Mamba(6, d_state=3), S4D(6, d_state=4), Attention(6, n_heads=1), LinOSS(6, d_state=4)]
    ),
}
NAMES = {
    2: ("s4-legs", "mamba", "attention", "s5-both", "hybrid"),
    4: (
        "s4-legt", "s4d-lin", "s4d-real", "s4d-bilinear", "dss-softmax", "s5-zoh", "s5-bilinear",
        "linoss-im", "linoss-imex", "hope", "convs5", "mamba-two-taps", "mamba-limits",
        "falcon-mamba-columns", "longhorn-columns", "longhorn-exact", "mamba2-groups",
        "mamba3-rational", "mamba3-projected", "smr-mamba", "smr-gru", "smr-attention",
        "timed-cosine", "linear-rnn", "lstm", "gated-ssm-hard", "linear-cde-diagonal-start",
        "attention", "attention-window", "attention-window-of-one", "s4-both", "s4d-both", "hybrid",
    ),
}  # fmt: skip


def flags():
    """Samples that are skipped, and beginnings of packed sequences: in some pieces, none in others.

    Row 0 has no reset, row 1 has one in the first piece, row 2 several.
    """
    generator = torch.Generator().manual_seed(5)
    mask = torch.rand(ROWS, TIME, generator=generator) > 0.3
    mask[1, 18:24] = False  # a whole piece of four
    reset = torch.zeros(ROWS, TIME, dtype=torch.bool)
    reset[1, 0] = reset[2, 12] = reset[2, 13] = reset[2, 30] = True
    return mask, reset


def calls(name):
    mask, reset = flags()
    if name in ("hybrid", "attention", "s4-legs"):
        yield {}
    yield {"mask": mask, "reset": reset}
    if name not in {*NO_DT, *MORE} - {"s5-both"}:
        dt = torch.rand(ROWS, TIME, generator=torch.Generator().manual_seed(6)).double() + 0.2
        yield {"dt": dt, "mask": mask[:1].expand(ROWS, -1), "rate": 1.5}


def weighted(tensors, seed):
    """A sum of the tensors' entries with random weights, that of y by `weight`."""
    total = torch.zeros((), dtype=torch.float64)
    for at, x in enumerate(tree_leaves(tensors)):
        real = torch.view_as_real(x) if x.is_complex() else x
        weight = torch.randn(real.shape, generator=torch.Generator().manual_seed(seed + at))
        total = total + (real * weight.double()).sum()
    return total


def beginning(layer):
    """A state that is not zero, with gradients."""
    with torch.no_grad():
        state = layer(torch.randn(ROWS, 4, layer.d_model).double())[1]
    return tree_map(lambda s: s.clone().requires_grad_(), state)


def same_as_whole(rank, size, make, options, mesh):
    torch.manual_seed(0)
    whole = make().double()
    sharded = shard_time(copy.deepcopy(whole), mesh, micro_batches=2)
    u = torch.randn(ROWS, TIME, whole.d_model).double()
    weight = torch.randn(ROWS, TIME, whole.d_model).double()
    at = slice(sum(CUTS[size][:rank]), sum(CUTS[size][: rank + 1]))
    piece = u[:, at].clone().requires_grad_()
    mine = {k: v[:, at] if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    u.requires_grad_()
    before = beginning(whole)
    given = tree_map(lambda s: s.detach().clone().requires_grad_(), before)

    y, last = whole(u, before, **options)
    ((y * weight).sum() + weighted(last, 7)).backward()
    got, after = sharded(piece, given, **mine)
    loss = (got * weight[:, at]).sum()
    if rank == size - 1:
        loss = loss + weighted(after, 7)
        assert_close(after, last)
    loss.backward()
    sum_gradients(sharded, mesh)

    assert_close(got, y[:, at])
    assert_close(piece.grad, u.grad[:, at])
    if rank == 0:
        for mine, expected in zip(tree_leaves(given), tree_leaves(before), strict=True):
            assert_close(mine.grad, expected.grad)
    for (name, p), q in zip(whole.named_parameters(), sharded.parameters(), strict=True):
        expected = torch.zeros_like(p) if p.grad is None else p.grad
        assert_close(q.grad, expected, msg=lambda text, name=name: f"gradient of {name}: {text}")


def each_layer(rank, size):
    mesh = init_device_mesh("cpu", (size,))
    for name in NAMES[size]:
        for options in calls(name):
            try:
                same_as_whole(rank, size, {**LAYERS, **MORE}[name], options, mesh)
            except Exception as e:
                given = ", ".join(options) or "no options"
                raise AssertionError(f"{name} with {given}, rank {rank} of {size}: {e}") from e


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_pieces_on_ranks_are_the_whole(size):
    on_ranks(size, each_layer)


def test_what_cannot_be_sharded_is_refused(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1
    )
    try:
        mesh = init_device_mesh("cpu", (1,))
        with pytest.raises(InputError, match="Linear has no layer that mixes along time"):
            shard_time(torch.nn.Linear(2, 2), mesh)
        with pytest.raises(InputError, match="micro_batches must be at least 1; got 0"):
            shard_time(S4D(2), mesh, micro_batches=0)
        with pytest.raises(InputError, match="a model with segment= cannot be sharded"):
            shard_time(Stack([S4D(2)], segment=4), mesh)
        with pytest.raises(InputError, match="the mesh must have one axis, that of time; got 2"):
            shard_time(S4D(2), init_device_mesh("cpu", (1, 1)))
        model = LanguageModel(LanguageSpec(vocab_size=11, d_model=4, layers=("s4d", "mamba")))
        before = list(model.state_dict())
        tokens = torch.arange(8).view(1, 8)
        expected = model(tokens)
        assert_close(shard_time(model, mesh)(tokens), expected)
        assert list(model.state_dict()) == before
        other = copy.deepcopy(model)
        torch.nn.init.zeros_(other.blocks[0].mixer.D)
        assert not torch.equal(other(tokens)[0], expected[0])  # a copy has its own weights
        with pytest.raises(InputError, match="this S4D is sharded along time already"):
            shard_time(model, mesh)
    finally:
        torch.distributed.destroy_process_group()
