"""What came out of a run, as tables for people: those of every study that its recipe asks for."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prunelib.errors import UserError
from prunelib.pipeline.stages.registry import studies
from prunelib.pipeline.stages.study import SummaryTable
from prunelib.recipe.load import stored_recipe
from prunelib.recipe.recipe import Recipe
from prunelib.results.query import open_results
from prunelib.results.report.run import find_run


def run_summary(recipe: Recipe, results: str, run: str) -> tuple[Group, str]:
    """The tables of each study; and a question to ask next (SQL)."""
    connection = open_results(results)
    parts: list[Group | Text] = []
    sql = "select * from runs"
    for study in studies(recipe):
        summary = study.summary(connection, run)
        if summary is not None:
            parts += [Text(f"{run}: {summary.caption}", style="italic"),
                      *map(with_notes, summary.tables)]
            sql = summary.question
    return Group(*parts), sql


def stored_summary(results: str, run: str | None = None) -> RenderableType:
    """The tables of a run that is in the results, the latest unless one is named, and its state.

    Raises :class:`UserError` if there is none, or another version of prunelib wrote its recipe.
    """
    with open_results(results) as connection:
        row = find_run(connection, results, run)
    name = row["run"]
    recipe = stored_recipe(row["resolved"])
    if recipe is None:
        raise UserError(f"the recipe of {name} is of another version of prunelib")
    tables, _ = run_summary(recipe, results, name)
    return Group(tables, Text(f"\n{name}: {row['status']}, {row['units_done']} units done, "
                              f"{row['units_failed']} failed"))


def with_notes(found: SummaryTable) -> Group:
    """One table and what is said below it; with few columns it fits 80 columns of a terminal."""
    table = Table(title=found.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD,
                  padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False)
    table.add_column(found.columns[0], min_width=20)
    for name in found.columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(*row)
    return Group(table, *map(Text, found.notes))
