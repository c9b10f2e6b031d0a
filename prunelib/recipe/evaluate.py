"""The section ``evaluate``: what is reported about the untouched model and every ablation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from prunelib.errors import UserError
from prunelib.recipe.base import (
    ONE_OR_MORE,
    Count,
    PromptFormatName,
    Seeds,
    Shots,
    Spec,
    once,
    one_or_more,
    section,
)
from prunelib.recipe.lm_eval import LmEvalSpec, named_tasks
from prunelib.tasks import MAX_SHOTS, SUITES, task_names
from prunelib.tasks.lm_eval_catalogue import PREFIX

#: Examples of a task where a recipe does not say how many.
EXAMPLES = 100
HowMany = Count | Literal["all"]


class TaskVectorsSpec(Spec):
    """Task vectors (formulas.md §5.1) in the untouched model and in every chosen ablation."""

    #: Demonstrations behind a vector; also those of the in-context learning beside it.
    shots: Annotated[int, Field(ge=1, le=MAX_SHOTS)] = 4
    #: Of the prompts.
    seed: int = 0
    #: Prompts, as many on the search split (where the layer is chosen) as on the report split.
    examples: Count = 50
    #: ``other``: the mean over the vectors of other prompts in which the query does not occur.
    context: Literal["own", "other"] = "own"


def _expanded(value: Any) -> Any:
    """Task names with the suites expanded; names that a recipe defines stay what they are."""
    given = one_or_more(value)
    if not all(isinstance(name, str) for name in given):
        return given  # refused for its type
    return once(task for name in given for task in SUITES.get(name, (name,)))


def _by_task(value: Any) -> Any:
    """Numbers of examples by task, the suites expanded."""
    if not isinstance(value, dict):
        return value
    return {task: count for name, count in value.items() for task in SUITES.get(name, (name,))}


class CapabilitySpec(Spec):
    """What else a model can do before and after, so that a repair is not a broken model.

    None of it is reported with the tasks: it has the view ``capability``.
    """

    #: Whose perplexity is measured: ``prose``, the paragraphs that come with prunelib, is the
    #: default because any language model can read it. A path names a text file, parted into
    #: paragraphs by blank lines. ``prompts`` are the right answers to the reported tasks, each
    #: after its prompt: for models that never read prose, as the reference models.
    text: str = "prose"
    #: Multiple choice: the most probable of a question's options is the answer. A model that is
    #: at chance before, as the small reference models are, cannot be seen to lose anything.
    tasks: Annotated[tuple[str, ...], BeforeValidator(_expanded), Field(min_length=1)] = tuple(
        task_names("capability"))
    #: None by default, so that there is nothing to copy.
    shots: Shots = 0
    #: Questions of each task; with ``text: prompts`` also prompts of each reported task.
    examples: Count = 100


class EvaluateSpec(Spec):
    """What is reported, on the report split."""

    #: Tasks that are reported, suites and the recipe's own data sets included. Names such as
    #: ``lm_eval:boolq`` are those of lm-evaluation-harness, as in ``lm_eval``.
    tasks: Annotated[tuple[str, ...], BeforeValidator(_expanded)] = tuple(task_names("icl18"))
    #: Numbers of demonstrations; every task is reported with each.
    shots: Annotated[tuple[Shots, ...], *ONE_OR_MORE] = (1, 2, 3, 4)
    #: Of the examples and their demonstrations.
    seeds: Seeds = (0,)
    #: Examples of each task, number of shots and seed: a number, ``all`` for every query of the
    #: split once, or a mapping from tasks and suites to these, where other tasks have 100. A pool
    #: that is used up begins again with other demonstrations, and equal prompts are asked once.
    examples: Annotated[HowMany | dict[str, HowMany], BeforeValidator(_by_task)] = EXAMPLES
    #: Split that demonstrations come from: ``attribute``, ``search``, ``report`` or, of a data
    #: set, the name that it has there, such as ``train``; by default that of the query.
    demonstrations: str | None = None
    #: By default that of the recipe; another one shows whether an ablation survives it.
    format: PromptFormatName | None = None
    #: ``options``: where a task's answers are few and known, the most probable of them is the
    #: prediction; else, and everywhere else, what the model writes is. A data set's own
    #: ``scoring`` comes first.
    scoring: Literal["greedy", "options"] = "greedy"
    #: With ``proxy: each_task``: every task's ablation on every task, not only on its own.
    transfer: bool = False
    #: ``true``, or a section.
    task_vectors: Annotated[TaskVectorsSpec | None, BeforeValidator(section)] = None
    #: Perplexity and multiple choice before and after: ``true``, or a section.
    capability: Annotated[CapabilitySpec | None, BeforeValidator(section)] = None
    #: Tasks of lm-evaluation-harness: names, or a section.
    lm_eval: Annotated[LmEvalSpec | None, BeforeValidator(named_tasks)] = None

    @model_validator(mode="before")
    @classmethod
    def _of_the_harness(cls, content: Any) -> Any:
        """Tasks of lm-evaluation-harness in the section that is theirs."""
        if not isinstance(content, dict) or "tasks" not in content:
            return content
        theirs: list[Any] = []
        names: list[Any] = []
        for name in one_or_more(content["tasks"]):
            (theirs if isinstance(name, str) and name.startswith(PREFIX) else names).append(name)
        given = named_tasks(content.get("lm_eval") or {})
        if not theirs or not isinstance(given, dict):
            return content
        tasks = [*one_or_more(given.get("tasks", ())), *theirs]
        return content | {"tasks": names, "lm_eval": given | {"tasks": tasks}}

    @model_validator(mode="after")
    def _some(self) -> EvaluateSpec:
        if not self.tasks and self.lm_eval is None:
            raise UserError("tasks: none are given: leave the key out for the suite icl18")
        return self
