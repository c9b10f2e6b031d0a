"""``prunelib tasks``: what a recipe can name as a task."""

from __future__ import annotations

from jobs.console import console, listing


def tasks() -> None:
    """List the tasks and data sets that a recipe can name.

    Bundled tasks with an example of each, suites, and data sets that are known by name.

    Example: `prunelib tasks`
    """
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
