"""The page of all commands, from Typer: what each ``--help`` says."""

from __future__ import annotations

import re
from typing import Any

from tools.docs.markdown import GENERATED, plain, table

INTRODUCTION = """\
What `rayprune --help` and `rayprune COMMAND --help` say.

Exit code 0 is done, 1 a run that failed (or a gate that said no), 2 wrong input, 130 an
interruption by Ctrl-C. `--json` puts one JSON object on standard output, errors too; people read
standard error. `--debug` shows the traceback of an error.
"""


def click_commands() -> dict[str, Any]:
    """Return the command line's commands by name, as Click has them."""
    import typer

    from rayprune.cli.app import app

    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def commands_page() -> str:
    """Return docs/reference/commands.md."""
    commands = click_commands()
    listed = table(
        ["command", "what it does"],
        [[f"[`{name}`](#{name})", _summary(command)] for name, command in commands.items()],
    )
    parts = [_section(name, command) for name, command in commands.items()]
    return "\n".join([GENERATED, "", "# Commands", "", INTRODUCTION, listed, "", *parts])


def _paragraphs(command: Any) -> list[str]:
    text = plain(command.help or "").replace("\f", "")
    return [re.sub(r"\s*\n\s*", " ", part).strip() for part in text.split("\n\n") if part.strip()]


def _summary(command: Any) -> str:
    return _paragraphs(command)[0]


def _section(name: str, command: Any) -> str:
    paragraphs = [p for p in _paragraphs(command) if not p.startswith("Example")]
    examples = [
        example.strip()
        for paragraph in _paragraphs(command)
        if paragraph.startswith("Example")
        for example in paragraph.split("Example:")[1:]
    ]
    shown = [f"```console\n$ {example}\n```\n" for example in examples]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(["rayprune", name, *(_metavar(p) for p in arguments), "[OPTIONS]"])
    lines = [f"## {name}", "", "\n\n".join(paragraphs), "", f"`{usage}`", "", *shown]
    if arguments:
        rows = [[f"`{_metavar(p)}`", _help(p)] for p in arguments]
        lines += [table(["argument", "what it is"], rows), ""]
    rows = [[_spelled(p), _help(p), _default(p)] for p in options if not p.hidden]
    lines += [table(["option", "what it does", "default"], rows), ""]
    return "\n".join(lines)


def _metavar(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return f"{name}..." if parameter.nargs == -1 and not name.endswith("...") else str(name)


def _spelled(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.is_flag:
        return names
    return f"{names} `{parameter.metavar or _kind(parameter)}`"


def _kind(parameter: Any) -> str:
    """Return what an option without a metavar takes."""
    if hasattr(parameter, "bare_type"):  # Typer has its own classes now
        return str(parameter.bare_type()).upper()
    return str(parameter.type.name).upper()


def _help(parameter: Any) -> str:
    return plain(getattr(parameter, "help", None) or "")


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.is_flag or parameter.required or value in (None, (), [], ""):
        return ""
    if callable(value) or type(value).__name__ == "Sentinel":
        return ""
    return f"`{value}`"
