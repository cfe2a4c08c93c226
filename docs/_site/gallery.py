"""The gallery: a page for every example, with its code, its picture and what it prints."""

import ast
from pathlib import Path

ORDER = {
    "First steps": (
        "one_layer_four_ways",
        "plain_training_loop",
        "forecast_late_flights",
        "text_from_bytes",
    ),
    "Long and uneven sequences": (
        "constant_memory",
        "truncated_backprop",
        "pack_sequences",
        "irregular_time",
        "temporal_graph",
    ),
    "Running a model": (
        "stream_a_forecaster",
        "decode_in_8_bits",
        "convert_a_checkpoint",
    ),
    "What a model remembers": (
        "what_it_remembers",
        "compare_memory",
        "certify_a_model",
        "find_the_nan",
    ),
    "Extending": ("your_own_layer",),
}
NAMES = [name for names in ORDER.values() for name in names]


def title(name: str) -> str:
    return name.replace("_", " ").capitalize().replace("nan", "NaN")


def navigation() -> list:
    groups = [
        {group: [{title(n): f"gallery/{n}.md"} for n in names]} for group, names in ORDER.items()
    ]
    return ["gallery/index.md", *groups]


def pages(root: Path) -> dict[str, str]:
    """Path in the site -> text in Markdown."""
    made = {"gallery/index.md": index(root)}
    for name in NAMES:
        made[f"gallery/{name}.md"] = page(root, name)
    return made


def parts(path: Path) -> tuple[str, str]:
    """The docstring of an example, and the code behind it."""
    source = path.read_text("utf-8")
    first = ast.parse(source).body[0]
    return ast.get_docstring(ast.parse(source)) or "", "\n".join(
        source.splitlines()[first.end_lineno :]
    ).strip()


def index(root: Path) -> str:
    lines = [
        "# Gallery",
        "",
        "Short programs, one idea each. They are in `examples/`, need no external data, and run",
        "in seconds on two CPU cores.",
    ]
    for group, names in ORDER.items():
        lines += ["", f"## {group}", "", '<div class="gallery">']
        for name in names:
            say = parts(root / "examples" / f"{name}.py")[0].split("\n\n")[0].replace("\n", " ")
            lines += [
                f'<a class="card" href="{name}/"><img src="{name}.svg" alt="" loading="lazy">'
                f"<strong>{title(name)}</strong><span>{say}</span></a>"
            ]
        lines.append("</div>")
    return "\n".join(lines) + "\n"


def page(root: Path, name: str) -> str:
    text, code = parts(root / "examples" / f"{name}.py")
    printed = (root / "examples" / "figures" / f"{name}.txt").read_text("utf-8").rstrip()
    return f"""# {title(name)}

{text}

![The picture that this example draws]({name}.svg){{ .figure }}

```python title="examples/{name}.py"
{code}
```

It prints

```text
{printed}
```
"""
