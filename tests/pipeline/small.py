"""A recipe so small that the whole pipeline takes seconds on the tiny random model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from prunelib.models import ModelInfo
from prunelib.recipe.recipe import Recipe
from prunelib.results.schemas import TABLES
from prunelib.results.storage.store import Store

#: Tables whose rows say how a run went, not what came out.
ABOUT_THE_RUN = {"runs", "units"}


def recipe(info: ModelInfo, **changes: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "small",
        "models": [info.path],
        "engine": "transformers",
        "attribution": {"prompts": 6, "shots": 2, "block": 3, "max_nodes": 17},
        "search": {"rates": [0.1, 0.5], "examples": 12, "shots": 2},
        "controls": {"random": 1},
        "evaluate": {"tasks": ["to_upper", "en_fr"], "shots": [1, 2], "examples": 6},
    }
    return Recipe.model_validate(content | changes)


def rows(results: str | Path) -> dict[str, pa.Table]:
    """Everything that came out, in one order whatever the order of the files."""
    store = Store.open(results, create=False)
    return {
        table: store.read(table).sort_by([(c, "ascending") for c in _sortable(table)])
        for table in TABLES
        if table not in ABOUT_THE_RUN
    }


def _sortable(table: str) -> list[str]:
    return [f.name for f in TABLES[table] if not pa.types.is_list(f.type)]
