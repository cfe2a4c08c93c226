"""What `longstate train text` and `longstate generate` print."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from longstate.models import LanguageModel, generate
from longstate.train.history import TrainingHistory
from longstate.train.loop import Progress
from longstate.train.text import TextLook, load
from longstate.train.tokens import ByteTokens, Tokens

BETWEEN_SAMPLES = 20.0
SAMPLE = 160


class Shown:
    """A bar on standard error while a model is trained; looks and samples on standard output.

    Args:
        minutes: time that the training may take, or None.
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
        self.out = Console(soft_wrap=True)

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
        self.say(
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
        text = printable(row.text).strip()
        self.out.print("\n".join(f"    | {line}" for line in text.splitlines()), markup=False)
        self.sampled = time.monotonic()

    def say(self, sentence: str) -> None:
        self.out.print(escape(sentence), highlight=False)

    def ended(self, history: TrainingHistory, out: Path) -> None:
        best = min(look.validation_loss for look in history.looks)
        self.say(
            f"Training ended ({history.ended}) after {history.seconds:.0f} s; best at step "
            f"{history.best_step:,}: {best:.4f} bits per byte of validation text."
        )
        if history.ended == "interrupted":
            self.say("The same command goes on where it was.")
        self.say(f"The run is in {out}. Next: longstate generate {out}")


class Rate:
    """Writes pieces of text as they come, and tells how fast that went."""

    def __init__(self) -> None:
        self.began, self.first, self.count, self.last = time.monotonic(), 0.0, 0, "\n"

    def write(self, text: str) -> None:
        if not self.count:
            self.first = time.monotonic()
        self.count += 1
        if text:
            self.last = text
            sys.stdout.write(text)
            sys.stdout.flush()

    def close(self, prompt: int) -> None:
        """Ends the line on a terminal, and prints the speed on standard error."""
        if sys.stdout.isatty() and not self.last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()
        if self.count < 2:
            return
        seconds = max(time.monotonic() - self.first, 1e-9)
        print(
            f"{self.count} tokens, {(self.count - 1) / seconds:.0f} tokens per second, after "
            f"{self.first - self.began:.2f} s for {prompt} of the prompt",
            file=sys.stderr,
        )


def printable(text: str) -> str:
    """Without what would steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def show_text_facts(run: Path) -> None:
    """A table of what `longstate train text` left in a folder."""
    model, tokens = load(run)
    folder = run if run.is_dir() else run.parent
    made, history = (_facts(folder / name) for name in ("settings.json", "history.json"))
    looks = history.get("looks") or []
    rows = {
        "layers": ", ".join(model.spec.layers),
        "channels": f"{model.spec.d_model}",
        "tokens": "bytes" if isinstance(tokens, ByteTokens) else f"{tokens.size:,} of a tokenizer",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
    }
    for name in ("context", "batch", "learning_rate", "seed"):
        if name in made:
            rows[name.replace("_", " ")] = f"{made[name]}"
    if looks:
        best = min(looks, key=lambda look: look["bits_per_byte"])
        rows["training"] = (
            f"{looks[-1]['step']:,} steps, {looks[-1]['passes']:.2f} passes over the text, "
            f"{history.get('seconds', 0):.0f} s; {history.get('ended') or 'not ended'}"
        )
        rows["best"] = f"{best['bits_per_byte']:.4f} bits per byte, at step {best['step']:,}"
    table = Table(title=escape(str(run)), show_header=False)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    Console().print(table)


def _facts(path: Path) -> dict[str, Any]:
    """Of a file beside the model, which may be gone or cut short."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
