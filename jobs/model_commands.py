"""The commands that work on one model, as it is or under an ablation of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from jobs.console import console
from prunelib.errors import UnitError, UserError, unknown_name

if TYPE_CHECKING:
    from prunelib.attribution.explanation import Explanation
    from prunelib.models import ModelInfo
    from prunelib.recipe.recipe import Recipe
    from prunelib.results.query import StoredAblation
    from prunelib.tasks import Example, Task

Model = Annotated[str, typer.Argument(help="Model, as the recipe named it.", metavar="MODEL")]
DIGEST = "Digest, or its beginning; see view `chosen`."
RESULTS = "Folder of the results, or s3://bucket/prefix."
Trust = Annotated[bool, typer.Option(
    "--trust-remote-code",
    help="Let code that lies beside the weights run, as the recipe did. It may do anything that "
    "you may.")]
PICTURES = (".png", ".svg", ".pdf")


class Origin(StrEnum):
    """Where the path of ``prunelib explain`` begins."""

    padding = "padding"
    zero = "zero"


def export(
    model: Model,
    ablation: Annotated[str, typer.Option(help=DIGEST)],
    results: Annotated[str, typer.Option("--results", "-r", help=RESULTS)],
    out: Annotated[Path, typer.Option(help="New folder for the checkpoint.")],
    trust: Trust = False,
) -> None:
    """Write a pruned checkpoint, which transformers and vLLM load without prunelib.

    Example: `prunelib export reference/llama-copier --ablation 3f2a --results results/demo
    --out pruned`
    """
    from prunelib.interventions.export import export as write

    info, found = _stored(model, ablation, results, trust)
    console.print(f"{len(found.ablation)} components off: {write(info, found.ablation, out)}")


def explain(
    model: Model,
    prompt: Annotated[str | None, typer.Option(help="The prompt.")] = None,
    task: Annotated[str | None, typer.Option(
        help="A prompt of this task's report split instead; with --results also of a data set of "
        "the run's recipe.")] = None,
    example: Annotated[int, typer.Option(min=0, help="Which one, as in `predictions`.")] = 0,
    shots: Annotated[int, typer.Option(min=0, help="Its number of demonstrations.")] = 3,
    seed: Annotated[int, typer.Option(help="Its seed.")] = 0,
    written: Annotated[str | None, typer.Option(
        "--format", help="How it is written, unless its task has a format of its own: arrow, "
        "example, comma or colon; by default as the run's recipe says, else arrow.")] = None,
    ablation: Annotated[str | None, typer.Option(help=DIGEST)] = None,
    results: Annotated[str | None, typer.Option("--results", "-r", help=RESULTS)] = None,
    answer: Annotated[str | None, typer.Option(
        help="Explain the probability of this answer's first token.")] = None,
    gold: Annotated[bool, typer.Option(
        "--gold", help="Explain the probability of the gold answer's first token.")] = False,
    baseline: Annotated[Origin, typer.Option(
        help="Embeddings where the path of integrated gradients begins.")] = Origin.padding,
    out: Annotated[Path | None, typer.Option(help="Also draw it: a .png, .svg or .pdf.")] = None,
    trust: Trust = False,
) -> None:
    """Which tokens of a prompt the next token comes from, before and after an ablation.

    What is explained is the logit of the token that the untouched model predicts, unless an
    answer is given or --gold. Scores are integrated gradients of the tokens' embeddings.

    Examples: `prunelib explain reference/llama --prompt "cat->cats, dog->"`,
    `prunelib explain reference/llama-copier --task vowel_counting --example 4 --ablation 3f2a
    --results results/demo --out why.png`
    """
    from prunelib.attribution.explanation import explain_prompt
    from prunelib.models import describe, load
    from prunelib.results.figures.token_attribution import draw_tokens

    if out is not None:
        _check_picture(out)
    stored = None
    if ablation is not None or results is not None:
        info, stored = _stored(model, ablation, results, trust)
    else:
        info = describe(model, None, trust)
    _check_subject(prompt, task, answer, gold, written)
    text, wanted = str(prompt), answer
    if task is not None:
        drawn = _example(task, written, (shots, seed, example), stored.recipes if stored else ())
        if gold and not drawn.gold:
            raise UserError(f"--gold: task '{task}' has no labels in its report split")
        text, wanted = drawn.prompt, drawn.lead + drawn.gold if gold else answer
    _check_length(text, info)
    try:
        found = explain_prompt(load(info, stored.spec.dtype) if stored else load(info), text,
                               stored.ablation if stored else None, wanted, baseline.value)
    except UnitError as error:
        raise UserError(str(error)) from error
    console.print(_table(found))
    console.print(f"F: {found.subject}", markup=False, highlight=False)
    if out is not None:
        draw_tokens(found, model, out)
        console.print(out)


def _check_subject(
    prompt: str | None, task: str | None, answer: str | None, gold: bool, written: str | None
) -> None:
    """Raise :class:`UserError` for options that do not go together."""
    from prunelib.tasks import FORMATS

    if (prompt is None) == (task is None):
        raise UserError("give a prompt: either --prompt TEXT or --task NAME")
    if gold and (task is None or answer is not None):
        raise UserError("--gold is for --task, and without --answer")
    if written is not None and task is None:
        raise UserError("--format is for --task: a prompt of your own is taken as it is")
    if written is not None and written not in FORMATS:
        raise unknown_name("prompt format", written, FORMATS)


def _example(
    task: str, written: str | None, place: tuple[int, int, int], recipes: Sequence[Recipe]
) -> Example:
    """A prompt of a task's report split, by shots, seed and number, written as the run did."""
    from prunelib.tasks import draw

    shots, seed, example = place
    found = written or (recipes[0].format_on("report") if recipes else "arrow")
    return draw(_task(task, recipes), split="report", shots=shots, seed=seed, count=example + 1,
                prompt_format=found)[-1]


def _task(name: str, recipes: Sequence[Recipe]) -> Task:
    """A bundled task, or a data set of one of the recipes: of the first that has it."""
    from prunelib.tasks import get_task

    recipe = next((r for r in recipes if r.dataset(name)), recipes[0] if recipes else None)
    return get_task(name) if recipe is None else recipe.task(name)


def _check_picture(out: Path) -> None:
    """Make the folder that it goes to."""
    if out.suffix not in PICTURES:
        raise UserError(f"--out {out}: the name of a picture ends in {' or '.join(PICTURES)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error


def _check_length(text: str, info: ModelInfo) -> None:
    from prunelib.engines.base import Prompt
    from prunelib.engines.limits import model_limits, prompt_error
    from prunelib.models.loading import load_tokenizer

    ids = load_tokenizer(info)(text)["input_ids"]
    if error := prompt_error(Prompt(tuple(ids), 1), *model_limits(info)):
        raise UserError(f"this prompt cannot be explained: {error}")


def _table(found: Explanation) -> Table:
    """One line per token, and below them what the views predict and how exact the scores are."""
    from prunelib.results.figures.token_attribution import visible

    table = Table("token")
    for view in found.views:
        table.add_column(view.name, justify="right")

    def add(name: str, cells: Iterable[str]) -> None:
        table.add_row(Text(name), *map(Text, cells))

    for i, token in enumerate(found.tokens):
        add(visible(token), (f"{view.found.scores[i]:.3g}" for view in found.views))
    table.add_section()
    add("prediction", (repr(view.prediction) for view in found.views))
    add("F of the prompt", (f"{view.found.end:.4g}" for view in found.views))
    add("F where the path begins", (f"{view.found.start:.4g}" for view in found.views))
    add("completeness gap", (f"{view.found.gap:.1e}" for view in found.views))
    add("estimated error", (f"{100 * view.found.error:.1g}%" for view in found.views))
    add("nodes", (str(view.found.nodes) for view in found.views))
    return table


def _stored(model: str, ablation: str | None, results: str | None, trust: bool
            ) -> tuple[ModelInfo, StoredAblation]:
    """An ablation of a finished run, and its model, which must be what it was then.

    Whether the model's code may run is asked of the user: a folder of results, which may be a
    stranger's, says only that it did.
    """
    from prunelib.models import describe
    from prunelib.results.query import find_ablation

    if ablation is None or results is None:
        raise UserError("--ablation DIGEST and --results R go together")
    found = find_ablation(results, model, ablation)
    if found.recipes and found.spec.trust_remote_code != trust:
        raise UserError(f"model '{model}' ran " + (
            f"with its own code in {results}: only --trust-remote-code lets that run here"
            if found.spec.trust_remote_code else
            f"without code of its own in {results}: leave out --trust-remote-code"))
    info = describe(model, found.revision, trust)
    if info.weights_digest != found.weights_digest:
        raise UserError(f"model '{model}' has changed since {results} was made: other weights")
    return info, found


COMMANDS: tuple[Callable[..., None], ...] = (export, explain)
