"""Additions to the pages in docs/: pages from other files, links, formulas.

mkdocs calls the functions named `on_...`. Nothing here runs when the package is used.
"""

import re
import sys
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import commands  # noqa: E402
import gallery  # noqa: E402
import reference  # noqa: E402

import benchmarks  # noqa: E402
from longstate._citations import PAPERS, cite  # noqa: E402


def on_config(config):
    for item in config.nav:
        if "Gallery" in item:
            item["Gallery"] = gallery.navigation()
    return config


def on_files(files, config):
    pages = {
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text("utf-8"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text("utf-8"),
        "cite.md": citations(),
        **gallery.pages(ROOT),
        **benchmarks.pages(ROOT),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for figure in sorted((ROOT / "examples" / "figures").glob("*.svg")):
        path = str(figure)
        files.append(File.generated(config, f"gallery/{figure.name}", abs_src_path=path))
    return files


def citations() -> str:
    entries = [
        f"## {name}\n\n{paper.title}, {paper.year}.\n\n```bibtex\n{cite(name)}\n```\n"
        for name, paper in PAPERS.items()
    ]
    return f"""# How to cite

Cite the paper behind the layer that you use, and this library if it helped.
`longstate cite s4d mamba2` prints these entries in a terminal, `longstate.cite("s4d")` returns one
in Python, and `longstate cite` alone lists the names.

## longstate

```bibtex
{cite("longstate")}
```

{chr(10).join(entries)}"""


def on_page_markdown(markdown, page, config, files):
    """Replace links to files of the repository by links to the pages made from them."""
    up = "../" * page.file.src_uri.count("/")
    if page.file.src_uri == "api/commands.md":
        markdown += commands.sections()

    def target(match: re.Match) -> str:
        path, anchor = match[1], match[2] or ""
        if made := PAGES_OF.get(path):
            return f"]({up}{made}{anchor})"
        if path.startswith("examples/") and path.endswith(".py"):
            return f"]({up}gallery/{Path(path).stem}.md{anchor})"
        if path.startswith("benchmarks/results/") and path.endswith(".md"):
            return f"]({up}benchmarks/{Path(path).name}{anchor})"
        return match[0]

    markdown = reference.with_rest(benchmarks.with_tables(markdown, ROOT))
    if page.file.src_uri in ("contributing.md", "changelog.md"):  # they lie in the root
        markdown = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", markdown)
        return re.sub(r"\]\(((?:examples|benchmarks)[^)#]*)(#[^)]*)?\)", target, markdown)
    return re.sub(r"\]\((?:\.\./)+([^)#]+)(#[^)]*)?\)", target, markdown)


PAGES_OF = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
    "benchmarks/results": "benchmarks.md",
    "examples": "gallery/index.md",
}


def on_page_content(html, page, config, files):
    """Convert formulas to MathML, and make wide tables scroll."""

    def formula(match: re.Match) -> str:
        inline, text = match[1] == "span", re.sub(r"&(lt|gt|amp);", _character, match[2].strip())
        return convert(text[2:-2], display="inline" if inline else "block")

    html = re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', formula, html, flags=re.S)
    return re.sub(
        r"(<table>.*?</table>)", r'<div class="wide" tabindex="0">\1</div>', html, flags=re.S
    )


def _character(match: re.Match) -> str:
    return {"lt": "<", "gt": ">", "amp": "&"}[match[1]]
