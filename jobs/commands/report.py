"""``prunelib report``: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import Results, RunName
from jobs.console import console
from jobs.places import check_folder


def report(
    results: Results,
    run: RunName = None,
    out: Annotated[Path, typer.Option(
        help="File of the page. Its figures go to a folder beside it.", metavar="FILE")
    ] = Path("report.html"),
) -> None:
    """Write a run's report: one HTML file that needs no network and no other file.

    It says in words what was found and what was not, and has tables with their SQL, figures and
    single examples. Beside it, the folder `NAME-figures` has each figure as PDF, SVG and PNG.

    Example: `prunelib report --results results/demo --out demo.html`
    """
    from prunelib.results.figures.drawing import processes
    from prunelib.results.query import open_results
    from prunelib.results.report.html import build
    from prunelib.results.report.run import find_run

    with open_results(results) as connection:  # without results there is no report, and no folder
        row = find_run(connection, results, run)
        check_folder(out.parent)
        figures = out.with_name(f"{out.stem}-figures")
        with processes() as ready:
            made = build(connection, row, figures.name, processes=ready)
            files = {name: made.file(name) for name in made.files}
    out.write_text(made.html, "utf-8")
    console.print(out)
    if files:
        check_folder(figures)
    for name, content in files.items():
        (figures / name).write_bytes(content or b"")
        console.print(figures / name)
