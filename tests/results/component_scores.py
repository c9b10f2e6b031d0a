"""Scores of heads and FFNs: written into a results folder by hand, and read from the view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from results_folder import Folder, rows

Array = Any
Key = tuple[str, str, str | None, int | None]


def rankings(place: Path | Folder) -> dict[Key, Array]:
    """(site, score, task, shots) → ``[layers, components]``, from the view."""
    found: dict[Key, dict[tuple[int, int], float]] = {}
    for row in rows(place, "FROM component_importance"):
        key = row["site"], row["score"], row["task"], row["shots"]
        found.setdefault(key, {})[row["layer"], row["index"]] = row["value"]
    tables = {}
    for key, cells in found.items():
        table = np.full(np.max(list(cells), axis=0) + 1, np.nan)
        for place_, value in cells.items():
            table[place_] = value
        tables[key] = table
    return tables


def add_scores(folder: Folder, values: Array, score: str, site: str = "head",
               task: str | None = "t", shots: int | None = 2) -> None:
    for (layer, index), value in np.ndenumerate(np.asarray(values, float)):
        folder.add("component_scores", {
            "model": "m", "site": site, "layer": layer, "index": index, "score": score,
            "task": task, "shots": shots, "value": float(value), "prompts": 5,
            "unit_id": f"scores-{site}",
        })  # fmt: skip
