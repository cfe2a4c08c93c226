"""Certify bounds on the layers of a model for all inputs.

For every layer that mixes along time there are claims with up to three numbers: the value certified
for all inputs, the worst value that an attack on the layer found, and the worst value on data. They
must be in this order; otherwise the claim fails. A layer behind a norm is certified for all
possible outputs of the norm, and so for every text and all weights before it.

"All inputs" are values at regular samples (dt = 1, rate = 1) unless a range of dt is given: a
longer time between samples writes more into a state, and a time of 0 leaves it unchanged.

A model that has learned to hold a value has inputs that leave its state almost unchanged:
contraction and memory are opposite properties. The certificate states boundedness, guaranteed
non-expansion and the longest possible retention. It is not a safety margin.
"""

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.utils import parametrize

from longstate._numbers import number
from longstate.errors import InputError
from longstate.memory._certificate import Certificate, Claim
from longstate.memory._gate_claims import gate_claims
from longstate.memory._input_ball import ball_of
from longstate.memory._linear_claims import REGULAR, growth_of, linear_claims
from longstate.memory._recording import (
    Data,
    Found,
    Recorded,
    find_layers,
    others,
    record_inputs,
    widened,
)
from longstate.memory._selective_claims import selective_claims
from longstate.systems import GateSelection


def certify(
    model: nn.Module,
    data: Data | None = None,
    *,
    attack: bool = True,
    radius: float | None = None,
    dt: tuple[float, float] = (1.0, 1.0),
    progress: Callable[[str], None] | None = None,
) -> Certificate:
    """Certify every layer of a model.

    Args:
        model: a layer, a backbone or a model. Layers are found by their `system` or `selection`; in
            a block with `norm` and `mixer` the norm limits the input of the layer.
        data: one input of the model, for the third number: tokens (b, t), or u (b, t, d). Or a
            function without arguments that runs the model.
        attack: whether to search for bad inputs, for the second number.
        radius: largest length of one sample's input, for selective layers without a known norm.
        dt: shortest and longest time between two samples, times the `rate` of a call: 1 is the
            regular interval.
        progress: called with each layer's name before it is certified.

    Raises:
        InputError: no layer can be certified, a selective layer has neither a known norm nor a
            radius, the data exceeds the radius, dt is not a range, a weight is not finite, or a
            layer contains an adapter.
    """
    found = find_layers(model)
    _check(model, found, dt)
    seen = {} if data is None else record_inputs(model, data)
    claims: list[Claim] = []
    for f in found:
        if progress is not None:
            progress(f.name)
        _check_parts(f.name, f.layer)
        if hasattr(f.layer, "system"):
            claims += linear_claims(f.name, f.layer, dt)
        else:
            claims += _selective(f, seen.get(f.name), attack, radius, dt)
    claims = [c.checked() for c in claims]
    regular = dt == (1.0, 1.0)
    return Certificate(
        kind="certified",
        scope="all inputs at regular samples (dt = 1)"
        if regular
        else f"all inputs, dt between {dt[0]:g} and {dt[1]:g}",
        sentence=_sentence(claims, len(found)) + _left_out(others(model)),
        claims=tuple(claims),
    )


def _selective(
    f: Found,
    recorded: Recorded | None,
    attack: bool,
    radius: float | None,
    dt: tuple[float, float],
) -> list[Claim]:
    ball = ball_of(f, radius, None if recorded is None else recorded.normed)
    if recorded is not None and ball.radius == radius:
        longest = float(recorded.inputs.norm(dim=-1).max())
        if longest > radius * (1 + 1e-9):
            raise InputError(
                f"{f.name} got an input of length {number(longest)} on this data, longer than "
                f"radius={number(radius)}; pass one that holds"
            )
    wide = widened(f.layer)
    s = wide.selection()
    if isinstance(s, GateSelection):
        return gate_claims(f.name, wide, s, ball, recorded, attacked=attack, dt=dt)
    return selective_claims(f.name, f.layer, ball, recorded, attacked=attack, dt=dt)


def _left_out(names: list[str]) -> str:
    if not names:
        return ""
    return f" Not certified, because it has no system and no selection: {', '.join(names)}."


def _sentence(claims: list[Claim], count: int) -> str:
    """The result in words."""
    failed = [c for c in claims if c.holds is False]
    if failed:
        layers = len({c.layer for c in failed})
        return (
            f"{layers} of {count} layers fail a claim; first {failed[0].layer}: {failed[0].what}."
        )
    growth = float(growth_of(claims).amax()) if growth_of(claims).numel() else 1.0
    bare = _regular_only(claims)
    if growth <= 1:
        when = " at regular samples" if bare else ""
        said = f"No layer (of {count}) can expand a state (2-norm){when}, for any input."
    else:
        said = (
            f"Each layer (of {count}) finally forgets, or keeps a state that cannot expand; "
            f"before that a state may grow up to {number(growth)} times (2-norm)"
            + (" at regular samples." if bare else ".")
        )
    if bare:
        said += f" At other times between samples nothing is certified of {', '.join(bare)}."
    vacuous = [c for c in claims if c.note.startswith("no practical bound")]
    if vacuous:
        said += (
            f" {len(vacuous)} of {len(claims)} claims have no practical bound; first "
            f"{vacuous[0].layer}: {vacuous[0].what}."
        )
    return said


def _regular_only(claims: list[Claim]) -> list[str]:
    """Layers whose claims are about regular samples only, although a range of dt was asked for."""
    layers = dict.fromkeys(c.layer for c in claims)
    return [n for n in layers if all(c.what.endswith(REGULAR) for c in claims if c.layer == n)]


def _check(model: nn.Module, found: list[Found], dt: tuple[float, float]) -> None:
    if not found:
        raise InputError(_nothing(model))
    if not (len(dt) == 2 and 0 <= dt[0] <= dt[1] < math.inf):
        raise InputError(f"dt must be a shortest and a longest time, at least 0; got {dt!r}")
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor) and not bool(value.isfinite().all()):
            raise InputError(f"{name} holds NaN or infinity and cannot be certified")


def _home(kind: type, method: str) -> type:
    """The class that defines a method."""
    return next((c for c in kind.__mro__ if method in vars(c)), kind)


def _nothing(model: nn.Module) -> str:
    name = type(model).__name__
    if type(model).__module__.split(".")[0] in ("transformers", "mamba_ssm"):
        return (
            f"this {name} is a model of {type(model).__module__.split('.')[0]}, whose layers have "
            "no system() or selection(); save it with save_pretrained(folder) and certify "
            "longstate.interop.load_language_model(folder)"
        )
    inside = others(model)
    return (
        f"nothing in this {name} can be certified: "
        + (f"its layers ({', '.join(inside)}) have" if inside else "it has")
        + " no system() and no selection(), from which bounds are made; linear layers (S4D, S5, "
        "LinOSS) and selective ones (Mamba, Longhorn, GatedSSM) have one"
    )


def _check_parts(name: str, layer: nn.Module) -> None:
    """Refuse adapters, hooks and derived classes: the constants of a bound come from the weights,
    so what other code does to them would be ignored."""
    kind, about = type(layer), "system" if hasattr(layer, "system") else "selection"
    runs, described = (_home(kind, method) for method in ("forward", about))
    foreign = not runs.__module__.startswith("longstate.") and described is not runs
    if (foreign and issubclass(runs, described)) or "forward" in vars(layer):
        raise InputError(
            f"{name} has its own forward() and the {about}() of {described.__name__}, which "
            f"describes another one; define {about}() beside forward()"
        )
    if not parametrize.type_before_parametrizations(layer).__module__.startswith("longstate."):
        return  # layers of other packages describe themselves
    for part, module in layer.named_modules():
        home = type(module).__module__
        hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        if module is not layer and hooked:
            raise InputError(
                f"{name}.{part} has a hook that may change what it computes; remove it before the "
                "layer is certified"
            )
        if not home.startswith(("torch.nn.", "longstate.")):
            raise InputError(
                f"{name}.{part} is a {type(module).__name__} of {home.split('.')[0]}; merge it "
                "into the layer before that is certified (PEFT: merge_and_unload)"
            )
