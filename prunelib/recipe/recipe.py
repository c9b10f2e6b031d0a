"""A recipe: what a user writes, as a frozen pydantic model with a section a module.

A recipe reads like the method section of a paper; nearly every line has a default, and
``prunelib plan`` prints the resolved whole.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from prunelib.errors import UserError, unknown_name
from prunelib.identity import digest
from prunelib.recipe.arms import RankingRequest
from prunelib.recipe.attribution import EACH_TASK, AttributionSpec, named_method
from prunelib.recipe.base import PromptFormatName, Spec, one_or_more, section
from prunelib.recipe.controls import ControlsSpec
from prunelib.recipe.evaluate import CapabilitySpec, EvaluateSpec
from prunelib.recipe.model import ModelSpec, named_model
from prunelib.recipe.problems import first_problem, unknown_key
from prunelib.recipe.search import SearchSpec
from prunelib.recipe.studies import STUDIES, load_study
from prunelib.tasks import (
    FORMATS,
    SUITES,
    TASKS,
    DatasetSpec,
    Split,
    Task,
    build_task,
    get_task,
    pinned,
    text_file,
)

Section = TypeVar("Section", bound=Spec)

#: Names that stand for several tasks.
_SEVERAL = frozenset({*SUITES, EACH_TASK})


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


class Recipe(Spec):
    """One experiment: models, attribution, search, controls, evaluation.

    Besides the fields here it has a section for every other study of
    :data:`prunelib.recipe.studies.STUDIES` that it asks for.
    """

    model_config = ConfigDict(extra="allow")

    #: How the run's name begins; it ends with a digest of the recipe.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    models: Annotated[
        tuple[Annotated[ModelSpec, BeforeValidator(named_model)], ...], BeforeValidator(one_or_more)
    ] = Field(min_length=1)
    #: What evaluates: ``auto`` is vLLM where it is installed and runs the model, else transformers.
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    #: How prompts are written, for attribution, search and evaluation alike (formulas.md §6, row
    #: 8). Of tasks that have formats of their own, such as data sets, that is taken.
    format: PromptFormatName = "arrow"
    #: When results are wanted: ``07:00`` (the next one, local time of the driver) or a date and
    #: time. Every model gets its main comparison before any gets extras.
    deadline: Annotated[str | None, BeforeValidator(_clock)] = None
    #: One or several, each a section or the name of a method; the first is the main comparison,
    #: whose search random rankings go through too. None in a recipe that studies heads and says
    #: nothing of neurons.
    attribution: Annotated[
        tuple[Annotated[AttributionSpec, BeforeValidator(named_method)], ...],
        BeforeValidator(one_or_more),
    ] = (AttributionSpec(),)
    search: SearchSpec = SearchSpec()
    controls: ControlsSpec = ControlsSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    #: Data sets that are tasks of this recipe, by the names under which other sections use them.
    tasks: Annotated[tuple[DatasetSpec, ...], BeforeValidator(one_or_more)] = ()

    @model_validator(mode="before")
    @classmethod
    def _sections(cls, content: Any) -> Any:
        """Read the sections of studies: ``true``, ``false`` or their settings."""
        if not isinstance(content, dict):
            return content
        found: dict[str, Any] = {}
        for key, given in content.items():
            value = given if key in cls.model_fields else section(given)
            if key not in cls.model_fields and key not in STUDIES:
                raise UserError(unknown_key(str(key), {**cls.model_fields, **STUDIES}))
            if key in cls.model_fields:
                found[key] = value
            elif value is not None:
                kind = load_study(key).settings
                try:
                    found[key] = kind.model_validate(value)
                except ValidationError as error:
                    raise UserError(first_problem(error, kind, value, key)) from error
        if found.keys() - cls.model_fields:
            found.setdefault("attribution", ())  # nothing of neurons, unless it is said
        return found

    def settings(self, kind: type[Section]) -> Section:
        """The settings of a study, by their class. ``KeyError`` if the recipe has none."""
        for value in (self.model_extra or {}).values():
            if isinstance(value, kind):
                return value
        raise KeyError(f"no section {kind.__name__}")

    def studies(self) -> list[Any]:
        """The studies that are asked for, in the order in which they are done."""
        asked = {"attribution"} if self.attribution else set()
        return [load_study(name) for name in STUDIES
                if name in asked or name in (self.model_extra or {})]

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
            raise UserError(f"'{name}' stands for several tasks; this key takes one task")
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

    def ranking_requests(self) -> list[RankingRequest]:
        """Every ranking that is made, in the order of the recipe."""
        return [
            RankingRequest(spec, task, seed, task if spec.proxy == EACH_TASK else None,
                main=place == 0 and seed == spec.seeds[0])
            for place, spec in enumerate(self.attribution)
            for task in (self.evaluate.tasks if spec.proxy == EACH_TASK else (spec.proxy,))
            for seed in spec.seeds
        ]

    def search_task(self, request: RankingRequest) -> str:
        """The task on whose examples a ranking's search decides."""
        return self.search.proxy or request.task

    def format_on(self, split: Split) -> str:
        """How prompts of a split are written, unless their task has a format of its own."""
        return (self.evaluate.format or self.format) if split == "report" else self.format

    def check(self) -> None:
        """Raise :class:`UserError` for what no section can see alone."""
        if not self.studies():
            others = " or ".join(name for name in STUDIES if name != "attribution")
            raise UserError(f"attribution is empty: give one, or the section {others}")
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
        for request in self.ranking_requests():
            self._check_request(request)
        vectors = self.evaluate.task_vectors
        for name in self.evaluate.tasks:
            if vectors:
                self.task(name).check("search", vectors.shots, vectors.examples)
                self.task(name).check("report", vectors.shots, vectors.examples)
            self._check_reported(name, max(self.evaluate.shots), self.evaluate.examples)
        if self.evaluate.capability:
            self._check_capability(self.evaluate.capability)
        for study in self.studies():
            study.check(self)

    def _check_request(self, request: RankingRequest) -> None:
        self._check_labels(request.spec, self.task(request.task))
        self.task(request.task).check("attribute", request.spec.shots, request.spec.prompts)
        split, examples = self.search.split, self.search.examples
        searched = self.task(self.search_task(request))
        searched.check(split, self.search.shots, examples if split == "search" else 0)
        if not searched.labelled(split):
            raise UserError(f"search: task '{searched.name}' has no labels in its {split} "
                            "split, by which to choose")
        if split == "attribute" and self.search_task(request) != request.task:
            raise UserError("search.split: attribute searches on the prompts that were "
                            f"attributed, of '{request.task}', not of '{self.search.proxy}'")
        if request.main and self.controls.fine_tuning and not self.task(request.task).labelled(
                "attribute"):
            raise UserError(f"controls.fine_tuning: task '{request.task}' has no labels in its "
                            "attribute split")

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
        asked = {(name, self.format) for request in self.ranking_requests()
                 for name in (request.task, self.search_task(request))}
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
        evaluates = spec.computation.needs_objective
        needs = spec.choose != "random" or (evaluates and objective.needs_labels)
        if needs and not task.labelled("attribute"):
            raise UserError(
                f"attribution '{spec.label}': task '{task.name}' has no labels in its attribute "
                "split; objective max_logit and choose: random need none")
        if evaluates and objective.compares_answers and spec.shots == 0:
            raise UserError(f"attribution '{spec.label}': {objective.name} compares answers of "
                            "demonstrations, and shots is 0: use gold_only or max_logit")
