"""``prunelib timeline``: which worker did what when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import Results, RunName
from jobs.console import console
from jobs.places import check_folder
from prunelib.errors import UserError


def timeline(
    results: Results,
    out: Annotated[Path, typer.Option(
        help="File to write: .json for a Chrome trace, .png, .svg or .pdf for a picture.",
        metavar="FILE")],
    run: RunName = None,
) -> None:
    """Write a run's timeline: which worker did which unit, engines that started, waits.

    A Chrome trace (.json) opens in https://ui.perfetto.dev or chrome://tracing, where each unit
    can be looked at. A picture has a lane for each worker and a colour for each stage.

    Examples:
    - `prunelib timeline --results results/demo --out demo.json`
    - `prunelib timeline --results results/demo --out demo.png`
    """
    from prunelib.results.figures.drawing import FORMATS, drawing
    from prunelib.results.figures.timeline import draw_timeline
    from prunelib.results.query import open_results
    from prunelib.results.report.run import find_run
    from prunelib.results.timeline import chrome_trace
    from prunelib.results.timeline import timeline as read

    kind = out.suffix[1:].lower()
    if kind not in ("json", *FORMATS):
        raise UserError(f"--out {out}: end the name with .json, .png, .svg or .pdf")
    check_folder(out.parent)
    with open_results(results) as connection:
        name = find_run(connection, results, run)["run"]
        spans = read(connection, name)
    if kind == "json":
        out.write_text(json.dumps(chrome_trace(spans, name)) + "\n", "utf-8")
    else:
        with drawing():
            out.write_bytes(draw_timeline(spans, name).written(kind))
    console.print(out)
