"""The result of `certify`: claims, each with up to three numbers."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor

from longstate._numbers import cell
from longstate.memory._result import Kind, Result


class Claim(NamedTuple):
    """One line of a certificate, for the worst channel.

    Attributes:
        layer: name of the layer in the model.
        what: the quantity, in words.
        kind: of the certified number.
        certified: value for all inputs. None: nothing is certified.
        attacked: worst value that an attack found.
        seen: worst value on the data.
        rising: whether certified >= attacked >= seen must hold, instead of <=.
        holds: whether the claim holds, for example stable or bounded. None if there is nothing to
            check, or if the number is too large to be useful (`note` says so).
        note: a remark.
        witness (k, d): input of the attack, from a zero state, at dt = 1; `attacked` is the value
            of the layer at its last sample. None: no input was kept.
    """

    layer: str
    what: str
    kind: Kind
    certified: float | None
    attacked: float | None
    seen: float | None
    rising: bool
    holds: bool | None
    note: str = ""
    witness: Tensor | None = None

    def ordered(self) -> bool:
        """Whether the three numbers are in the required order, up to rounding."""
        numbers = [x for x in (self.certified, self.attacked, self.seen) if x is not None]
        if self.rising:
            numbers = numbers[::-1]
        return all(a <= b * (1 + 1e-9) + 1e-12 for a, b in pairwise(numbers))

    def checked(self) -> "Claim":
        """The claim; as a failed one if an attack or the data contradicts it."""
        if self.ordered():
            return self
        return self._replace(
            holds=False, note="contradicted by what was found: the bound is wrong, please report it"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Certificate(Result):
    """Claims about every layer.

    Args:
        claims: in the order of the layers.
    """

    claims: tuple[Claim, ...]

    @property
    def passed(self) -> bool:
        """Whether no claim fails."""
        return all(c.holds is not False for c in self.claims)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        marks = {True: "holds", False: "FAILS", None: ""}
        body = [
            [
                c.layer, c.what, c.kind.replace("_", " "), cell(c.certified), cell(c.attacked),
                cell(c.seen), ": ".join(filter(None, (marks[c.holds], c.note))),
            ]
            for c in self.claims
        ]  # fmt: skip
        return ["layer", "claim", "kind", "all inputs", "attack", "data", ""], body

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold; without the witnesses, which are long."""
        plain = super().to_dict()
        named = [dict(zip(Claim._fields, c, strict=True)) for c in plain["claims"]]
        for claim in named:
            del claim["witness"]
        return {**plain, "claims": named, "passed": self.passed}
