"""What a state knows about anything with a name: held-out probes.

    I(X; h) >= H(X) - cross-entropy of any q(x | h) on samples that q was not fitted to

A valid lower bound, up to the sampling error that is reported with it, whatever the model and the
probe. Two probes are fitted, linear and a small network; what the second finds beyond the first is
stored in a way that no linear readout reaches. The one that does better on samples kept aside for
the choice is the bound.

What X is matters more than the probe: a state may keep the j-th data token and know nothing of "the
token 20 steps ago". So labels come by name: by lag, by slot, by group, or by any function.

Axes: s samples, m numbers of the state.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from longstate.errors import InputError
from longstate.memory._plot import draw
from longstate.memory._result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COMPONENTS = 128  # of the states, by variance, that a probe sees
_FEWEST = 50  # samples
_LOST = 0.1  # nats


@dataclass(frozen=True, eq=False, kw_only=True)
class Probes(Result):
    """Bits that states hold about labels, at least.

    Args:
        labels: names, in the order of the tensors.
        bits (l): the bound of the probe that was chosen.
        error (l): standard error of it.
        linear, network (l): each probe's bound. Below 0 where it did worse than no state at all.
        entropy (l): of the label itself, which no bound can exceed.
        samples: that were held out.
    """

    labels: tuple[str, ...]
    bits: Float[Tensor, " l"]
    error: Float[Tensor, " l"]
    linear: Float[Tensor, " l"]
    network: Float[Tensor, " l"]
    entropy: Float[Tensor, " l"]
    samples: int

    def rows(self) -> tuple[list[str], list[list[str]]]:
        columns = (self.bits, self.error, self.linear, self.network, self.entropy)
        body = [
            [name, *(f"{float(c[i]):.3f}" for c in columns)] for i, name in enumerate(self.labels)
        ]
        return ["label", "bits", "+-", "linear", "network", "of"], body

    def plot(self) -> "Figure":
        def paint(ax):
            at = range(len(self.labels))
            ax.errorbar(at, self.bits, yerr=self.error, fmt="o-", label="known, at least")
            ax.plot(at, self.entropy, color="0.6", label="of the label")
            ax.set_xticks(list(at), self.labels, rotation=45 if len(self.labels) > 8 else 0)
            ax.set_ylim(bottom=0)
            ax.legend()

        return draw(self, "What the state knows", "", "bits", paint)


def probe(
    states: Float[Tensor, "s ..."],
    labels: Mapping[str, Int[Tensor, " s"]],
    *,
    held_out: float = 0.3,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Probes:
    """Fit probes from states to labels on some samples, and score them on the others.

    Args:
        states (s, ...): one state for each sample; samples should be independent, one from a
            sequence, or the error is too small.
        labels: name -> class (s), integers from 0; -1 where a sample has none.
        held_out: share of the samples that the probes are scored on.
        seed: of the split and of the network.
        progress: called with each label's name before it is probed.

    Raises:
        InputError: states are not finite, labels do not fit, or fewer than 50 samples have one.
    """
    if not labels:
        raise InputError("labels is empty; name at least one")
    x = states.detach().double().cpu().flatten(1)
    if not bool(x.isfinite().all()):
        raise InputError("states hold NaN or infinity; `watch` finds where they come from")
    if not 0 < held_out < 1:
        raise InputError(f"held_out must lie between 0 and 1; got {held_out}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    scores, least = [], len(x)
    seen: dict[bytes, Tensor] = {}  # components, by which samples have a label: most often all
    for name, label in labels.items():
        if progress is not None:
            progress(name)
        y = _checked(name, label, len(x))[order]
        there = y >= 0
        if int(there.sum()) < _FEWEST:
            raise InputError(f"label {name!r} has {int(there.sum())} samples; {_FEWEST} are needed")
        y, kept = y[there], there.numpy().tobytes()
        cut = len(y) - round(held_out * len(y))
        if kept not in seen:
            seen[kept] = _components(x[order][there], cut)
        scores.append(_score(seen[kept], y, cut, seed))
        least = min(least, len(y) - cut)
    bits, linear, network, errors, entropy = (
        torch.tensor(v, dtype=torch.float64) for v in zip(*scores, strict=True)
    )
    bits = bits.clamp(min=0)
    best = int(bits.argmax())
    name = list(labels)[best]
    return Probes(
        kind="lower_bound",
        scope=f"this data, up to the standard error; {least} samples held out",
        sentence=f"The states hold at least {float(bits[best]):.2f} of the "
        f"{float(entropy[best]):.2f} bits of {name}, the best known of {len(labels)}.",
        labels=tuple(labels),
        bits=bits,
        error=errors,
        linear=linear,
        network=network,
        entropy=entropy,
        samples=least,
    )


def by_lag(tokens: Int[Tensor, "b t"], lags: list[int]) -> dict[str, Tensor]:
    """The token of each lag before the last one, as labels for states after the last.

    Raises:
        InputError: a lag is negative, or longer than the sequences.
    """
    t = tokens.shape[1]
    for lag in lags:
        if not 0 <= lag < t:
            raise InputError(f"lags must lie between 0 and {t - 1}; got {lag}")
    return {f"lag {lag}": tokens[:, t - 1 - lag] for lag in lags}


def by_slot(tokens: Int[Tensor, "b t"], data: Tensor) -> dict[str, Tensor]:
    """The first, second ... token where `data` (b, t) is True; -1 where a row has fewer."""
    order = data.cumsum(1) - 1
    slots = int(data.sum(1).max()) if data.numel() else 0
    labels = {}
    for j in range(slots):
        here = data & (order == j)
        label = torch.where(here, tokens, 0).sum(1)
        labels[f"slot {j}"] = torch.where(here.any(1), label, -1)
    return labels


def _checked(name: str, label: Tensor, samples: int) -> Tensor:
    label = label.detach().cpu()
    if label.shape != (samples,) or label.is_floating_point() or label.is_complex():
        raise InputError(
            f"label {name!r} must be integers of shape ({samples},); got {label.dtype} of shape "
            f"{tuple(label.shape)}"
        )
    return label.long()


def _score(x: Tensor, y: Tensor, cut: int, seed: int) -> tuple[float, float, float, float, float]:
    """Bits of the better probe, the linear one and the network, the better one's error, and the
    entropy."""
    classes, y = y.unique(return_inverse=True)
    k = len(classes)
    hidden = (lambda: nn.Linear(x.shape[1], k)), (lambda: _network(x.shape[1], k))
    shares = torch.bincount(y[cut:], minlength=k) / (len(y) - cut)
    # the entropy of the held-out labels themselves: on average below the true one, so that the
    # bound errs to the safe side
    own = -shares[y[cut:]].log2()
    gains, losses = [], []
    for make in hidden:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = make().double()
            losses.append(_fit(model, x[:cut], y[:cut]))
        with torch.no_grad():
            log_q = model(x[cut:]).log_softmax(-1)
        gains.append(own + log_q.gather(1, y[cut:, None])[:, 0] / math.log(2))
    # chosen without a look at the held-out samples, which would favour the luckier of the two
    better = gains[losses.index(min(losses))]
    error = float(better.std() / math.sqrt(len(better)))
    return (
        float(better.mean()), float(gains[0].mean()), float(gains[1].mean()), error,
        float(own.mean()),
    )  # fmt: skip


def _components(x: Tensor, cut: int) -> Tensor:
    """Principal components, standardised; both from the first `cut` samples."""
    mean = x[:cut].mean(0)
    # of more numbers than samples by their QR factors: the same, and several times faster
    Q, R = torch.linalg.qr((x[:cut] - mean).T)
    _, s, v = torch.linalg.svd(R.T, full_matrices=False)
    kept = int(((s > 1e-10 * s[:1].clamp(min=1e-300)).sum()).clamp(min=1, max=_COMPONENTS))
    x = (x - mean) @ (Q @ v[:kept].T)
    return x / x[:cut].std(0).clamp(min=1e-12)


def _network(m: int, k: int) -> nn.Module:
    return nn.Sequential(nn.Linear(m, 64), nn.GELU(), nn.Linear(64, k))


def _fit(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Minimise cross-entropy, with the penalty on weights that does best on a fifth kept aside.

    It begins at no knowledge: the last layer is zero, so that a useless state scores near 0.

    Returns:
        The cross-entropy on that fifth.
    """
    own = len(x) - max(1, len(x) // 5)
    last = next(m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear))
    nn.init.zeros_(last.weight)
    shares = torch.bincount(y[:own], minlength=last.out_features).double() + 0.5
    last.bias.data = shares.log()
    start = {name: v.clone() for name, v in model.state_dict().items()}
    best, chosen = math.inf, start
    for penalty in (1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2):
        model.load_state_dict(start)
        optimiser = torch.optim.LBFGS(
            model.parameters(), max_iter=60, line_search_fn="strong_wolfe"
        )

        def closure(penalty: float = penalty, optimiser: torch.optim.LBFGS = optimiser) -> Tensor:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(x[:own]), y[:own])
            weights = [p for p in model.parameters() if p.dim() == 2]
            loss = loss + penalty * sum((w.square().sum() for w in weights), torch.zeros(())) / own
            loss.backward()
            return loss

        optimiser.step(closure)
        with torch.no_grad():
            loss = float(nn.functional.cross_entropy(model(x[own:]), y[own:]))
        if loss < best:
            best, chosen = loss, {name: v.clone() for name, v in model.state_dict().items()}
        elif loss > best + _LOST:
            break  # it learns by heart, and less penalty will not mend that
    model.load_state_dict(chosen)
    return best
