"""Reading a recipe from a file: every mistake is a line that says where it is."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from prunelib.errors import UserError, one_line, shown
from prunelib.recipe.checks import check_recipe
from prunelib.recipe.document import MAX_CHARACTERS, Document, read_document
from prunelib.recipe.problems import Mistake, Mistakes, Place, where
from prunelib.recipe.recipe import Recipe


class Reading:
    """A recipe as far as it could be read, and what is wrong with it.

    Attributes:
        recipe: what was read, with defaults for the ``unread`` sections; ``None`` if that is
            nothing to look at any further.
        unread: sections that have mistakes; what concerns them cannot be checked any further.
    """

    def __init__(self, document: Document, source: str) -> None:
        self._document = document
        self._source = source
        self._found: list[Mistake] = []
        self.recipe: Recipe | None = None
        self.unread: set[str] = set()
        self.add(document.mistakes)
        content = document.content
        if not isinstance(content, dict):
            raise UserError(f"{source}: a recipe is a mapping with at least 'name' and 'models'")
        try:
            self.recipe = Recipe.model_validate(content)
        except Mistakes as error:
            self.add(error.found)
        self.unread = {str(mistake.path[0]) for mistake in self._found if mistake.path}
        if self.recipe is None:
            intact = {key: value for key, value in content.items() if key not in self.unread}
            with suppress(Mistakes):
                self.recipe = Recipe.model_validate({"name": "unread", "models": "unread"} | intact)
        if self.recipe is not None:
            try:
                check_recipe(self.recipe, self.unread)
            except Mistakes as error:
                self.add(error.found)
                self.unread |= {str(mistake.path[0]) for mistake in error.found}

    def add(self, found: Iterable[Mistake]) -> None:
        """Note more mistakes; of one value the first counts."""
        paths = {mistake.path for mistake in self._document.mistakes}
        self._found += [m for m in found if m in self._document.mistakes or m.path not in paths]

    def end(self) -> Recipe:
        """The recipe. Raises :class:`Mistakes` if there are any, in the order of the text."""
        places: dict[str, Place] = {}
        for mistake in self._found:
            place = mistake.place or self._document.place(mistake.path, mistake.key)
            places.setdefault(one_line(mistake.line), place)
        if places or self.recipe is None:
            raise Mistakes(self._found, (f"{self._source}: {where(places[line])}: {line}"
                                         for line in sorted(places, key=places.__getitem__)))
        return self.recipe


def read_recipe(text: str, source: str = "recipe") -> Reading:
    """Read YAML text as far as possible. Raises :class:`UserError` if it is no mapping."""
    try:
        document = read_document(text)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return Reading(document, source)


def parse_recipe(text: str, source: str = "recipe") -> Recipe:
    """Read a recipe from YAML text; its mistakes are a :class:`UserError`, a line each."""
    return read_recipe(text, source).end()


def recipe_text(path: str | Path) -> str:
    """The text of a recipe file. Raises :class:`UserError`."""
    try:
        with Path(path).open("rb") as file:
            return file.read(4 * MAX_CHARACTERS).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file (UTF-8)"
        raise UserError(f"cannot read recipe {shown(str(path))}: {reason}") from error


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file. Raises :class:`UserError`."""
    return parse_recipe(recipe_text(path), str(path))


def stored_recipe(resolved: str) -> Recipe | None:
    """The recipe of a run, as the table ``runs`` has it.

    ``None`` if another version wrote it in a way that this one does not read.
    """
    try:
        return Recipe.model_validate_json(resolved)
    except (ValidationError, UserError):
        return None
