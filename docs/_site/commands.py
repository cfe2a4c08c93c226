"""The reference of the command line, made from the commands themselves."""

import re

import typer

from longstate.cli import app


def sections() -> str:
    """Every command with its arguments and options, as Markdown."""
    lines = []
    for name, command in sorted(_commands(typer.main.get_command(app), "longstate")):
        lines += ["", *section(name, command)]
    return "\n".join(lines) + "\n"


def _commands(command, name: str):
    for sub, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, f"{name} {sub}")
    if not hasattr(command, "commands"):
        yield name, command


def section(name: str, command) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = " ".join([name, *(_metavar(a) for a in arguments)])
    lines = [f"## {name}", "", _plain(command.help), "", f"```text\n{usage} [OPTIONS]\n```", ""]
    rows = [(_metavar(a), a) for a in arguments]
    rows += [(" ".join((*o.opts, *o.secondary_opts)), o) for o in options if o.name != "help"]
    if rows:
        lines += ["| | | default |", "| --- | --- | --- |"]
        lines += [
            f"| `{label}` | {_plain(getattr(p, 'help', ''))} | {_default(p)} |" for label, p in rows
        ]
    return lines


def _metavar(argument) -> str:
    return argument.metavar or argument.name.upper()


def _plain(text: str | None) -> str:
    return re.sub(r"\s+", " ", (text or "")).replace("|", "\\|").strip()


def _default(parameter) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if isinstance(getattr(parameter, "show_default", None), str):  # words instead of the value
        return parameter.show_default
    if value is None or value is False or value in ((), []) or callable(value):
        return ""
    return f"`{value}`"
