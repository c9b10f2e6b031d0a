"""``prunelib tasks``: what a recipe can name as a task."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.console import console, listing
from prunelib.errors import UserError


def tasks(
    word: Annotated[str, typer.Argument(
        help="With --lm-eval: only names with this in them.", metavar="[WORD]",
        show_default=False)] = "",
    lm_eval: Annotated[bool, typer.Option(
        "--lm-eval", help="Tasks, tags and groups of lm-evaluation-harness instead.")] = False,
    folder: Annotated[list[str] | None, typer.Option(
        help="With --lm-eval: a folder with YAML files of your own tasks; several times for "
        "several.", metavar="FOLDER")] = None,
) -> None:
    """List the tasks and data sets that a recipe can name.

    Bundled tasks with an example of each, suites, and data sets that are known by name.
    With --lm-eval those of lm-evaluation-harness, which a recipe names as `lm_eval:NAME`.

    Example: `prunelib tasks --lm-eval arc_`
    """
    if lm_eval:
        _of_the_harness(word, tuple(folder or ()))
    elif word or folder:
        raise UserError("a word and --folder are for tasks of lm-evaluation-harness: add --lm-eval")
    else:
        _bundled()


def _bundled() -> None:
    from prunelib.tasks import KNOWN, SPLITS, SUITES, TASKS, DatasetSpec, get_task

    table = listing("task", "group", "pairs", "example", "what it asks")
    for name in TASKS:
        task = get_task(name)
        pair = task.split("report")[0]
        pairs = sum(len(task.split(split)) for split in SPLITS)
        table.add_row(name, task.group, str(pairs), f"{pair[0]} → {pair[1]}",
                      task.description)
    console.print(table)
    for suite, names in SUITES.items():
        console.print(f"suite {suite}: {len(names)} tasks")
    table = listing("data set", "on the hub", "answers", "attribute, search, report",
                  title="A recipe's section `tasks` can name:")
    for name in KNOWN:
        spec = DatasetSpec.model_validate(name)
        table.add_row(name, " ".join(filter(None, [spec.path, spec.config])),
                      ", ".join(spec.options), ", ".join(spec.splits[s] for s in SPLITS))
    console.print(table)


def _of_the_harness(word: str, folders: tuple[str, ...]) -> None:
    from prunelib.tasks.lm_eval_catalogue import PREFIX, search, version

    found = search(word, folders)
    table = listing("name", "kind", "in")
    for entry in found:
        place = f"{len(entry.members)} tasks" if entry.path is None else entry.path.parent.name
        table.add_row(f"{PREFIX}{entry.name}", entry.kind, place)
    console.print(table)
    console.print(f"{len(found)} names in lm-evaluation-harness {version()}.")
