"""prunelib: distributed batch evaluation for language-model pruning research.

Score components → choose an ablation → evaluate it against the untouched model and a random
control. Importing this package imports neither torch nor vLLM nor Ray.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunelib.errors import UserError
    from prunelib.pipeline.driver import RunReport, run
    from prunelib.recipe.recipe import Recipe, load_recipe, parse_recipe
    from prunelib.results.query import open_results

__all__ = ["Recipe", "RunReport", "UserError", "load_recipe", "open_results", "parse_recipe", "run"]

# Nobody is told who uses what. The hub's library reads this once, when it is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_HOME = {
    "Recipe": "prunelib.recipe.recipe",
    "load_recipe": "prunelib.recipe.recipe",
    "parse_recipe": "prunelib.recipe.recipe",
    "UserError": "prunelib.errors",
    "RunReport": "prunelib.pipeline.driver",
    "run": "prunelib.pipeline.driver",
    "open_results": "prunelib.results.query",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'prunelib' has no attribute '{name}'")
