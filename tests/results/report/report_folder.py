"""Results made by hand in which a choice beats some of its controls."""

from __future__ import annotations

from typing import Any

from results_folder import RUN, Folder, run_row

#: What a model, a prompt or a task may hold. A page that takes it for markup runs a script.
HOSTILE = "</script><img src=x onerror=\"document.title='taken'\">'&lt;{{ 7*7 }}$x_"
QUERIES = 40


def answer(folder: Folder, intervention: str, right: int, copied: int = 0, **changes: Any) -> None:
    """The first ``right`` queries are answered rightly, the last ``copied`` by a copy."""
    marks = "1" * right + "0" * (QUERIES - right - copied) + "c" * copied
    folder.answers(intervention, marks, **changes)


def add_choice(folder: Folder, controls: list[int], right: int = 36, **changes: Any) -> None:
    """Baseline 20 of 40, the choice ``right``, random sets as given; two layers were tried."""
    folder.add("runs", run_row(
        recipe=f"name: demo # {HOSTILE}", resolved='{"name": "demo", "search": {"n": 1}}',
        packages='{"numpy": "2"}', hardware='{"cores": 2}'), RUN)
    folder.intervention("base", "none", "baseline")
    answer(folder, "base", 20, 8, **changes)
    folder.intervention("ig", "ig", "chosen")
    answer(folder, "ig", right, **changes)
    for seed, count in enumerate(controls):
        folder.intervention(f"r{seed}", "random", "control", seed=seed)
        answer(folder, f"r{seed}", count, 4, **changes)
    searched = changes | {"purpose": "search", "task": "t"}
    answer(folder, "base", 20, 8, **searched)
    for layer in (0, 1):
        cell = "ig" if layer == 1 else "cell0"
        folder.intervention(cell, "ig", "grid", layer=layer)
        answer(folder, cell, right - 10 * (1 - layer), **searched)
