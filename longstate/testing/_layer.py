"""The layer contract as assertions, in float64.

It is stricter than the guarantees of common libraries: it includes chunked prefill, padding on both
sides and gradients through a carried state.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from longstate.layers._base import Layer, State
from longstate.testing import _edges as edges
from longstate.testing import _gaps as gaps
from longstate.testing._states import annotations_unchecked, close, random_state, refuses

_BATCH, _TIME = 3, 21


def check_layer(
    make: Callable[[], Layer], *, takes_dt: bool = True, compiles: bool = True, time: int = _TIME
) -> None:
    """Assert that a layer keeps the contract of `longstate.layers.Layer`.

    Args:
        make: builds the layer; called several times. Its parameters may be random.
        takes_dt: whether the layer accepts irregular time. One that does not must raise a
            ValueError when `dt` is given.
        compiles: whether `torch.compile(layer, fullgraph=True)` is promised.
        time: length of the test sequences, at least 8.

    Raises:
        AssertionError: names the clause that does not hold.
    """
    torch.manual_seed(0)
    layer = make().double().eval()
    u = torch.randn(_BATCH, time, layer.d_model, dtype=torch.float64)
    clauses: list[Callable[[Layer, Tensor], None]] = [
        _same_structure, _step_is_forward, _chunks_are_whole, _gradients_carry, _keeps_its_input,
        _causal, _batch_invariant, gaps.mask_removes, gaps.packed_is_separate,
        gaps.all_masked_is_nothing, _finite_gradients, _refuses_wrong_input, _narrow_input,
        _no_grad, edges.rate_is_dt, edges.refuses_wrong_state, edges.no_rows,
    ]  # fmt: skip
    if not layer.grows:
        clauses.append(_holds_no_sequence)
    clauses.append(gaps.irregular if takes_dt else gaps.refuses_dt)
    for clause in clauses:
        _run(clause, layer, u)
    _run(lambda layer, u: _state_dict_round_trip(make, layer, u), layer, u)
    if compiles:
        _run(_compiles, layer, u)


def _run(clause: Callable[[Layer, Tensor], None], layer: Layer, u: Tensor) -> None:
    torch.manual_seed(1)
    try:
        clause(layer, u)
    except AssertionError as error:
        name = getattr(clause, "__name__", "clause").strip("_").replace("_", " ")
        raise AssertionError(f"{type(layer).__name__}: {name}: {error}") from error


def _same_structure(layer: Layer, u: Tensor) -> None:
    def kinds(state: State) -> State:
        free = slice(1, 2) if layer.grows else slice(0, 0)

        def kind(s: Tensor) -> tuple:
            shape = list(s.shape)
            shape[free] = []
            return tuple(shape), s.dtype

        return tree_map(kind, state)

    fresh = layer.init_state(len(u))
    y, state = layer(u)
    assert y.shape == u.shape, f"y has shape {tuple(y.shape)}"
    assert y.dtype == u.dtype, f"y has type {y.dtype}"
    assert kinds(state) == kinds(fresh), "a pass changes the structure of the state"
    y, stepped = layer.step(u[:, 0], state)
    assert y.shape == u[:, 0].shape, f"step returns {tuple(y.shape)}"
    assert kinds(stepped) == kinds(fresh), "a step changes the structure of the state"
    close(layer(u, fresh), layer(u), "init_state is what None means")


def _step_is_forward(layer: Layer, u: Tensor) -> None:
    state = first = random_state(layer, len(u))
    outputs = []
    for t in range(u.shape[1]):
        y, state = layer.step(u[:, t], state)
        outputs.append(y)
    close((torch.stack(outputs, 1), state), layer(u, first), "steps against one pass")


def _chunks_are_whole(layer: Layer, u: Tensor) -> None:
    first = random_state(layer, len(u))
    whole = layer(u, first)
    for cuts in ([1], [u.shape[1] - 1], [u.shape[1] // 2], [2, 3, 7]):
        close(_in_pieces(layer, u, first, cuts), whole, f"pieces cut at {cuts}")


def _in_pieces(layer: Layer, u: Tensor, state: State, cuts: list[int]) -> tuple[Tensor, State]:
    outputs = []
    for piece in u.tensor_split(cuts, dim=1):
        y, state = layer(piece, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _gradients_carry(layer: Layer, u: Tensor) -> None:
    first = tree_map(lambda s: s.requires_grad_(), random_state(layer, len(u)))
    weight = torch.randn_like(u)

    def gradients(result: tuple[Tensor, State], u: Tensor) -> list[Tensor | None]:
        y, state = result
        loss = (y * weight).sum() + sum(s.abs().square().sum() for s in tree_leaves(state))
        wanted = [u, *layer.parameters(), *tree_leaves(first)]
        return list(torch.autograd.grad(loss, wanted, allow_unused=True))

    u = u.clone().requires_grad_()
    whole = gradients(layer(u, first), u)
    pieces = gradients(_in_pieces(layer, u, first, [2, 9]), u)
    names = ["u", *dict(layer.named_parameters()), *(f"state {i}" for i in range(99))]
    for name, a, b in zip(names, pieces, whole, strict=False):
        assert (a is None) == (b is None), f"gradient of {name} is lost between pieces"
        if a is not None:
            close(a, b, f"gradient of {name} through a carried state")


def _keeps_its_input(layer: Layer, u: Tensor) -> None:
    state, reset = random_state(layer, len(u)), torch.rand(u.shape[:2]) < 0.2
    before = tree_map(Tensor.clone, (u, state))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            layer(u, state, reset=reset)
            layer.step(u[:, 0], state)
            layer.step(u[:, 0], state, reset=reset[:, 0])
    for now, then in zip(tree_leaves((u, state)), tree_leaves(before), strict=True):
        assert torch.equal(now, then), "a call changes the input or the state that it was given"


def _causal(layer: Layer, u: Tensor) -> None:
    cut = u.shape[1] // 2
    changed = u.clone()
    changed[:, cut:] = torch.randn_like(changed[:, cut:])
    past, other = layer(u)[0][:, :cut], layer(changed)[0][:, :cut]
    assert torch.equal(past, other), "the future changes the past"


def _batch_invariant(layer: Layer, u: Tensor) -> None:
    first = random_state(layer, len(u))
    alone = layer(u[1:2], tree_map(lambda s: s[1:2], first))
    together = tree_map(lambda x: x[1:2], layer(u, first))
    close(alone, together, "one sequence alone against the same in a batch")


def _finite_gradients(layer: Layer, u: Tensor) -> None:
    u = u.clone().requires_grad_()
    mask = torch.rand(u.shape[:2]) < 0.8
    reset = torch.rand(u.shape[:2]) < 0.1
    hostile = torch.where(mask[..., None], u, torch.nan)
    calls = (layer(u), layer(hostile, mask=mask, reset=reset))
    for y, _ in calls:
        gradients = torch.autograd.grad(
            y.square().sum(), [u, *layer.parameters()], allow_unused=True
        )
        for gradient in gradients:
            assert gradient is None or gradient.isfinite().all(), "a gradient is not finite"


def _refuses_wrong_input(layer: Layer, u: Tensor) -> None:
    b, t, d = u.shape
    wrong = {
        "channels": lambda: layer(torch.zeros(b, t, d + 1, dtype=u.dtype)),
        "rank": lambda: layer(u[0]),
        "no samples": lambda: layer(u[:, :0]),
        "integers": lambda: layer(torch.zeros(b, t, d, dtype=torch.long)),
        "mask shape": lambda: layer(u, mask=torch.ones(b, t + 1, dtype=torch.bool)),
        "mask type": lambda: layer(u, mask=torch.ones(b, t)),
        "reset shape": lambda: layer(u, reset=torch.ones(b + 1, t, dtype=torch.bool)),
        "state of another batch": lambda: layer(u, layer.init_state(b + 1)),
        "channels of a step": lambda: layer.step(u[:, 0, :1], layer.init_state(b)),
        "rank of a step": lambda: layer.step(u, layer.init_state(b)),
        "batch of a step's state": lambda: layer.step(u[:, 0], layer.init_state(b + 1)),
    }
    for name, call in wrong.items():
        assert refuses(call), f"no ValueError for wrong {name}"


def _narrow_input(layer: Layer, u: Tensor) -> None:
    narrow = copy.deepcopy(layer).float()
    y, state = narrow(u.bfloat16())
    assert y.dtype == torch.bfloat16, f"bfloat16 comes back as {y.dtype}"
    for leaf in tree_leaves(state):
        assert torch.finfo(leaf.dtype).bits >= 32, f"state in {leaf.dtype}"
    assert y.isfinite().all(), "not finite in bfloat16"


def _no_grad(layer: Layer, u: Tensor) -> None:
    expected = tree_map(Tensor.detach, layer(u))
    with torch.no_grad():
        close(layer(u), expected, "under no_grad")
    with torch.inference_mode():
        actual = layer(u)
    close(tree_map(Tensor.clone, actual), expected, "under inference_mode")


def _holds_no_sequence(layer: Layer, u: Tensor) -> None:
    """A state that is a view of the last sample keeps all the others in memory."""
    mask = torch.rand(u.shape[:2]) < 0.8

    def held(n: int, mask: Tensor | None) -> int:
        with torch.no_grad():
            _, state = layer(u.repeat(1, n, 1), mask=None if mask is None else mask.repeat(1, n))
        return sum(leaf.untyped_storage().nbytes() for leaf in tree_leaves(state))

    for given in (None, mask):
        assert held(1, given) == held(4, given), "a state keeps the whole sequence in memory"


def _state_dict_round_trip(make: Callable[[], Layer], layer: Layer, u: Tensor) -> None:
    other = make().double().eval()
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert torch.equal(other(u)[0], layer(u)[0]), "state_dict does not hold the whole layer"


def _compiles(layer: nn.Module, u: Tensor) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with annotations_unchecked():
        close(compiled(u), layer(u), "compiled against eager")
