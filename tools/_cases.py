"""Seeded inputs for every op and layer, the same in any source tree, passed by keyword.

`OPS` and `LAYERS` map names to functions that make inputs. The function of an op gets a `Draw` and
sizes and returns all arguments of the op; a case then leaves some of them out. `call` renames
arguments that have another name in a tree, so that trees with other orders or names can be
compared.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from _draw import Arguments, Draw, Sizes


def _marks(draw: Draw, s: Sizes) -> Arguments:
    return {"mask": draw.flags(s.b, s.t, 0.8), "reset": draw.flags(s.b, s.t, 0.1)}


def _diagonal(draw: Draw, s: Sizes) -> Arguments:
    a, x = draw.uniform(s.b, s.t, s.d, low=-1.0), draw.normal(s.b, s.t, s.d)
    return {"a": a, "x": x, "h0": draw.normal(s.b, s.d), **_marks(draw, s)}


def _diagonal_complex(draw: Draw, s: Sizes) -> Arguments:
    a = torch.exp(0.1 * draw.poles(s.b, s.t, s.d))
    x, h0 = draw.complex(s.b, s.t, s.d), draw.complex(s.b, s.d)
    return {"a": a, "x": x, "h0": h0, **_marks(draw, s)}


def _diagonal_constant(draw: Draw, s: Sizes) -> Arguments:
    found = _diagonal_complex(draw, s)
    return found | {"a": torch.exp(0.1 * draw.poles(s.d))}


def _zoh(draw: Draw, s: Sizes) -> Arguments:
    n = 4 * s.d
    A = draw.poles(n)
    A[::7] = 0
    return {
        "A": A, "dt": draw.uniform(s.b, s.t), "u": draw.normal(s.b, s.t, s.d),
        "B": draw.complex(n, s.d), "h0": draw.complex(s.b, n), **_marks(draw, s),
    }  # fmt: skip


def _zoh_drive(draw: Draw, s: Sizes) -> Arguments:
    found = _zoh(draw, s)
    del found["B"]
    return found | {"u": draw.complex(s.b, s.t, 4 * s.d)}


def _oscillator(rule: str, kind: str) -> Callable[[Draw, Sizes], Arguments]:
    def make(draw: Draw, s: Sizes) -> Arguments:
        n = 4 * s.d
        some = draw.complex if kind == "complex" else draw.normal
        found = {
            "A": draw.uniform(n, high=4.5), "u": draw.normal(s.b, s.t, s.d), "B": some(n, s.d),
            "h0": some(s.b, 2, n), "dt": draw.uniform(s.b, s.t, high=3.0), "rule": rule,
            **_marks(draw, s),
        }  # fmt: skip
        if kind == "drive":
            del found["B"]
            found["u"] = draw.normal(s.b, s.t, n)
        return found

    return make


def _channels(draw: Draw, s: Sizes) -> Arguments:
    A = torch.exp(0.1 * draw.poles(s.d, s.n))
    B, C, h0 = draw.complex(s.d, s.n), draw.complex(s.d, s.n), draw.complex(s.b, s.d, s.n)
    lengths = torch.randint(0, s.t + 1, (s.b,), generator=draw.generator)
    return {"u": draw.normal(s.b, s.t, s.d), "A": A, "B": B, "C": C, "h0": h0, "lengths": lengths}


def _channels_held(draw: Draw, s: Sizes) -> Arguments:
    found = _channels(draw, s) | {"A": 0.1 * draw.poles(s.d, s.n), "dt": draw.uniform(s.b, s.t)}
    del found["lengths"]
    return found | _marks(draw, s)


def _channels_real(draw: Draw, s: Sizes) -> Arguments:
    found = _channels(draw, s)
    return found | {name: found[name].real.contiguous() for name in ("A", "B", "C", "h0")}


def _channels_chunks(draw: Draw, s: Sizes) -> Arguments:
    return _channels(draw, s) | {"impl": "chunks"}


def _channels_dense(draw: Draw, s: Sizes) -> Arguments:
    A = 0.7 * draw.normal(s.d, s.n, s.n) / s.n**0.5
    return _channels_real(draw, s) | {"A": A, "impl": "auto"}


def _channels_dplr(draw: Draw, s: Sizes) -> Arguments:
    P, Q = (draw.complex(s.d, s.n, 1) / (4 * s.n) ** 0.5 for _ in range(2))
    return _channels(draw, s) | {"P": P, "Q": Q}


def _channels_allpass(draw: Draw, s: Sizes) -> Arguments:
    found = _channels(draw, s)
    return {
        "u": found["u"], "rho": 0.9 * draw.uniform(s.d), "C": draw.normal(s.d, s.n),
        "h0": draw.normal(s.b, s.d, s.n + 1), "lengths": found["lengths"],
    }  # fmt: skip


def _expm(draw: Draw, s: Sizes) -> Arguments:
    k = 4
    g = s.n // k
    return {
        "M": draw.normal(s.b, s.t, g, k, k) / k**0.5, "v": draw.normal(s.b, s.t, g, k),
        "h0": draw.normal(s.b, g, k), "start": draw.normal(g, k),
        "reset": draw.flags(s.b, s.t, 0.1),
    }  # fmt: skip


def _chimera(draw: Draw, s: Sizes) -> Arguments:
    v, k = 2, 2
    sites, channels = (s.b, s.t, v, k, s.d), (k, s.d, s.n)
    a = -draw.uniform(*channels) + 3j * draw.normal(*channels)
    return {
        "x": draw.normal(*sites), "s": draw.uniform(*sites), "r": draw.uniform(*sites),
        "select": draw.normal(s.b, s.t, v, k, 6, s.n), "a": a,
        "c": 0.1 + draw.uniform(*channels), "coupling": draw.normal(2, *channels).tanh(),
        "h0": draw.complex(s.b, v, *channels), "g0": draw.complex(s.b, v, *channels),
        **_marks(draw, s),
    }  # fmt: skip


def _chunk(groups: int) -> Callable[[Draw, Sizes], Arguments]:
    def make(draw: Draw, s: Sizes) -> Arguments:
        h = s.d // s.p // groups * groups
        weight = draw.uniform(s.b, s.t, h)
        return {
            "x": draw.normal(s.b, s.t, h, s.p), "log_a": -draw.uniform(s.b, s.t, h),
            "B": draw.normal(s.b, s.t, groups, s.n), "C": draw.normal(s.b, s.t, groups, s.n),
            "h0": draw.normal(s.b, h, s.p, s.n), "weight": weight,
            "own": draw.uniform(s.b, s.t, h), "D": draw.normal(h), **_marks(draw, s),
        }  # fmt: skip

    return make


def _selective(kind: str) -> Callable[[Draw, Sizes], Arguments]:
    def make(draw: Draw, s: Sizes) -> Arguments:
        shape = {"": (s.b, s.t, s.n), "groups": (s.b, s.t, 2, s.n), "constant": (s.d, s.n)}[kind]
        return {
            "u": draw.normal(s.b, s.t, s.d), "dt": draw.normal(s.b, s.t, s.d),
            "A": -draw.uniform(s.d, s.n, high=4.0), "B": draw.normal(*shape),
            "C": draw.normal(*shape), "D": draw.normal(s.d), "z": draw.normal(s.b, s.t, s.d),
            "h0": draw.normal(s.b, s.d, s.n), "dt_bias": draw.normal(s.d), "dt_softplus": True,
            **_marks(draw, s),
        }  # fmt: skip

    return make


def _longhorn(update: str) -> Callable[[Draw, Sizes], Arguments]:
    def make(draw: Draw, s: Sizes) -> Arguments:
        return {
            "x": draw.normal(s.b, s.t, s.d), "beta": draw.normal(s.b, s.t, s.d),
            "k": draw.normal(s.b, s.t, s.n), "q": draw.normal(s.b, s.t, s.n),
            "D": draw.normal(s.d), "z": draw.normal(s.b, s.t, s.d),
            "h0": draw.normal(s.b, s.d, s.n), "beta_bias": draw.normal(s.d),
            "beta_sigmoid": True, "update": update, **_marks(draw, s),
        }  # fmt: skip

    return make


def _short_conv(draw: Draw, s: Sizes) -> Arguments:
    return {
        "x": draw.normal(s.b, s.t, s.d), "weight": draw.normal(s.d, 4), "bias": draw.normal(s.d),
        "taps": draw.normal(s.b, 3, s.d), "activation": "silu", **_marks(draw, s),
    }  # fmt: skip


OPS: dict[str, tuple[str, Callable[[Draw, Sizes], Arguments]]] = {
    "diagonal_scan": ("diagonal_scan", _diagonal),
    "diagonal_scan, complex": ("diagonal_scan", _diagonal_complex),
    "diagonal_scan, constant a": ("diagonal_scan", _diagonal_constant),
    "zoh_scan": ("zoh_scan", _zoh),
    "zoh_scan, drive": ("zoh_scan", _zoh_drive),
    "zoh_channel_scan": ("zoh_channel_scan", _channels_held),
    "oscillator_scan, im": ("oscillator_scan", _oscillator("im", "real")),
    "oscillator_scan, imex": ("oscillator_scan", _oscillator("imex", "real")),
    "oscillator_scan, im, complex": ("oscillator_scan", _oscillator("im", "complex")),
    "oscillator_scan, imex, complex": ("oscillator_scan", _oscillator("imex", "complex")),
    "oscillator_scan, imex, drive": ("oscillator_scan", _oscillator("imex", "drive")),
    "diagonal_channel_scan": ("diagonal_channel_scan", _channels),
    "diagonal_channel_scan, real": ("diagonal_channel_scan", _channels_real),
    "diagonal_channel_scan, chunks": ("diagonal_channel_scan", _channels_chunks),
    "dense_channel_scan": ("dense_channel_scan", _channels_dense),
    "dplr_channel_scan": ("dplr_channel_scan", _channels_dplr),
    "allpass_channel_scan": ("allpass_channel_scan", _channels_allpass),
    "expm_scan": ("expm_scan", _expm),
    "chimera_scan": ("chimera_scan", _chimera),
    "chunk_scan": ("chunk_scan", _chunk(1)),
    "chunk_scan, groups": ("chunk_scan", _chunk(2)),
    "selective_scan": ("selective_scan", _selective("")),
    "selective_scan, groups": ("selective_scan", _selective("groups")),
    "selective_scan, constant B, C": ("selective_scan", _selective("constant")),
    "longhorn_scan, diagonal": ("longhorn_scan", _longhorn("diagonal")),
    "longhorn_scan, exact": ("longhorn_scan", _longhorn("exact")),
    "short_conv": ("short_conv", _short_conv),
}
"""Name of the case -> the op in `longstate.ops`, and the function that makes its arguments."""

OPTIONAL = {
    "h0", "mask", "reset", "lengths", "D", "z", "dt_bias", "beta_bias", "bias", "taps", "own",
    "activation",
}  # fmt: skip
"""Arguments that are optional in all ops that have them."""

_OPTIONAL_IN = {"chunk_scan": {"weight"}, "oscillator_scan": {"dt"}}


def optional(op: str, arguments: Arguments) -> set[str]:
    return {name for name in arguments if name in OPTIONAL} | (
        _OPTIONAL_IN.get(op, set()) & arguments.keys()
    )


def find_op(name: str) -> Callable[..., Any] | None:
    """The op of this name in the imported tree, None if there is none."""
    return getattr(importlib.import_module("longstate.ops"), name, None)


def call(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Call by keyword, with the names of this tree."""
    known = inspect.signature(function).parameters
    given = dict(arguments)
    if "lengths" in given and "lengths" not in known:
        length, u = given.pop("lengths"), given["u"]
        given["mask"] = torch.arange(u.shape[1]) < length[:, None]
    if unknown := given.keys() - known:
        raise TypeError(f"{function.__name__} takes no {', '.join(sorted(unknown))}")
    return function(**given)


def accepted(op: Callable[..., Any]) -> set[str]:
    """Names of arguments that `call` can pass to an op."""
    names = set(inspect.signature(op).parameters)
    return names | {"lengths"} if "mask" in names else names


LAYERS: dict[str, tuple[str, Arguments]] = {
    "S4": ("S4", {"d_state": 8}),
    "HOPE": ("HOPE", {"d_state": 8}),
    "LinearCDE": ("LinearCDE", {"d_state": 8}),
    "S4D": ("S4D", {"d_state": 8}),
    "S4D, real": ("S4D", {"d_state": 4, "init": "real"}),
    "S4D, bilinear": ("S4D", {"d_state": 8, "discretization": "bilinear"}),
    "DSS": ("DSS", {"d_state": 8}),
    "DSS, softmax": ("DSS", {"d_state": 8, "kernel": "softmax", "length": 300}),
    "S5": ("S5", {"d_state": 8, "n_blocks": 2}),
    "S5, bilinear": ("S5", {"d_state": 8, "discretization": "bilinear"}),
    "LinOSS, im": ("LinOSS", {"d_state": 8, "rule": "im"}),
    "LinOSS, imex": ("LinOSS", {"d_state": 8, "rule": "imex"}),
    "Mamba": ("Mamba", {"d_state": 4}),
    "FalconMamba": ("FalconMamba", {"d_state": 4}),
    "Longhorn, diagonal": ("Longhorn", {"d_state": 4}),
    "Longhorn, exact": ("Longhorn", {"d_state": 4, "update": "exact"}),
    "Mamba2": ("Mamba2", {"d_state": 6, "headdim": 8}),
    "Mamba2, groups": ("Mamba2", {"d_state": 6, "headdim": 8, "n_groups": 2, "d_conv": 3}),
    "Mamba3": ("Mamba3", {"d_state": 8, "headdim": 8}),
    "GatedSSM": ("GatedSSM", {"d_state": 8}),
    "GatedSSM, hard": ("GatedSSM", {"d_state": 8, "top_k": 3, "floor": 0.1}),
    "LongVQ": ("LongVQ", {"d_state": 8}),
    "Chimera": ("Chimera", {"d_state": 8}),
    "Chimera, 8 variates": ("Chimera", {"d_state": 8, "variates": 8}),
    "Mamba3, softplus": (
        "Mamba3",
        {"d_state": 8, "headdim": 8, "n_groups": 2, "activation": "softplus"},
    ),
}
"""Name of the case -> the class in `longstate.layers`, and its options."""

WITHOUT_DT = {"S4", "HOPE", "LongVQ", "Longhorn, diagonal", "Longhorn, exact"}

_LATER_WORDS = {"headdim": "d_head"}  # and `variant` for what a layer calls its variants


def make_layer(name: str, d_model: int, **more: Any) -> torch.nn.Module | None:
    """A seeded layer of the imported tree, None if there is none."""
    kind, options = LAYERS[name]
    layer = getattr(importlib.import_module("longstate.layers"), kind, None)
    if layer is None:
        return None
    torch.manual_seed(0)
    known = inspect.signature(layer).parameters
    options = {
        key if key in known else _LATER_WORDS.get(key, "variant"): value
        for key, value in (options | more).items()
    }
    return layer(d_model, **options)
