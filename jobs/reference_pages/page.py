"""A page made of sections, so that a page and the code can be compared one section at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_NOTE = ("<!-- Made from the code by `make docs`: edit the code's own descriptions instead, and "
         "make it again. -->")


@dataclass(frozen=True)
class Page:
    """A page of Markdown.

    Attributes:
        file: its name in ``docs/reference``.
        intro: what stands below the title.
        sections: heading → text, in order.
    """

    file: str
    title: str
    intro: str
    sections: dict[str, str]

    def text(self) -> str:
        """The whole page."""
        parts = [f"# {self.title}", _NOTE, self.intro]
        parts += [f"## {heading}\n\n{text}" for heading, text in self.sections.items()]
        return "\n\n".join(parts) + "\n"

    def differences(self, text: str) -> list[str]:
        """What is different in a page as it was written, one line for each section."""
        written = _sections(text)
        made = _sections(self.text())
        found = [f"{self.file}: '{name}' is not in the code" for name in written if
                 name not in made]
        found += [f"{self.file}: '{name}' is not on the page" for name in made if
                  name not in written]
        found += [f"{self.file}: '{name}' differs" for name in made if
                  name in written and written[name] != made[name]]
        if not found and list(written) != list(made):
            found.append(f"{self.file}: the sections are in another order")
        return found


def _sections(text: str) -> dict[str, str]:
    """Heading → text of its section; that of the title is what stands above the first heading."""
    title, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    return {"title": title.strip()} | {
        heading.strip(): body.strip() for heading, _, body in (s.partition("\n") for s in sections)}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in line)} |"
        for line in lines)


def links(headings: Iterable[str]) -> str:
    """Links to sections of the same page."""
    return ", ".join(f"[{heading}](#{_anchor(heading)})" for heading in headings)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def code(text: object) -> str:
    """Text as code."""
    return f"`{text}`"


def prose(docstring: str) -> str:
    """A docstring, or a comment, as Markdown: without the markup of Sphinx."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", docstring)
    return text.replace("``", "`").strip()
