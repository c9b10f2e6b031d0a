"""Texts, as against tasks: plain paragraphs whose probability is measured."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from prunelib.errors import UserError


def prose() -> tuple[str, ...]:
    """Paragraphs of plain English, written for this project: a first text for perplexity."""
    return _paragraphs(resources.files("prunelib.tasks").joinpath("data/prose.txt")
                       .read_text("utf-8"))


def text_file(path: str) -> tuple[str, ...]:
    """The paragraphs of a text file, which blank lines part.

    Raises :class:`UserError` if it cannot be read, is no text or has none.
    """
    try:
        found = _paragraphs(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"cannot read text '{path}': {reason}") from error
    if not found:
        raise UserError(f"text '{path}' is empty")
    return found


def _paragraphs(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split(r"\n\s*\n", text) if part.strip())
