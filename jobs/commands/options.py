"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[Path, typer.Argument(help="Recipe file (YAML).", metavar="RECIPE")]
Model = Annotated[str, typer.Argument(help="Model, as the recipe named it.", metavar="MODEL")]
JobId = Annotated[str, typer.Argument(help="Job, as `prunelib submit` printed it.", metavar="JOB")]

_RESULTS = typer.Option(
    "--results", "-r", help="Folder of the results, or s3://bucket/prefix.", metavar="PLACE")
Results = Annotated[str, _RESULTS]
OptionalResults = Annotated[str | None, _RESULTS]
_MANY = typer.Option("--results", "-r", help="Folder of the results, or s3://bucket/prefix; "
                     "several times for several.", metavar="PLACE")
ManyResults = Annotated[list[str], _MANY]
OptionalManyResults = Annotated[list[str] | None, _MANY]
_DIGEST = typer.Option(
    "--intervention", help="Digest of what is done to the model, or its beginning; see view "
    "`chosen`.", metavar="DIGEST")
Digest = Annotated[str, _DIGEST]
OptionalDigest = Annotated[str | None, _DIGEST]
RunName = Annotated[str | None, typer.Option(
    "--run", help="Run; by default the latest.", metavar="RUN")]
Trust = Annotated[bool, typer.Option(
    "--trust-remote-code", help="Let code that lies beside the weights run, as the recipe did. It "
    "may do anything that you may.")]
Address = Annotated[str, typer.Option(
    help="Dashboard of the cluster.", envvar="RAY_API_SERVER_ADDRESS", metavar="URL")]

#: Where a dashboard is unless it was started elsewhere; it is open on its own machine only.
HERE = "http://127.0.0.1:8265"
