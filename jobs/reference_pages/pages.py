"""Which pages there are."""

from __future__ import annotations

from jobs.reference_pages.commands import commands_page
from jobs.reference_pages.page import Page
from jobs.reference_pages.recipe import recipe_page
from jobs.reference_pages.tables import tables_page


def pages() -> list[Page]:
    """Every page of ``docs/reference`` that is made from the code."""
    return [recipe_page(), tables_page(), commands_page()]
