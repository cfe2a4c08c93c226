"""Public checks for people who write layers and kernels.

`check_layer` is the layer contract as assertions, in float64. It is stricter than what the
libraries in use promise: chunked prefill, padding on either side and gradients through a carried
state are part of it.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves, tree_map

from longstate.layers.base import Layer, State

_BATCH, _TIME = 3, 21


def check_layer(
    make: Callable[[], Layer], *, takes_dt: bool = True, compiles: bool = True, time: int = _TIME
) -> None:
    """Assert that a layer keeps the contract of `longstate.layers.Layer`.

    Args:
        make: builds the layer; called a few times. Its parameters may be random.
        takes_dt: whether the layer accepts irregular time. One that does not must raise a
            ValueError when `dt` is given.
        compiles: whether `torch.compile(layer, fullgraph=True)` is promised.
        time: length of the test sequences, at least 8.

    Raises:
        AssertionError: naming the clause that does not hold.
    """
    torch.manual_seed(0)
    layer = make().double().eval()
    u = torch.randn(_BATCH, time, layer.d_model, dtype=torch.float64)
    clauses: list[Callable[[Layer, Tensor], None]] = [
        _same_structure, _step_is_forward, _chunks_are_whole, _gradients_carry, _causal,
        _batch_invariant, _mask_removes, _packed_is_separate, _all_masked_is_nothing,
        _finite_gradients, _refuses_wrong_input, _narrow_input, _no_grad,
    ]  # fmt: skip
    clauses.append(_irregular if takes_dt else _refuses_dt)
    for clause in clauses:
        _run(clause, layer, u)
    _run(lambda layer, u: _state_dict_round_trip(make, layer, u), layer, u)
    if compiles:
        _run(_compiles, layer, u)


def assert_within_reference_error(actual: Tensor, exact: Tensor, plain: Tensor) -> None:
    """Assert that fast code in reduced precision is about as good as plain PyTorch.

    The largest error of `actual` may be twice the largest error of `plain`, plus one rounding of
    the largest value. No tolerance is picked by hand: the reference sets it.

    Args:
        actual: what the fast code gave, in reduced precision.
        exact: the reference's result in float64 or complex128, from the same inputs.
        plain: the reference's result in the dtype of `actual`.

    Raises:
        AssertionError: a dtype or shape differs, a value is not finite, or the error is larger.
    """
    if actual.dtype != plain.dtype:
        raise AssertionError(f"dtype is {actual.dtype}, the plain reference gives {plain.dtype}")
    if not actual.shape == exact.shape == plain.shape:
        shapes = f"{tuple(actual.shape)}, {tuple(exact.shape)}, {tuple(plain.shape)}"
        raise AssertionError(f"shapes of actual, exact and plain differ: {shapes}")
    if actual.numel() == 0:
        return
    if not torch.isfinite(actual).all():
        raise AssertionError("values are not all finite")
    error = (actual.to(exact.dtype) - exact).abs().max().item()
    reference_error = (plain.to(exact.dtype) - exact).abs().max().item()
    rounding = torch.finfo(actual.dtype).eps * exact.abs().max().item()
    if not error <= 2 * reference_error + rounding:
        raise AssertionError(
            f"error {error:.3g} exceeds twice the plain reference's {reference_error:.3g} "
            f"plus one rounding {rounding:.3g}"
        )


def _run(clause: Callable[[Layer, Tensor], None], layer: Layer, u: Tensor) -> None:
    torch.manual_seed(1)
    try:
        clause(layer, u)
    except AssertionError as error:
        name = getattr(clause, "__name__", "clause").strip("_").replace("_", " ")
        raise AssertionError(f"{type(layer).__name__}: {name}: {error}") from error


def _close(actual: State, expected: State, what: str) -> None:
    assert_close(actual, expected, msg=lambda text: f"{what}: {text}")


def _random_state(layer: Layer, batch: int) -> State:
    """A state that could have been reached: the layer has seen something."""
    u = torch.randn(batch, 5, layer.d_model, dtype=torch.float64)
    return tree_map(Tensor.detach, layer(u)[1])


def _same_structure(layer: Layer, u: Tensor) -> None:
    def kinds(state: State) -> list:
        return tree_map(lambda s: (tuple(s.shape), s.dtype), state)

    fresh = layer.init_state(len(u))
    y, state = layer(u)
    assert y.shape == u.shape, f"y has shape {tuple(y.shape)}"
    assert y.dtype == u.dtype, f"y has type {y.dtype}"
    assert kinds(state) == kinds(fresh), "a pass changes the structure of the state"
    y, stepped = layer.step(u[:, 0], state)
    assert y.shape == u[:, 0].shape, f"step returns {tuple(y.shape)}"
    assert kinds(stepped) == kinds(fresh), "a step changes the structure of the state"
    _close(layer(u, fresh), layer(u), "init_state is what None means")


def _step_is_forward(layer: Layer, u: Tensor) -> None:
    state = first = _random_state(layer, len(u))
    outputs = []
    for t in range(u.shape[1]):
        y, state = layer.step(u[:, t], state)
        outputs.append(y)
    _close((torch.stack(outputs, 1), state), layer(u, first), "steps against one pass")


def _chunks_are_whole(layer: Layer, u: Tensor) -> None:
    first = _random_state(layer, len(u))
    whole = layer(u, first)
    for cuts in ([1], [u.shape[1] - 1], [u.shape[1] // 2], [2, 3, 7]):
        _close(_in_pieces(layer, u, first, cuts), whole, f"pieces cut at {cuts}")


def _in_pieces(layer: Layer, u: Tensor, state: State, cuts: list[int]) -> tuple[Tensor, State]:
    outputs = []
    for piece in u.tensor_split(cuts, dim=1):
        y, state = layer(piece, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _gradients_carry(layer: Layer, u: Tensor) -> None:
    first = tree_map(lambda s: s.requires_grad_(), _random_state(layer, len(u)))
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
            _close(a, b, f"gradient of {name} through a carried state")


def _causal(layer: Layer, u: Tensor) -> None:
    cut = u.shape[1] // 2
    changed = u.clone()
    changed[:, cut:] = torch.randn_like(changed[:, cut:])
    past, other = layer(u)[0][:, :cut], layer(changed)[0][:, :cut]
    assert torch.equal(past, other), "the future changes the past"


def _batch_invariant(layer: Layer, u: Tensor) -> None:
    first = _random_state(layer, len(u))
    alone = layer(u[1:2], tree_map(lambda s: s[1:2], first))
    together = tree_map(lambda x: x[1:2], layer(u, first))
    _close(alone, together, "one sequence alone against the same in a batch")


def _masks(time: int) -> dict[str, Tensor]:
    index = torch.arange(time)
    scattered = torch.rand(time, generator=torch.Generator().manual_seed(3)) < 0.6
    return {
        "left": index >= 5,
        "right": index < time - 6,
        "middle": (index < 4) | (index > 9),
        "scattered": scattered,
        "one sample": index == 3,
    }


def _mask_removes(layer: Layer, u: Tensor) -> None:
    first = _random_state(layer, len(u))
    masks = _masks(u.shape[1])
    # Every row its own padding, then compared row by row with the sequence without it.
    for names in (list(masks)[:3], list(masks)[2:]):
        mask = torch.stack([masks[name] for name in names])
        hostile = torch.where(mask[..., None], u, torch.nan)
        y, state = layer(hostile, first, mask=mask)
        assert not y[~mask].any(), "y is not 0 at masked samples"
        for row, name in enumerate(names):
            alone, after = layer(
                u[row : row + 1, mask[row]], tree_map(lambda s, r=row: s[r : r + 1], first)
            )
            _close(y[row : row + 1, mask[row]], alone, f"outputs with {name} masked")
            kept = tree_map(lambda s, r=row: s[r : r + 1], state)
            _close(kept, after, f"state with {name} masked")
    y, state = u.new_zeros(u.shape), first
    for t in range(u.shape[1]):
        y[:, t], state = layer.step(u[:, t], state, mask=mask[:, t])
    _close((y, state), layer(u, first, mask=mask), "masked steps against one masked pass")


def _packed_is_separate(layer: Layer, u: Tensor) -> None:
    first = _random_state(layer, len(u))
    cuts = [[4, 5, 13], [7], [0, u.shape[1] - 1]]
    reset = torch.zeros(u.shape[:2], dtype=torch.bool)
    for row, at in enumerate(cuts):
        reset[row, at] = True
    y, state = layer(u, first, reset=reset)
    for row, at in enumerate(cuts):
        carried = tree_map(lambda s, r=row: s[r : r + 1], first)
        outputs = []
        for i, piece in enumerate(u[row : row + 1].tensor_split(at, dim=1)):
            if piece.shape[1]:
                out, carried = layer(piece, carried if i == 0 else None)
                outputs.append(out)
        _close(y[row : row + 1], torch.cat(outputs, dim=1), f"packed at {at}")
        kept = tree_map(lambda s, r=row: s[r : r + 1], state)
        _close(kept, carried, f"state after packing at {at}")
    _packed_and_masked(layer, u, first, reset)


def _packed_and_masked(layer: Layer, u: Tensor, first: State, reset: Tensor) -> None:
    mask = torch.rand(u.shape[:2]) < 0.7
    mask[1, 7] = False  # a reset holds even where its own sample is masked
    state = first
    y = u.new_zeros(u.shape)
    for t in range(u.shape[1]):
        y[:, t], state = layer.step(u[:, t], state, mask=mask[:, t], reset=reset[:, t])
    _close(layer(u, first, mask=mask, reset=reset), (y, state), "packed and masked")


def _all_masked_is_nothing(layer: Layer, u: Tensor) -> None:
    first = _random_state(layer, len(u))
    mask = torch.ones(u.shape[:2], dtype=torch.bool)
    mask[1] = False
    _, state = layer(u, first, mask=mask)
    _close(
        tree_map(lambda s: s[1], state), tree_map(lambda s: s[1], first), "a row without samples"
    )


def _finite_gradients(layer: Layer, u: Tensor) -> None:
    u = u.clone().requires_grad_()
    mask = torch.rand(u.shape[:2]) < 0.8
    reset = torch.rand(u.shape[:2]) < 0.1
    hostile = torch.where(mask[..., None], u, torch.nan)
    for x, flags in ((u, {}), (hostile, {"mask": mask, "reset": reset})):
        y, _ = layer(x, **flags)
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
    }
    for name, call in wrong.items():
        try:
            call()
        except ValueError:
            continue
        raise AssertionError(f"no ValueError for wrong {name}")


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
        _close(layer(u), expected, "under no_grad")
    with torch.inference_mode():
        actual = layer(u)
    _close(tree_map(Tensor.clone, actual), expected, "under inference_mode")


def _irregular(layer: Layer, u: Tensor) -> None:
    first = _random_state(layer, len(u))
    ones = torch.ones(u.shape[:2], dtype=u.dtype)
    _close(layer(u, first, dt=ones), layer(u, first), "dt = 1 is regular time")
    dt = torch.rand(u.shape[:2], dtype=u.dtype) * 3
    dt[:, 4] = 0
    whole = layer(u, first, dt=dt)
    state, outputs = first, []
    for t in range(u.shape[1]):
        y, state = layer.step(u[:, t], state, dt=dt[:, t])
        outputs.append(y)
    _close((torch.stack(outputs, 1), state), whole, "irregular steps against one pass")
    mask = torch.rand(u.shape[:2]) < 0.7
    y, _ = layer(u, first, dt=dt, mask=mask)
    row = mask[0]
    alone, _ = layer(u[:1, row], tree_map(lambda s: s[:1], first), dt=dt[:1, row])
    _close(y[:1, row], alone, "irregular and masked")
    for bad in (dt[:, :-1], -dt, dt / 0):
        try:
            layer(u, dt=bad)
        except ValueError:
            continue
        raise AssertionError("no ValueError for a dt of wrong shape, sign or size")


def _refuses_dt(layer: Layer, u: Tensor) -> None:
    try:
        layer(u, dt=torch.ones(u.shape[:2], dtype=u.dtype))
    except ValueError:
        return
    raise AssertionError("dt is neither used nor refused")


def _state_dict_round_trip(make: Callable[[], Layer], layer: Layer, u: Tensor) -> None:
    other = make().double().eval()
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert torch.equal(other(u)[0], layer(u)[0]), "state_dict does not hold the whole layer"


def _compiles(layer: nn.Module, u: Tensor) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    _close(compiled(u), layer(u), "compiled against eager")
