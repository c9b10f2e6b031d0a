"""``prunelib report``: figures of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import Results
from jobs.console import console
from jobs.places import check_folder


def report(
    results: Results,
    out: Annotated[Path, typer.Option(help="Folder for the figures.", metavar="FOLDER")],
) -> None:
    """Draw figures of the results.

    Of every chosen ablation: the grid of the search, and what the ablation did. Of a study of
    heads and FFNs: where important ones are, how rankings agree, and what accuracy is left while
    they are removed.

    Example: `prunelib report --results results/demo --out figures`
    """
    from prunelib.results.figures.report import draw_report
    from prunelib.results.query import open_results

    open_results(results).close()  # without results there are no figures, and no folder
    check_folder(out)
    for path in draw_report(results, out):
        console.print(path)
