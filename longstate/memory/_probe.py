"""Information of a state about labels, from probes on held-out samples.

    I(X; h) >= H(X) - cross-entropy of any q(x | h) on samples that q was not fitted to

This is a valid lower bound, up to the reported sampling error, for every model and every probe. Two
probes are fitted, a linear one and a small network. What only the network finds is stored in a form
that no linear readout can use. The probe that is better on separate validation samples gives the
bound.

The choice of X matters more than the probe: a state may hold the j-th data token and have no
information about "the token 20 steps ago". So labels have names: by lag, by slot, by group, or by
any function.

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
from longstate.systems._numbers import in_float64

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COMPONENTS = 128  # principal components of the states that a probe reads
_FEWEST = 50  # least number of samples
_LOST = 0.1  # nats


@dataclass(frozen=True, eq=False, kw_only=True)
class Probes(Result):
    """Bits that states hold about labels, at least.

    Args:
        labels: names, in the order of the tensors.
        bits (l): the bound of the selected probe.
        error (l): its standard error.
        linear, network (l): the bound of each probe. Below 0 if it is worse than no state.
        entropy (l): of the label, which no bound can exceed.
        samples: number of held-out samples.
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
            ax.errorbar(at, self.bits, yerr=self.error, fmt="o-", label="lower bound")
            ax.plot(at, self.entropy, color="0.6", label="of the label")
            ax.set_xticks(list(at), self.labels, rotation=45 if len(self.labels) > 8 else 0)
            ax.set_ylim(bottom=0)
            ax.legend()

        return draw(self, "Information in the state", "", "bits", paint)


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
        states (s, ...): one state for each sample. Samples should be independent, for example one
            from each sequence; otherwise the error is too small.
        labels: name -> class (s), integers from 0; -1 for samples without a label.
        held_out: share of the samples that the probes are scored on.
        seed: of the split and of the network.
        progress: called with each label's name before it is probed.

    Raises:
        InputError: states are not finite, labels do not fit, or fewer than 50 samples have one.
    """
    if not labels:
        raise InputError("labels is empty; give at least one label")
    x = in_float64(states).flatten(1)
    if not bool(x.isfinite().all()):
        raise InputError("states hold NaN or infinity; `watch` finds where they come from")
    if not 0 < held_out < 1:
        raise InputError(f"held_out must lie between 0 and 1; got {held_out}")
    scores, least = _scores(x, labels, held_out, seed, progress)
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
        f"{float(entropy[best]):.2f} bits of {name}, the best of {len(labels)} labels.",
        labels=tuple(labels),
        bits=bits,
        error=errors,
        linear=linear,
        network=network,
        entropy=entropy,
        samples=least,
    )


def _scores(
    x: Tensor,
    labels: Mapping[str, Tensor],
    held_out: float,
    seed: int,
    progress: Callable[[str], None] | None,
) -> tuple[list[tuple[float, ...]], int]:
    """`_score` for each label, and the least number of held-out samples."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    scores: list[tuple[float, ...]] = []
    least = len(x)
    # components, by the set of samples that have a label: usually all
    seen: dict[bytes, Tensor] = {}
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
    return scores, least


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
    """Bits of the better probe, of the linear one and of the network, the error of the better one,
    and the entropy."""
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
    # selected without the held-out samples, because that would bias the bound upwards
    better = gains[losses.index(min(losses))]
    error = float(better.std() / math.sqrt(len(better)))
    return (
        float(better.mean()), float(gains[0].mean()), float(gains[1].mean()), error,
        float(own.mean()),
    )  # fmt: skip


def _components(x: Tensor, cut: int) -> Tensor:
    """Standardised principal components; components and scales from the first `cut` samples."""
    mean = x[:cut].mean(0)
    # with more numbers than samples, the QR factors give the same result several times faster
    Q, R = torch.linalg.qr((x[:cut] - mean).T)
    _, s, v = torch.linalg.svd(R.T, full_matrices=False)
    kept = int(((s > 1e-10 * s[:1].clamp(min=1e-300)).sum()).clamp(min=1, max=_COMPONENTS))
    x = (x - mean) @ (Q @ v[:kept].T)
    return x / x[:cut].std(0).clamp(min=1e-12)


def _network(m: int, k: int) -> nn.Module:
    return nn.Sequential(nn.Linear(m, 64), nn.GELU(), nn.Linear(64, k))


def _fit(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Minimise cross-entropy, with the penalty on weights that is best on a validation fifth.

    The last layer starts at zero, so that a state without information scores near 0.

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
            break  # it overfits, and a smaller penalty would not help
    model.load_state_dict(chosen)
    return best
