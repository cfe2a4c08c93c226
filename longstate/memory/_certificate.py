"""What `certify` returns: claims, each with up to three numbers side by side."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from longstate.memory._result import Kind, Result, digits


class Claim(NamedTuple):
    """One line of a certificate, for the channel where it is worst.

    Attributes:
        layer: name of the layer in the model.
        what: the claim, in words.
        kind: of the certified number.
        certified: for all inputs. None: nothing is certified.
        attacked: the worst that an attack found.
        seen: the worst on the data.
        rising: whether certified >= attacked >= seen, rather than <=.
        holds: whether it is a good one: stable, bounded. None where there is nothing to hold.
    """

    layer: str
    what: str
    kind: Kind
    certified: float | None
    attacked: float | None
    seen: float | None
    rising: bool
    holds: bool | None

    def ordered(self) -> bool:
        """Whether the three numbers come in the order that they must, up to rounding."""
        numbers = [x for x in (self.certified, self.attacked, self.seen) if x is not None]
        if self.rising:
            numbers = numbers[::-1]
        return all(a <= b * (1 + 1e-9) + 1e-12 for a, b in pairwise(numbers))


@dataclass(frozen=True, eq=False, kw_only=True)
class Certificate(Result):
    """Claims about every layer.

    Args:
        claims: in the order of the layers.
    """

    claims: tuple[Claim, ...]

    @property
    def passed(self) -> bool:
        """Whether every claim holds. What a gate looks at."""
        return all(c.holds is not False for c in self.claims)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        def text(x: float | None) -> str:
            return "-" if x is None else digits(x)

        marks = {True: "holds", False: "FAILS", None: ""}
        body = [
            [
                c.layer, c.what, c.kind.replace("_", " "), text(c.certified), text(c.attacked),
                text(c.seen), marks[c.holds],
            ]
            for c in self.claims
        ]  # fmt: skip
        return ["layer", "claim", "kind", "all inputs", "attack", "data", ""], body

    def to_dict(self) -> dict[str, Any]:
        plain = super().to_dict()
        plain["claims"] = [dict(zip(Claim._fields, c, strict=True)) for c in plain["claims"]]
        return {**plain, "passed": self.passed}
