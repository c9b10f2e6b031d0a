"""``prunelib prompts``: what a recipe asks, word for word and token for token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from jobs.commands.options import RecipeFile
from jobs.console import console
from prunelib.errors import UnitError, unknown_name

if TYPE_CHECKING:
    from prunelib.models import ModelInfo
    from prunelib.recipe.recipe import Recipe
    from prunelib.tasks import Example, Split


@dataclass(frozen=True)
class _Use:
    """A use of a task in a recipe."""

    section: str
    task: str
    split: Split
    shots: int
    seed: int
    count: int
    demonstrations: str | None


def prompts(
    recipe: RecipeFile,
    task: Annotated[str | None, typer.Option(
        help="Prompts of this task alone.", metavar="NAME")] = None,
    shots: Annotated[int | None, typer.Option(
        min=0, help="With so many demonstrations; by default the most that the recipe asks for.",
        metavar="N")] = None,
    number: Annotated[int, typer.Option(
        "--n", min=1, help="How many prompts of each task.", metavar="N")] = 1,
    model: Annotated[str | None, typer.Option(
        help="Of this model alone, as the recipe names it.", metavar="MODEL")] = None,
) -> None:
    """Show the prompts of a recipe, their answers, and the tokens of both.

    For every section that uses a task, as each of the recipe's models reads it, with all special
    tokens. A line's end is ↵, and in tokens a blank is ␣. No model is loaded but its tokenizer.

    Examples:
    - `prunelib prompts jobs/recipes/demo.yaml`
    - `prunelib prompts jobs/recipes/demo.yaml --task antonyms --shots 3 --n 2`
    """
    from prunelib.models import describe
    from prunelib.recipe.load import load_recipe

    loaded = load_recipe(recipe).pinned()
    specs = [spec for spec in loaded.models if model in (None, spec.id)]
    if not specs:
        raise unknown_name("model of the recipe", str(model), [spec.id for spec in loaded.models])
    uses = list(_uses(loaded))
    if task is not None:
        if task not in (names := {use.task for use in uses}):
            raise unknown_name("task of the recipe", task, names)
        uses = [use for use in uses if use.task == task]
    infos = [describe(spec.id, spec.revision, spec.trust_remote_code, spec.bos) for spec in specs]
    for use in uses:
        _show(loaded, use if shots is None else replace(use, shots=shots), infos, number)


def _uses(recipe: Recipe) -> Iterator[_Use]:
    """Which tasks a recipe asks in which section, each once."""
    found: dict[_Use, None] = {}
    search, evaluate = recipe.search, recipe.evaluate
    for request in recipe.ranking_requests():
        spec = request.spec
        found[_Use("attribution", request.task, "attribute", spec.shots, spec.seeds[0],
                   spec.prompts, spec.demonstrations)] = None
        if search.split == "search":
            found[_Use("search", recipe.search_task(request.task), "search", search.shots,
                       search.seed, search.examples, search.demonstrations)] = None
    for name in evaluate.tasks:
        found[_Use("evaluate", name, "report", max(evaluate.shots), evaluate.seeds[0],
                   recipe.examples(name), evaluate.demonstrations)] = None
    yield from found


def _show(recipe: Recipe, use: _Use, infos: list[ModelInfo], number: int) -> None:
    """Print some prompts of a task; a text that several models read alike is printed once."""
    from prunelib.models.loading import load_tokenizer
    from prunelib.pipeline.units.prompts import written
    from prunelib.tasks import draw

    for place in range(number):
        before = None
        for info in infos:
            drawn = draw(recipe.task(use.task), split=use.split, shots=use.shots, seed=use.seed,
                         count=use.count, prompt_format=written(recipe, info, use.split),
                         demonstrations=recipe.sources(use.task, use.demonstrations))
            if place >= len(drawn):
                return
            example, tokenizer = drawn[place], load_tokenizer(info)
            if before is None:
                source = f", demonstrations: {use.demonstrations}" if use.demonstrations else ""
                _print(f"{use.section}: {use.task}, {use.split} split, {use.shots} shots, example "
                       f"{example.example} (of {len(drawn)}){source}", "bold")
            text = _with_special_tokens(example, tokenizer)
            if text != before:
                _print(text.replace("\n", "↵\n"))
                before = text
            _print(f"{info.id}: {_counted(example, tokenizer)}")
        _print(f"query: {_one_line(example.query)}")
        for choice in example.choices:
            _print(f"{'right' if choice.right else 'wrong'} choice: {_one_line(choice.text)}")
        _print(f"gold answer: {example.gold or 'no label'}\n")


def _with_special_tokens(example: Example, tokenizer: Any) -> str:
    """The prompt with what the tokenizer puts before and after it."""
    from prunelib.tasks.tokenization import token_ids

    ids = token_ids(example.prompt, tokenizer, example.templated)
    bare = token_ids(example.prompt, tokenizer, templated=True)
    for start in range(len(ids) - len(bare) + 1):
        if ids[start : start + len(bare)] == bare:
            around = ids[:start], ids[start + len(bare) :]
            return example.prompt.join(str(tokenizer.decode(some)) for some in around)
    return example.prompt


def _counted(example: Example, tokenizer: Any) -> str:
    """How many tokens a prompt has, and which its gold answer has after it."""
    from prunelib.results.figures.token_attribution import visible
    from prunelib.tasks.tokenization import encode

    try:
        encoded = encode(example, tokenizer)
    except UnitError as error:
        return str(error)
    answer = " ".join(visible(str(tokenizer.decode([token]))) for token in encoded.gold)
    return f"{len(encoded.prompt)} tokens, then {len(encoded.gold)} of the answer: {answer}"


def _one_line(text: str) -> str:
    return text.replace("\n", "↵")


def _print(text: str, style: str = "") -> None:
    console.print(Text(text, style, overflow="fold"))
