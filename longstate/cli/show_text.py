"""What `longstate train text` and `longstate generate` print."""

import sys
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from longstate.cli._terminal import note, say, show_facts, visible, write
from longstate.models import LanguageModel, generate
from longstate.train import ByteTokens, Progress, TextLook, TextModel, TextScore, Tokens

BETWEEN_SAMPLES = 20.0
SAMPLE = 160


class Shown:
    """Shows a training: a progress bar on standard error, scores and samples on standard output.

    Args:
        minutes: time limit of the training, or None.
    """

    def __init__(self, minutes: float | None):
        self.minutes, self.sampled = minutes, time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        self.bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("training", total=1.0, note="")

    def __enter__(self) -> "Shown":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def encoded(self, done: int, total: int) -> None:
        self.bar.start()
        note = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        self.bar.update(self.task, description="encoding", completed=done / total, note=note)
        if done == total:
            self.bar.reset(self.task, description="training", note="")

    def step(self, progress: Progress) -> None:
        self.bar.start()
        done = progress.step / progress.total
        if self.minutes is not None:
            done = max(done, progress.seconds / (60 * self.minutes))
        note = f"step {progress.step:,}"
        if progress.loss_count:
            note += f"  loss {progress.loss_sum / progress.loss_count:.3f} nats per token"
        self.bar.update(self.task, completed=min(done, 1.0), note=note)

    def look(self, look: TextLook, model: LanguageModel, tokens: Tokens) -> None:
        say(
            f"step {look.step:6,}  {look.passes:6.2f} passes  "
            f"{look.bits_per_byte:.4f} bits per byte  perplexity {look.perplexity:,.2f}"
        )
        if look.step and time.monotonic() - self.sampled > BETWEEN_SAMPLES:
            self.sample(model, tokens, look.step)

    def sample(self, model: LanguageModel, tokens: Tokens, seed: int) -> None:
        start = tokens.encode("\n") or [0]
        (row,) = generate(
            model, [start], max_tokens=SAMPLE, temperature=0.8, decode=tokens.decode, seed=seed
        )
        for line in visible(row.text, "\n\t").strip().split("\n"):
            say(f"    | {line}")
        self.sampled = time.monotonic()

    def ended(self, model: TextModel, out: Path) -> None:
        history = model.history
        assert history is not None
        say(
            f"Training ended ({history.ended}) after {history.seconds:.0f} s; best at step "
            f"{history.best.step:,}: {history.best.bits_per_byte:.4f} bits per byte of validation "
            "text."
        )
        if history.ended == "interrupted":
            say("Run the same command again to continue.")
        say(f"The run is in {out}. Next: longstate generate {out}")


class Rate:
    """Prints pieces of text as they are generated, and then the speed.

    Args:
        prompt: number of tokens of the prompt.
    """

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt
        self.began, self.first, self.count, self.last = time.monotonic(), 0.0, 0, "\n"

    def write(self, text: str) -> None:
        if not self.count:
            self.first = time.monotonic()
        self.count += 1
        if text:
            self.last = text
            write(text)

    def close(self) -> None:
        """End the line on a terminal, and print the speed on standard error."""
        if sys.stdout.isatty() and not self.last.endswith("\n"):
            write("\n")
        if self.count < 2:
            return
        seconds = max(time.monotonic() - self.first, 1e-9)
        note(
            f"{self.count} tokens, {(self.count - 1) / seconds:.0f} tokens per second; reading the "
            f"{self.prompt} tokens of the prompt took {self.first - self.began:.2f} s"
        )


def show_score(name: str, score: TextScore) -> None:
    """Print the score of a model on a text, in one line."""
    say(
        f"{name}: {score.bits_per_byte:.4f} bits per byte, perplexity {score.perplexity:,.2f} "
        f"per token, over {score.tokens:,} tokens and {score.bytes:,} bytes."
    )


def show_text(run: Path, text: TextModel) -> None:
    """Print a table of a text model's sizes and training."""
    made, history = text.settings(), text.history
    coding = (
        "bytes" if isinstance(text.tokens, ByteTokens) else f"{text.tokens.size:,} of a tokenizer"
    )
    rows = {
        "layers": ", ".join(text.layers),
        "d_model": f"{text.d_model}",
        "tokens": coding,
        "parameters": f"{sum(p.numel() for p in text.model.parameters()):,}",
    }
    shown = {
        n: v for n, v in made.items() if n not in ("layers", "d_model", "n_layers", "tokenizer")
    }
    rows |= {name: f"{value}" for name, value in shown.items() if value is not None}
    if history is not None:
        last, best = history.looks[-1], history.best
        rows["training"] = (
            f"{last.step:,} steps, {last.passes:.2f} passes over the text, "
            f"{history.seconds:.0f} s; {history.ended or 'not ended'}"
        )
        rows["best"] = f"{best.bits_per_byte:.4f} bits per byte, at step {best.step:,}"
    show_facts(str(run), rows)
