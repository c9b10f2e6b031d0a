"""Every command, in the order in which ``prunelib --help`` lists them."""

from __future__ import annotations

from importlib import import_module

import typer

_RUNS = "Runs"
_RESULTS = "Results"
_MODELS = "Models and tasks"
_CLUSTER = "Ray cluster"

#: Command → the panel of the help that lists it. The module here of that name holds a function
#: of that name or, for a group of commands, an ``app``.
COMMANDS: dict[str, str] = {
    "validate": _RUNS,
    "plan": _RUNS,
    "prompts": _RUNS,
    "run": _RUNS,
    "watch": _RUNS,
    "doctor": _RUNS,
    "digest": _RESULTS,
    "show": _RESULTS,
    "query": _RESULTS,
    "shell": _RESULTS,
    "catalog": _RESULTS,
    "compare": _RESULTS,
    "tables": _RESULTS,
    "report": _RESULTS,
    "view": _RESULTS,
    "timeline": _RESULTS,
    "verify": _RESULTS,
    "compact": _RESULTS,
    "models": _MODELS,
    "tasks": _MODELS,
    "explain": _MODELS,
    "export": _MODELS,
    "reference": _MODELS,
    "submit": _CLUSTER,
    "status": _CLUSTER,
    "logs": _CLUSTER,
    "stop": _CLUSTER,
}


def add_commands(app: typer.Typer) -> None:
    """Give an app all of them."""
    for name, panel in COMMANDS.items():
        module = import_module(f"jobs.commands.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(getattr(module, name))
