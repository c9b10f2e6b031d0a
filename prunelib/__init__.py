"""prunelib: distributed batch evaluation for language-model pruning research.

Score components → choose an intervention → evaluate it against the untouched model and a random
control. Importing this package imports neither torch nor vLLM nor Ray.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunelib import plot
    from prunelib.api.evaluation import Evaluation
    from prunelib.api.model import Model, load
    from prunelib.api.scores import Scores
    from prunelib.api.tasks import OpenTask, task
    from prunelib.errors import UserError
    from prunelib.pipeline.driver import RunReport, run
    from prunelib.recipe.load import load_recipe, parse_recipe
    from prunelib.recipe.recipe import Recipe
    from prunelib.results.query import open_results

__all__ = ["Evaluation", "Model", "OpenTask", "Recipe", "RunReport", "Scores", "UserError",
           "__version__", "load", "load_recipe", "open_results", "parse_recipe", "plot", "run",
           "task"]
__version__ = "0.1.0"

# Nobody is told who uses what. The hub's library reads this once, when it is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Progress is shown by prunelib itself.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

_HOME = {
    "Evaluation": "prunelib.api.evaluation",
    "Model": "prunelib.api.model",
    "load": "prunelib.api.model",
    "Scores": "prunelib.api.scores",
    "OpenTask": "prunelib.api.tasks",
    "task": "prunelib.api.tasks",
    "Recipe": "prunelib.recipe.recipe",
    "load_recipe": "prunelib.recipe.load",
    "parse_recipe": "prunelib.recipe.load",
    "UserError": "prunelib.errors",
    "RunReport": "prunelib.pipeline.driver",
    "run": "prunelib.pipeline.driver",
    "open_results": "prunelib.results.query",
}


def __getattr__(name: str) -> Any:
    if name == "plot":
        return import_module("prunelib.plot")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'prunelib' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
