"""``prunelib digest``: the morning after."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import typer

from jobs.commands.options import Results
from jobs.console import put
from prunelib.errors import UserError

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def digest(
    results: Results,
    since: Annotated[str, typer.Option(
        help="How far back to look, such as 90m, 12h or 3d.", metavar="TIME")] = "12h",
) -> None:
    """Say in twenty lines what happened overnight.

    Runs that ended or go on, what failed and why, models that were left out, each model's best
    choice against the untouched model and against random ones, and what to look at before
    believing it.

    Examples:
    - `prunelib digest --results results/demo`
    - `prunelib digest --results s3://bucket/mine --since 3d`
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", since)
    if found is None:
        raise UserError(f"--since {since}: give minutes, hours or days, such as 90m, 12h or 3d")
    span = timedelta(**{_UNITS[found[2]]: min(float(found[1]), 1e5)})
    from jobs import digest as told

    put("\n".join(told.digest(results, span)) + "\n")
