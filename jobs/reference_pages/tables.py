"""The page of the tables and views."""

from __future__ import annotations

from jobs.reference_pages.page import Page, code, links, prose, table
from prunelib.results.query import TableInfo, describe_tables


def tables_page() -> Page:
    """Tables first, then views."""
    infos = describe_tables()
    lists = [f"{kind.capitalize()}s: {links(code(i.name) for i in infos if i.kind == kind)}."
             for kind in ("table", "view")]
    return Page(
        "tables.md", "Tables and views",
        "What `prunelib query` can be asked about. Tables are what units of work have written; "
        "views are computed from them at every query. `prunelib tables NAME` prints a section of "
        "this page.\n\n" + "\n\n".join(lists),
        {code(info.name): _section(info) for info in infos})


def _section(info: TableInfo) -> str:
    columns = table(("column", "type", "meaning"), (
        (code(column.name), column.type.lower(), prose(column.description))
        for column in info.columns))
    return f"{info.kind.capitalize()}: {prose(info.description)}\n\n{columns}"
