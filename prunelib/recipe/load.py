"""Reading a recipe from a file: every mistake is one line that says where it is."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from prunelib.errors import UserError
from prunelib.recipe.problems import first_problem
from prunelib.recipe.recipe import Recipe


def parse_recipe(text: str, source: str = "recipe") -> Recipe:
    """Read a recipe from YAML text; every mistake is a one-line :class:`UserError`."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise UserError(f"{source}:{place} {problem}") from error
    if not isinstance(content, dict):
        raise UserError(f"{source}: a recipe is a mapping with at least 'name' and 'models'")
    try:
        recipe = Recipe.model_validate(content)
        recipe.check()
    except ValidationError as error:
        raise UserError(f"{source}: {first_problem(error, Recipe, content)}") from error
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return recipe


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file. Raises :class:`UserError`."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"cannot read recipe '{path}': {reason}") from error
    return parse_recipe(text, str(path))


def stored_recipe(resolved: str) -> Recipe | None:
    """The recipe of a run, as the table ``runs`` has it.

    ``None`` if another version wrote it in a way that this one does not read.
    """
    try:
        return Recipe.model_validate_json(resolved)
    except (ValidationError, UserError):
        return None
