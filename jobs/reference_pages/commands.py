"""The page of the commands: what ``prunelib COMMAND --help`` says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

from typer.main import get_command

from jobs.cli import app
from jobs.commands.registry import COMMANDS
from jobs.reference_pages.page import Page, code, links, table

_EXAMPLES = re.compile(r"^Examples?:", re.MULTILINE)


def commands_page() -> Page:
    """Every command, in the order of the help."""
    sections = {code(f"prunelib {name}"): _section(command) for name, command in every_command()}
    return Page(
        "commands.md", "Commands",
        "What `prunelib COMMAND --help` prints. A mistake that you can correct ends in one line "
        f"and exit code 2.\n\nCommands: {links(sections)}.", sections)


def every_command() -> Iterator[tuple[str, Any]]:
    """Name and command of typer's, those of groups included, by their whole names."""
    top: Any = get_command(app)
    for name in COMMANDS:
        command = top.commands[name]
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())
        else:
            yield name, command


def examples(command: Any) -> list[str]:
    """The examples of a command's help, each on one line."""
    _, _, after = command.help.partition("Example")
    return [" ".join(line.split()) for line in re.findall(r"`([^`]+)`", after)]


def _section(command: Any) -> str:
    text = _EXAMPLES.split(inspect.cleandoc(command.help))[0].strip()
    parts = [text, "```text\n" + "\n".join(examples(command)) + "\n```"]
    if command.params:
        parts.append(table(("argument or option", "default", "meaning"),
                           map(_row, command.params)))
    return "\n\n".join(parts)


def _row(parameter: Any) -> tuple[str, str, str]:
    default = parameter.default
    value = parameter.metavar or ""
    if isinstance(default, Enum):
        value = "|".join(choice.value for choice in type(default))
        default = default.value
    if parameter.param_type_name == "argument":
        name = code(value or parameter.name)
    else:
        first, *others = parameter.opts
        flag = getattr(parameter, "is_flag", False)
        name = ", ".join(map(code, (first if flag else f"{first} {value}", *others)))
    shown = "required" if parameter.required else (
        "" if default in (None, False) or default == () else code(default))
    meaning = parameter.help or ""
    if parameter.envvar:
        meaning += f" Also from the environment variable {code(parameter.envvar)}."
    return name, shown, meaning
