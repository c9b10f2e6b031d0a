"""``prunelib explain``: which tokens of a prompt an answer comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from jobs.commands.options import Model, OptionalDigest, OptionalResults, Trust
from jobs.console import console
from jobs.places import check_folder
from jobs.stored_intervention import stored_intervention
from prunelib.errors import UnitError, UserError, unknown_name

if TYPE_CHECKING:
    from prunelib.attribution.explanation import Explanation
    from prunelib.models import ModelInfo
    from prunelib.recipe.recipe import Recipe
    from prunelib.tasks import Example, Task

PICTURES = (".png", ".svg", ".pdf")


class Origin(StrEnum):
    """Where the path of ``prunelib explain`` begins."""

    padding = "padding"
    zero = "zero"


Prompt = Annotated[str | None, typer.Option(help="The prompt.", metavar="TEXT")]
TaskName = Annotated[str | None, typer.Option(
    help="A prompt of this task's report split instead; with --results also of a data set of the "
    "run's recipe.", metavar="NAME")]
Number = Annotated[int, typer.Option(
    min=0, help="Which one, as in `predictions`.", metavar="N")]
Shots = Annotated[int, typer.Option(min=0, help="Its number of demonstrations.", metavar="N")]
Seed = Annotated[int, typer.Option(help="Its seed.", metavar="N")]
Written = Annotated[str | None, typer.Option(
    "--format", help="How it is written, unless its task has a format of its own: arrow, example, "
    "comma or colon; or chat. By default as the run's recipe says, else arrow.", metavar="NAME")]
Answer = Annotated[str | None, typer.Option(
    help="Explain the probability of this answer's first token.", metavar="TEXT")]
Gold = Annotated[bool, typer.Option(
    "--gold", help="Explain the probability of the gold answer's first token.")]
Baseline = Annotated[Origin, typer.Option(
    help="Embeddings where the path of integrated gradients begins.")]
Picture = Annotated[Path | None, typer.Option(
    help="Also draw it: a .png, .svg or .pdf.", metavar="FILE")]


def explain(
    model: Model,
    prompt: Prompt = None,
    task: TaskName = None,
    example: Number = 0,
    shots: Shots = 3,
    seed: Seed = 0,
    written: Written = None,
    intervention: OptionalDigest = None,
    results: OptionalResults = None,
    answer: Answer = None,
    gold: Gold = False,
    baseline: Baseline = Origin.padding,
    out: Picture = None,
    trust: Trust = False,
) -> None:
    """Show which tokens of a prompt an answer comes from.

    With --intervention before and after it. What is explained is the logit of the token that the
    untouched model predicts, unless an answer is given or --gold. Scores are integrated gradients
    of the tokens' embeddings.

    Examples:
    - `prunelib explain reference/llama --prompt "cat->cats, dog->"`
    - `prunelib explain reference/llama-copier --task vowel_counting --example 4
      --intervention 3f2a --results results/demo --out why.png`
    """
    from prunelib.attribution.explanation import explain_prompt
    from prunelib.models import describe, load
    from prunelib.results.figures.token_attribution import draw_tokens

    if out is not None:
        _check_picture(out)
    _check_subject(prompt, task, answer, gold, written)
    stored = None
    if intervention is not None and results is not None:
        stored = stored_intervention(model, intervention, results, trust)
    elif intervention is not None or results is not None:
        raise UserError("--intervention DIGEST and --results R go together")
    info = stored.info if stored else describe(model, None, trust)
    text, wanted, templated = str(prompt), answer, False
    if task is not None:
        drawn = _example(info, task, written, (shots, seed, example),
                         stored.recipes if stored else ())
        if gold and not drawn.gold:
            raise UserError(f"--gold: task '{task}' has no labels in its report split")
        text, wanted = drawn.prompt, drawn.lead + drawn.gold if gold else answer
        templated = drawn.templated
    _check_length(text, info, templated)
    try:
        found = explain_prompt(load(info, stored.dtype) if stored else load(info), text,
                               stored.intervention if stored else None, wanted, baseline.value,
                               templated)
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
    from prunelib.tasks import CHAT, FORMATS

    if (prompt is None) == (task is None):
        raise UserError("give a prompt: either --prompt TEXT or --task NAME")
    if gold and (task is None or answer is not None):
        raise UserError("--gold is for --task, and without --answer")
    if written is not None and task is None:
        raise UserError("--format is for --task: a prompt of your own is taken as it is")
    if written is not None and written not in (known := [*FORMATS, CHAT]):
        raise unknown_name("prompt format", written, known)


def _example(
    info: ModelInfo, task: str, written: str | None, place: tuple[int, int, int],
    recipes: Sequence[Recipe],
) -> Example:
    """A prompt of a task's report split, by shots, seed and number, written as the run did."""
    from prunelib.pipeline.units.prompts import chat_format
    from prunelib.tasks import CHAT, draw

    shots, seed, example = place
    recipe = recipes[0] if recipes else None
    found = written or (recipe.format_on("report") if recipe else "arrow")
    drawn = draw(
        _task(task, recipes), split="report", shots=shots, seed=seed, count=example + 1,
        prompt_format=(chat_format(info, recipe.system if recipe else None) if found == CHAT
                       else found),
        demonstrations=recipe.sources(task, recipe.evaluate.demonstrations) if recipe else ())[-1]
    if drawn.example != example:
        raise UserError(f"--example {example}: task '{task}' has no such prompt with {shots} "
                        "shots: it was drawn before, and equal prompts are asked once")
    return drawn


def _task(name: str, recipes: Sequence[Recipe]) -> Task:
    """A bundled task, or a data set of one of the recipes: of the first that has it."""
    from prunelib.tasks import get_task

    recipe = next((r for r in recipes if r.dataset(name)), recipes[0] if recipes else None)
    return get_task(name) if recipe is None else recipe.task(name)


def _check_picture(out: Path) -> None:
    """Make the folder that it goes to."""
    if out.suffix not in PICTURES:
        raise UserError(f"--out {out}: the name of a picture ends in {' or '.join(PICTURES)}")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: give a file")
    check_folder(out.parent)


def _check_length(text: str, info: ModelInfo, templated: bool) -> None:
    from prunelib.engines.base import Prompt
    from prunelib.engines.limits import model_limits, prompt_error
    from prunelib.models.loading import load_tokenizer
    from prunelib.tasks.tokenization import token_ids

    ids = token_ids(text, load_tokenizer(info), templated)
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
