"""What came out of a run, as tables for people: those of every study that its recipe asks for."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from prunelib.pipeline.stages.registry import studies
from prunelib.pipeline.stages.study import SummaryTable
from prunelib.recipe.recipe import Recipe
from prunelib.results.query import open_results


def run_summary(recipe: Recipe, results: str, run: str) -> tuple[Group, str]:
    """The tables of each study; and a question to ask next (SQL)."""
    connection = open_results(results)
    parts: list[Table | Text] = []
    sql = "select * from runs"
    for study in studies(recipe):
        summary = study.summary(connection, run)
        if summary is not None:
            parts += [Text(f"{run}: {summary.caption}", style="italic"),
                      *map(_table, summary.tables)]
            sql = summary.question
    return Group(*parts), sql


def _table(found: SummaryTable) -> Table:
    """One table; with few columns it fits 80 columns of a terminal."""
    table = Table(title=found.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD,
                  padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False)
    table.add_column(found.columns[0], min_width=20)
    for name in found.columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(*row)
    return table
