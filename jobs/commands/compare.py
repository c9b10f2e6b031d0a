"""``prunelib compare``: two runs or two models, side by side."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from jobs.commands.options import OptionalManyResults
from jobs.console import console, put_pages


class Format(StrEnum):
    """How ``prunelib compare`` prints what it finds."""

    text = "text"
    markdown = "markdown"
    csv = "csv"
    excel = "excel"
    json = "json"


_SIDE = "Run, model (of the latest run that has it), or folder of results (its latest run)."


def compare(
    a: Annotated[str, typer.Argument(help=_SIDE, metavar="A", show_default=False)],
    b: Annotated[str, typer.Argument(help=_SIDE, metavar="B", show_default=False)],
    results: OptionalManyResults = None,
    flips: Annotated[int, typer.Option(
        min=0, help="Examples to show that only one side has right, in each direction.",
        metavar="N")] = 3,
    output: Annotated[Format, typer.Option(
        "--format", "-f", help="text has everything; the others the paired differences alone.")
    ] = Format.text,
) -> None:
    """Compare two runs or models: what changed, and what that did to their answers.

    Says what differs in recipe, versions and weights; then, for answers to the same prompts, the
    difference B - A for each task and number of shots, with an interval over queries and a
    corrected p-value, and which examples flipped. Baselines are compared with baselines and
    choices with choices of the same method. What has no counterpart is listed.

    Examples:
    - `prunelib compare results/monday results/tuesday`
    - `prunelib compare reference/llama-copier reference/llama-young --results results/demo`
    - `prunelib compare demo-2a373af7 demo-5b01c9d2 --results results/demo --format csv`
    """
    from jobs import answer
    from jobs.comparison import comparison
    from prunelib.results.compare.pairs import pair
    from prunelib.results.compare.sides import Sides

    with Sides(results or []) as sides:
        ours, theirs = sides.two(a, b)
        found = pair(ours, theirs, flips)
        if output is Format.text:
            with console.capture() as text:
                console.print(comparison(ours, theirs, found))
            put_pages(text.get(), console)
        else:
            getattr(answer, f"print_{output}")(found.lines)
