"""The record of a choice: which simple methods and how much of the network, and why."""

from dataclasses import dataclass

from longstate._numbers import score
from longstate.errors import expect


@dataclass(frozen=True)
class Part:
    """One method in the choice.

    Args:
        name: of `longstate.models._choice.PARTS`.
        weight: from 0 to 1.
        error: mean squared error on the windows of the validation part, scaled units.
        rolling: the same on the windows of all folds; None for the network, which is trained once.
    """

    name: str
    weight: float
    error: float
    rolling: float | None = None

    def cells(self) -> tuple[str, str, str, str]:
        """Name, weight and both errors, as the cells of a table."""
        rolling = "-" if self.rolling is None else score(self.rolling)
        return self.name, f"{self.weight:.2f}", score(self.error), rolling


@dataclass(frozen=True)
class Chosen:
    """What `choose` found.

    Args:
        parts: all methods that could be used.
        error, rolling: of the choice, as in `Part`.
        folds: number of folds. windows: that were forecast in all of them.
        independent: number of these windows without a common row.
        calibrated: number of independent windows that are worth as much as those that the bands of
            an evaluation rest on; see `effective`. now: the same for forecasts.
        gain, noise: by how much the network lowers the error, and the standard error of that; None
            where there were too few windows to tell.
        refitted: whether the simple methods were fitted to all rows at the end.
    """

    parts: tuple[Part, ...]
    error: float
    rolling: float
    folds: int
    windows: int
    independent: float
    calibrated: float
    now: float
    gain: float | None
    noise: float | None
    refitted: bool

    def __post_init__(self) -> None:
        expect(len(self.parts) > 0, "parts must hold at least one method")
        expect(self.independent > 0 and self.calibrated > 0, "numbers of windows must be above 0")

    @property
    def used(self) -> tuple[Part, ...]:
        """The parts with a weight, the largest first."""
        return tuple(sorted((p for p in self.parts if p.weight > 0), key=lambda p: -p.weight))

    @property
    def runner_up(self) -> Part | None:
        """The best single method that is not the choice itself, by the errors that chose."""
        others = [p for p in self.parts if p.weight < 1 and self._decisive(p) is not None]
        return min(others, key=lambda p: self._decisive(p) or 0.0) if others else None

    @property
    def _rolls(self) -> bool:
        """Whether the errors on all folds tell of the choice: the network is trained once, and has
        none."""
        return self.folds > 1 and not any(p.rolling is None for p in self.used)

    def _decisive(self, part: Part) -> float | None:
        """Its error on the windows that tell of the choice."""
        return part.rolling if self._rolls else part.error

    def words(self) -> str:
        """The parts and their weights: "0.62 line + 0.38 smoothing"."""
        if len(self.used) == 1:
            return self.used[0].name
        return " + ".join(f"{part.weight:.2f} {part.name}" for part in self.used)

    def sentences(self) -> tuple[str, ...]:
        """What was chosen, by which margin, and on how many windows."""
        where, own = "on all folds", self.rolling
        if not self._rolls:
            where, own = "on validation", self.error
        found = [f"The forecast is {self.words()} (squared error {score(own)} {where})."]
        other = self.runner_up
        if other is not None:
            found.append(f"The next best is {other.name} ({score(self._decisive(other) or 0.0)}).")
        found.append(self._network())
        found.append(
            f"This was chosen on {self.windows} windows, {self.independent:.1f} of them without a "
            "common row" + (f", in {self.folds} rolling folds." if self.folds > 1 else ".")
        )
        if self.calibrated < 10:
            found.append(
                f"The bands rest on windows that are worth only {self.calibrated:.1f} independent "
                "ones, so they are wide and uncertain."
            )
        found.append(
            f"For forecasts {self._solved} were fitted again to all rows; the network keeps the "
            "weights of its training."
            if self.refitted
            else "Forecasts use what was fitted to the training part."
        )
        return tuple(found)

    @property
    def _solved(self) -> str:
        return (
            "ridge, line and map" if any(p.name == "map" for p in self.parts) else "ridge and line"
        )

    def _network(self) -> str:
        if self.gain is None or self.noise is None:
            return "The network is not used: there were too few windows to tell whether it helps."
        if self.gain == 0:
            return "The network is not used: it adds nothing to the simple methods."
        figures = f"{self.gain:.2g}, with a standard error of {self.noise:.2g}"
        if any(p.name == "network" and p.weight > 0 for p in self.parts):
            return f"The network lowers the squared error by {figures}."
        return f"The network is not used: what it gains is not more than chance ({figures})."
