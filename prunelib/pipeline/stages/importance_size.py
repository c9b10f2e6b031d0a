"""How large an importance study is, from the recipe alone: units of work, and their tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prunelib.heads.ranking import removed_count
from prunelib.models.info import ModelInfo
from prunelib.recipe.heads import ImportanceSpec, RemovalSpec
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import Split


@dataclass(frozen=True)
class ImportanceSize:
    """Units of an importance study.

    Attributes:
        scoring: gradient importance and induction scores.
        ablations: different sets of heads and FFNs, the empty one included; at most, since
            rankings of two tasks may begin alike.
        oracle: evaluations on the search split, the untouched model's included.
        removal: evaluations on the report split; at most, likewise.
    """

    scoring: int = 0
    ablations: int = 0
    oracle: int = 0
    removal: int = 0


def importance_size(recipe: Recipe, layers: int, heads: int) -> ImportanceSize:
    """Units of a model with so many layers, and heads in each of them; none without a study."""
    spec, evaluate = recipe.importance, recipe.evaluate
    if spec is None:
        return ImportanceSize()
    settings = len(evaluate.tasks) * len(evaluate.shots)
    alone = sum(layers * (heads if site == "head" else 1) for site in spec.oracle)
    ablations, evaluations = 0, 0
    if spec.removal is not None:
        ablations, evaluations = _removals(recipe, spec.removal, layers, heads)
        evaluations += settings  # of the untouched model
    return ImportanceSize(
        scoring=settings + bool(spec.sequences),
        ablations=(1 + alone + ablations) if alone or evaluations else 0,
        oracle=(1 + alone) * settings if alone else 0,
        removal=evaluations * len(evaluate.seeds),
    )


def _removals(recipe: Recipe, spec: RemovalSpec, layers: int, heads: int) -> tuple[int, int]:
    """Different ablations, and (ablation, task, shots) that are evaluated."""
    tasks, shots = len(recipe.evaluate.tasks), len(recipe.evaluate.shots)
    steps = [len({removed_count(share, width) for share in spec.fractions} - {0})
             for ranking, width in ((spec.heads, layers * heads), (spec.ffns, layers))
             if ranking != "none"]
    # The closest of other tasks is the farthest where there is one other task.
    relative = min(sum(name in spec.orders for name in ("closest", "farthest")), tasks - 1)
    own = "own" in spec.orders
    by_task = tasks * shots * (own or relative > 0)  # the relatives' orders are own ones of others
    aggregate = shots * ("aggregate" in spec.orders)
    random = spec.random * ("random" in spec.orders)
    ablations = sum(steps) * (by_task + aggregate + random)
    evaluations = sum(steps) * tasks * (shots * (own + relative) + aggregate + random * shots)
    if spec.joint and own and len(steps) == 2:
        at_once = steps[0] * steps[1] * tasks * shots
        return ablations + at_once, evaluations + at_once
    return ablations, evaluations


def importance_tokens(recipe: Recipe, info: ModelInfo, vocabulary: int,
                      tokens: Callable[[str, Split, int], float]) -> dict[str, float]:
    """Stage → prompt tokens that go through a model, and what costs as much as they do.

    ``tokens`` is the mean length of a prompt, by task, split and number of shots.
    """
    spec, evaluate = recipe.importance, recipe.evaluate
    if spec is None:
        return {}
    size = importance_size(recipe, info.layers, info.heads)
    settings = [(task, shots) for task in evaluate.tasks for shots in evaluate.shots]

    def mean(split: Split) -> float:
        return sum(tokens(task, split, shots) for task, shots in settings) / len(settings)

    first = tokens(evaluate.tasks[0], "search", max(evaluate.shots))
    return {
        # Forward and backward, which costs as much when no weight gradients are computed.
        "attribute": 2 * spec.prompts * len(settings) * mean("attribute")
        + _sequences(spec, info, vocabulary),
        "canary": size.ablations * first,
        "evaluate": size.oracle * spec.examples * mean("search")
        + size.removal * evaluate.examples * mean("report"),
    }


def _sequences(spec: ImportanceSpec, info: ModelInfo, vocabulary: int) -> float:
    """Tokens of the random sequences (papers.md §3.3), and what they cost head by head.

    Copying is scored twice, each time with every head's output through the unembedding.
    """
    once = sum(min(4 * (2 * number + 25), vocabulary) for number in range(spec.sequences))
    repeated = sum(4 * min(2 * number + 25, vocabulary) for number in range(spec.sequences))
    unembedding = 2 * info.layers * info.heads * info.stream * vocabulary / info.bytes
    return repeated + 2 * once * (1 + unembedding)
