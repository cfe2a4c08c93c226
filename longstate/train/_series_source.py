"""What a run remembers of the files that it was trained on."""

from dataclasses import dataclass, field

from longstate.errors import InputError


@dataclass(frozen=True)
class Columns:
    """The columns of a CSV file in long form. All others are channels."""

    case: str = "case"
    time: str = "time"
    label: str = "label"


@dataclass(frozen=True)
class Source:
    """What a run remembers of its files. rate: samples per second, None if unknown."""

    columns: Columns = field(default_factory=Columns)
    rate: int | None = None

    def check_rate(self, rate: int | None) -> None:
        """Refuse files of another sample rate, where a model runs at that of its training only.

        Raises:
            InputError: both rates are known, and differ.
        """
        if None not in (rate, self.rate) and rate != self.rate:
            raise InputError(
                f"the files have {rate} samples per second; the model was trained on {self.rate}. "
                "Convert the files"
            )

    def interval(self, rate: int | None, given: float | None = None) -> float:
        """The sampling interval of other files as a multiple of that of the training.

        Args:
            rate: samples per second of the files.
            given: what the user says that it is.

        Returns:
            What the sample rates make it, if both are known; else what was given, or 1.

        Raises:
            InputError: what was given is not what the sample rates make it.
        """
        if rate is None or self.rate is None:
            return 1.0 if given is None else given
        found = self.rate / rate
        if given is not None and given != found:
            raise InputError(
                f"--rate is {given:g}; but the files have {rate} samples per second, and the model "
                f"was trained on {self.rate}, which is a rate of {found:g}. Leave --rate out"
            )
        return found
