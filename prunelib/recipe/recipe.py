"""Recipes: what a user writes. Frozen pydantic models, read with ``yaml.safe_load``.

A recipe reads like the method section of a paper; nearly every line has a default, and
``prunelib plan`` prints the resolved whole.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from prunelib.errors import UserError, unknown_name
from prunelib.identity import digest
from prunelib.recipe.base import (
    EACH_TASK,
    GRADIENT_METHODS,
    AttributionSpec,
    CapabilitySpec,
    ControlsSpec,
    EvaluateSpec,
    ModelSpec,
    PromptFormatName,
    SearchSpec,
    Spec,
    one_or_more,
    section,
)
from prunelib.recipe.heads import ImportanceSpec, InContextHeadsSpec
from prunelib.tasks import (
    FORMATS,
    SUITES,
    TASKS,
    DatasetSpec,
    Split,
    Task,
    build_task,
    draw_labelled,
    get_task,
    orders,
    pinned,
    relabelled,
    text_file,
)

#: Names that stand for several tasks.
_SEVERAL = frozenset({*SUITES, EACH_TASK})


def _model(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


def _attribution(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


def _clock(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, int):  # YAML 1.1 reads 19:00 as a number of base 60
        value = f"{value // 60:02d}:{value % 60:02d}"
    text = str(value).strip().replace(" ", "T")
    try:
        datetime.fromisoformat(text) if "T" in text else time.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"deadline '{value}' is neither a time such as 07:00 nor a date and time "
                        "such as 2026-03-01 07:00") from error
    return text


@dataclass(frozen=True)
class Arm:
    """One ranking that a recipe asks for: an attribution on one task's prompts with one seed.

    Attributes:
        task: whose prompts are attributed.
        only: the task that its ablation is reported on, or ``None`` for all.
        main: whether it is part of the main comparison: random rankings go through its search.
    """

    spec: AttributionSpec
    task: str
    seed: int
    only: str | None
    main: bool


class Recipe(Spec):
    """One experiment: models, attribution, search, controls, evaluation."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    models: Annotated[
        tuple[Annotated[ModelSpec, BeforeValidator(_model)], ...], BeforeValidator(one_or_more)
    ] = Field(min_length=1)
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    #: How prompts are written, for attribution, search and evaluation alike (papers.md §6, row
    #: 8). Of tasks that have formats of their own, such as data sets, that is taken.
    format: PromptFormatName = "arrow"
    #: When results are wanted: ``07:00`` (the next one, local time of the driver) or a date and
    #: time. Every model gets its main comparison before any gets extras.
    deadline: Annotated[str | None, BeforeValidator(_clock)] = None
    #: One or several, each a section or the name of a method; the first is the main comparison,
    #: whose search random rankings go through too. None in a recipe that studies heads and says
    #: nothing of neurons.
    attribution: Annotated[
        tuple[Annotated[AttributionSpec, BeforeValidator(_attribution)], ...],
        BeforeValidator(one_or_more),
    ] = (AttributionSpec(),)
    search: SearchSpec = SearchSpec()
    controls: ControlsSpec = ControlsSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    #: Heads and FFNs: ``true``, or a section.
    importance: Annotated[ImportanceSpec | None, BeforeValidator(section)] = None
    #: Heads that carry labels, and biases that they cause: ``true``, or a section.
    in_context_heads: Annotated[InContextHeadsSpec | None, BeforeValidator(section)] = None
    #: Data sets that are tasks of this recipe, by the names under which other sections use them.
    tasks: Annotated[tuple[DatasetSpec, ...], BeforeValidator(one_or_more)] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_heads_alone(cls, content: Any) -> Any:
        if isinstance(content, dict) and (
                content.get("importance") or content.get("in_context_heads")):
            return {"attribution": ()} | content
        return content

    @property
    def run_id(self) -> str:
        """Name of the run: the same recipe is the same run, and continues it."""
        content = self.model_dump(mode="json", exclude={"deadline"})  # it changes no number
        return f"{self.name}-{digest('recipe', content)[:8]}"

    def deadline_after(self, start: datetime) -> datetime | None:
        """The moment that ``deadline`` means for a run that starts at ``start`` (with a zone)."""
        if self.deadline is None:
            return None
        if "T" in self.deadline:
            moment = datetime.fromisoformat(self.deadline)
            return moment if moment.tzinfo else moment.astimezone()
        local = start.astimezone()
        clock = time.fromisoformat(self.deadline)
        moment = datetime.combine(local.date(), clock).astimezone()
        if moment <= local:
            moment = datetime.combine(local.date() + timedelta(days=1), clock).astimezone()
        return moment

    def task(self, name: str) -> Task:
        """The task of this name. Raises :class:`UserError` if there is none."""
        spec = self.dataset(name)
        if spec is not None:
            return build_task(spec)
        if name in _SEVERAL:
            raise UserError(f"'{name}' stands for several tasks, and here is room for one: name it")
        if name not in TASKS:
            known = [*TASKS, *SUITES, EACH_TASK, *(spec.name for spec in self.tasks)]
            raise unknown_name("task", name, known)
        return get_task(name)

    def dataset(self, name: str) -> DatasetSpec | None:
        """The data set behind a task, if there is one."""
        return next((spec for spec in self.tasks if spec.name == name), None)

    def pinned(self) -> Recipe:
        """The same recipe with every data set at a commit, or at an absolute path.

        Raises :class:`UserError` if a data set is nowhere.
        """
        return self.model_copy(update={"tasks": tuple(pinned(spec) for spec in self.tasks)})

    def arms(self) -> list[Arm]:
        """Every ranking that is made, in the order of the recipe."""
        return [
            Arm(spec, task, seed, task if spec.proxy == EACH_TASK else None,
                main=place == 0 and seed == spec.seeds[0])
            for place, spec in enumerate(self.attribution)
            for task in (self.evaluate.tasks if spec.proxy == EACH_TASK else (spec.proxy,))
            for seed in spec.seeds
        ]

    def search_task(self, arm: Arm) -> str:
        """The task on whose examples an arm's search decides."""
        return self.search.proxy or arm.task

    def format_on(self, split: Split) -> str:
        """How prompts of a split are written, unless their task has a format of its own."""
        return (self.evaluate.format or self.format) if split == "report" else self.format

    def check(self) -> None:
        """Raise :class:`UserError` for what no section can see alone."""
        if not (self.attribution or self.importance or self.in_context_heads):
            raise UserError("attribution is empty: give one, or the section importance or "
                            "in_context_heads")
        labels = Counter(spec.label for spec in self.attribution)
        if twice := [label for label, count in labels.items() if count > 1]:
            raise UserError(f"attribution: two are called '{twice[0]}': give each a name")
        names = Counter(spec.name for spec in self.tasks)
        if twice := [name for name, count in names.items() if count > 1]:
            raise UserError(f"tasks: two are called '{twice[0]}'")
        if taken := sorted(_SEVERAL & names.keys()):
            raise UserError(f"tasks: '{taken[0]}' is reserved, as it stands for several tasks: "
                            "give the data set another name")
        self._check_each_task()
        self._check_answers()
        for arm in self.arms():
            self._check_labels(arm.spec, self.task(arm.task))
            self.task(arm.task).check("attribute", arm.spec.shots, arm.spec.prompts)
            split, examples = self.search.split, self.search.examples
            searched = self.task(self.search_task(arm))
            searched.check(split, self.search.shots, examples if split == "search" else 0)
            if not searched.labelled(split):
                raise UserError(f"search: task '{searched.name}' has no labels in its {split} "
                                "split, by which to choose")
            if split == "attribute" and self.search_task(arm) != arm.task:
                raise UserError("search.split: attribute searches on the prompts that were "
                                f"attributed, of '{arm.task}', not of '{self.search.proxy}'")
            if arm.main and self.controls.fine_tuning and not self.task(arm.task).labelled(
                    "attribute"):
                raise UserError(f"controls.fine_tuning: task '{arm.task}' has no labels in its "
                                "attribute split")
        vectors = self.evaluate.task_vectors
        for name in self.evaluate.tasks:
            if vectors:
                self.task(name).check("search", vectors.shots, vectors.examples)
                self.task(name).check("report", vectors.shots, vectors.examples)
            self._check_reported(name, max(self.evaluate.shots), self.evaluate.examples)
        if self.evaluate.capability:
            self._check_capability(self.evaluate.capability)
        if self.importance:
            self._check_importance(self.importance)
        if self.in_context_heads:
            self._check_in_context(self.in_context_heads)

    def _check_each_task(self) -> None:
        if self.search.proxy == EACH_TASK:
            raise UserError("search.proxy is one task; without it every ablation is searched for "
                            "on the task that was attributed, also with attribution.proxy: "
                            "each_task")
        if EACH_TASK in self.evaluate.tasks:
            raise UserError("evaluate.tasks: each_task is a proxy of attribution, and stands for "
                            "the tasks that are named here")
        if self.evaluate.transfer and all(s.proxy != EACH_TASK for s in self.attribution):
            raise UserError("evaluate.transfer: every ablation is reported on every task anyway, "
                            "unless an attribution has proxy: each_task")

    def _check_in_context(self, spec: InContextHeadsSpec) -> None:
        try:
            if spec.biases:
                orders(2 * spec.each, spec.orders)
            for name in spec.tasks:
                task = relabelled(self.task(name), spec.labels)
                splits: tuple[Split, ...] = ("attribute", "report")
                for split in splits if name == spec.task else splits[1:]:
                    draw_labelled(task, split=split, counts=(spec.each, spec.each), seed=0, count=2)
        except UserError as error:
            raise UserError(f"in_context_heads: {error}") from error

    def _check_importance(self, spec: ImportanceSpec) -> None:
        needed: dict[Split, int] = {"attribute": spec.prompts, "search": spec.examples}
        for name in self.evaluate.tasks:
            for split, examples in needed.items():
                task = self.task(name)
                task.check(split, max(self.evaluate.shots), examples)
                if not task.labelled(split):
                    raise UserError(f"importance: task '{name}' has no labels in its {split} "
                                    "split, by which to see what a component is for")

    def _check_reported(self, name: str, shots: int, examples: int) -> None:
        task = self.task(name)
        task.check("report", shots, examples)
        if not task.labelled("report"):
            raise UserError(f"evaluate: task '{name}' has no labels in its report split, by which "
                            "to count right answers")

    def _check_capability(self, spec: CapabilitySpec) -> None:
        for name in spec.tasks:
            self._check_reported(name, spec.shots, spec.examples)
            if not self.task(name).options:
                raise UserError(f"capability: task '{name}' has no options to choose among")
            if (have := len(self.task(name).split("report"))) < spec.examples:
                raise UserError(f"capability: task '{name}' has {have} questions, fewer than "
                                f"examples: {spec.examples}")
        if spec.text == "prompts":
            for name in self.evaluate.tasks:
                self.task(name).check("report", max(self.evaluate.shots), spec.examples)
        elif spec.text != "prose":
            if not Path(spec.text).exists():
                raise unknown_name("text", spec.text, ["prose", "prompts", "a file's path"])
            text_file(spec.text)

    def _check_answers(self) -> None:
        """Whether every answer can be told from what comes after it."""
        asked = {(name, self.format) for arm in self.arms()
                 for name in (arm.task, self.search_task(arm))}
        asked |= {(name, self.format_on("report")) for name in self.evaluate.tasks}
        if self.evaluate.capability:
            asked |= {(name, self.format_on("report")) for name in self.evaluate.capability.tasks}
        for name, written in sorted(asked):
            task, separator = self.task(name), FORMATS[written].separator
            cut = [y for _, y in task.pairs if separator in y] if task.format is None else []
            if cut:
                raise UserError(f"format {written}: task '{name}' has answers such as '{cut[0]}', "
                                f"which {separator!r} would end: use another format or task")

    def _check_labels(self, spec: AttributionSpec, task: Task) -> None:
        objective = spec.objective
        needs = spec.choose != "random" or (
            objective.needs_labels and spec.method in GRADIENT_METHODS)
        if needs and not task.labelled("attribute"):
            raise UserError(
                f"attribution '{spec.label}': task '{task.name}' has no labels in its attribute "
                "split; objective max_logit and choose: random need none")
        shifts = objective.name == "copy_shift" and not objective.gold_only
        if spec.method in GRADIENT_METHODS and shifts and spec.shots == 0:
            raise UserError(f"attribution '{spec.label}': copy_shift compares answers of "
                            "demonstrations, and shots is 0: use gold_only or max_logit")


def parse_recipe(text: str, source: str = "recipe") -> Recipe:
    """Read a recipe from YAML text; every mistake is a one-line :class:`UserError`."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise UserError(f"{source}:{place} {problem}") from error
    if not isinstance(content, dict):
        raise UserError(f"{source}: a recipe is a mapping with at least 'name' and 'models'")
    try:
        recipe = Recipe.model_validate(content)
        recipe.check()
    except ValidationError as error:
        raise UserError(f"{source}: {_first_problem(error, content)}") from error
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return recipe


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file. Raises :class:`UserError`."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"cannot read recipe '{path}': {reason}") from error
    return parse_recipe(text, str(path))


#: Sections that a recipe may have several of.
_LISTS: dict[str, type[BaseModel]] = {
    "models": ModelSpec, "attribution": AttributionSpec, "tasks": DatasetSpec,
}


def _first_problem(error: ValidationError, content: dict[str, Any]) -> str:
    """The first mistake that pydantic found, with its place and, for a key, near matches."""
    problem = error.errors()[0]
    loc = problem["loc"]
    if loc[1:2] == (0,) and not isinstance(content.get(str(loc[0])), list):
        loc = loc[:1] + loc[2:]  # one mapping, where a list may stand
    place = ".".join(str(part) for part in loc)
    if problem["type"] == "extra_forbidden":
        section: Any = Recipe
        for part in problem["loc"][:-1]:
            field = section.model_fields.get(part) if isinstance(part, str) else None
            kind = getattr(field, "annotation", section)
            section = _LISTS.get(str(part)) or next(iter(get_args(kind)), kind)  # X | None: X
        near = get_close_matches(str(problem["loc"][-1]), list(section.model_fields), n=1)
        hint = f": did you mean '{near[0]}'?" if near else (
            f": known keys are {', '.join(section.model_fields)}")
        return f"unknown key '{place}'{hint}"
    return f"{place}: {problem['msg']} (got {problem['input']!r})"
