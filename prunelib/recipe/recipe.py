"""A recipe: what a user writes, as a frozen pydantic model with a section a module.

A recipe reads like the method section of a paper; nearly every line has a default, and
``prunelib plan`` prints the resolved whole.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from prunelib.errors import UserError, unknown_name
from prunelib.identity import digest
from prunelib.recipe.arms import RankingRequest
from prunelib.recipe.attribution import (
    EACH_TASK,
    AttributionSpec,
    named_method,
    none_or_more,
)
from prunelib.recipe.base import PromptFormatName, Spec, one_or_more, section
from prunelib.recipe.controls import ControlsSpec
from prunelib.recipe.evaluate import EXAMPLES, EvaluateSpec
from prunelib.recipe.interventions import InterventionSpec, named_interventions
from prunelib.recipe.model import ModelSpec, named_model
from prunelib.recipe.problems import Findings, Mistake, mistakes_of, unknown_key
from prunelib.recipe.search import SearchSpec
from prunelib.recipe.studies import STUDIES, load_study
from prunelib.tasks import (
    MIXED,
    SPLITS,
    SUITES,
    TASKS,
    DatasetSpec,
    PairsSpec,
    Split,
    Task,
    TaskSpec,
    build_task,
    get_task,
    notes_on,
    pinned,
    with_folders,
)

Section = TypeVar("Section", bound=Spec)

#: Names that stand for several tasks.
SEVERAL = frozenset({*SUITES, EACH_TASK})


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
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=200)]
    models: Annotated[
        tuple[Annotated[ModelSpec, BeforeValidator(named_model)], ...], BeforeValidator(one_or_more)
    ] = Field(min_length=1)
    #: What evaluates: ``auto`` is vLLM where it is installed and runs the model, else transformers.
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    #: How prompts are written, for attribution, search and evaluation alike (formulas.md §6, row
    #: 8). Of tasks that have formats of their own, such as data sets, that is taken, unless this is
    #: ``chat``: turns of a user and an assistant, as the model's own chat template writes them.
    format: PromptFormatName = "arrow"
    #: The system prompt of ``format: chat``; by default there is none.
    system: Annotated[str, Field(pattern=r"\S")] | None = None
    #: When results are wanted: ``07:00`` (the next one, local time of the driver) or a date and
    #: time. Every model gets its main comparison before any gets extras.
    deadline: Annotated[str | None, BeforeValidator(_clock)] = None
    #: One or several, each a section or the name of a method; the first is the main comparison,
    #: whose search random rankings go through too. ``none`` scores and searches nothing, which is
    #: also what a recipe means that has another study or ``interventions`` and says nothing of it.
    attribution: Annotated[
        tuple[Annotated[AttributionSpec, BeforeValidator(named_method)], ...],
        BeforeValidator(none_or_more),
    ] = (AttributionSpec(),)
    #: Interventions of your own, evaluated beside the untouched model and ``controls.random``
    #: random sets of the same layers, sites and sizes.
    interventions: Annotated[
        tuple[InterventionSpec, ...], BeforeValidator(named_interventions)] = ()
    search: SearchSpec = SearchSpec()
    controls: ControlsSpec = ControlsSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    #: Data sets and files of pairs that are tasks of this recipe, by the names under which other
    #: sections use them.
    tasks: Annotated[tuple[TaskSpec, ...], BeforeValidator(one_or_more)] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _sections(cls, content: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Read the sections of studies too: ``true``, ``false`` or their settings."""
        if not isinstance(content, dict):
            return read(content)
        found: dict[str, Any] = {}
        findings = Findings()
        with findings.at("tasks"):
            content = with_folders(content)
        for key, given in content.items():
            if key in cls.model_fields:
                found[key] = given
            elif key not in STUDIES:
                findings.found.append(Mistake(
                    (key,), unknown_key(str(key), {**cls.model_fields, **STUDIES}), key=True))
            elif (value := section(given)) is not None:
                with findings.at(key):
                    found[key] = load_study(key).settings.read(value, (key,))
        if found.keys() - cls.model_fields or found.get("interventions"):
            found.setdefault("attribution", ())  # nothing of neurons, unless it is said
        try:
            made = read(found)
        except ValidationError as error:
            findings.found += mistakes_of(error, cls, found)
        findings.end()
        return made

    def settings(self, kind: type[Section]) -> Section:
        """The settings of a study, by their class. ``KeyError`` if the recipe has none."""
        for value in (self.model_extra or {}).values():
            if isinstance(value, kind):
                return value
        raise KeyError(f"no section {kind.__name__}")

    def studies(self) -> list[Any]:
        """The studies that are asked for, in the order in which they are done."""
        asked = {name for name in ("attribution", "interventions") if getattr(self, name)}
        asked |= (self.model_extra or {}).keys()
        # Without any, models are evaluated as they are.
        return [load_study(name) for name in STUDIES if name in (asked or {"interventions"})]

    @property
    def run_id(self) -> str:
        """Name of the run: the same recipe is the same run, and continues it."""
        left: dict[str, Any] = {"deadline": True}  # neither changes a number
        if not self.interventions:
            left["interventions"] = True
        if self.evaluate.lm_eval is None:
            left["evaluate"] = {"lm_eval"}
        left["tasks"] = {i: {"correct"} for i, spec in enumerate(self.tasks)
                         if spec.correct is None}
        content = self.model_dump(mode="json", exclude=left)
        return f"{self.name}-{digest('recipe', content)[:8]}"

    def until(self, deadline: str) -> Recipe:
        """The same recipe with another deadline. :class:`UserError` if it is no time."""
        return self.model_copy(update={"deadline": _clock(deadline)})

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
        if MIXED in name:
            for part in name.split(MIXED):
                if self.task(part) and self.dataset(part):
                    raise UserError(f"'{part}' is a task of the recipe, and only bundled tasks are "
                                    "mixed: give it as the only proxy")
            return get_task(name)
        if name in SEVERAL:
            raise UserError(f"'{name}' stands for several tasks; this key takes one task")
        if name not in TASKS:
            known = [*TASKS, *SUITES, EACH_TASK, *(spec.name for spec in self.tasks)]
            raise unknown_name("task", name, known)
        return get_task(name)

    def dataset(self, name: str) -> DatasetSpec | PairsSpec | None:
        """The data set or file of pairs behind a task, if there is one."""
        return next((spec for spec in self.tasks if spec.name == name), None)

    def pinned(self) -> Recipe:
        """The same recipe with every data set at a commit, and every file at an absolute path.

        Raises :class:`UserError` if one is nowhere.
        """
        update: dict[str, Any] = {"tasks": tuple(pinned(spec) for spec in self.tasks)}
        if harness := self.evaluate.lm_eval:
            folders = tuple(str(Path(folder).resolve()) for folder in harness.folders)
            update["evaluate"] = self.evaluate.model_copy(update={
                "lm_eval": harness.model_copy(update={"folders": folders})})
        return self.model_copy(update=update)

    def notes(self) -> list[str]:
        """What a user should know and may not expect, such as inputs that occur twice in a file."""
        return [note for spec in self.tasks for note in notes_on(spec)]

    def ranking_requests(self) -> list[RankingRequest]:
        """Every ranking that is made, in the order of the recipe."""
        return [
            RankingRequest(spec, task, seed, task if spec.proxy == EACH_TASK else None,
                main=place == 0 and seed == spec.seeds[0])
            for place, spec in enumerate(self.attribution)
            for task in (self.evaluate.tasks if spec.proxy == EACH_TASK else (spec.proxy,))
            for seed in spec.seeds
        ]

    def search_task(self, task: str) -> str:
        """The task on whose examples the search decides for what was found on ``task``."""
        return self.search.proxy or task

    def sources(self, name: str, demonstrations: str | None) -> tuple[Split, ...]:
        """Our splits that a key ``demonstrations`` means for a task: none for that of the query.

        It is one of our splits, or one of the data set, which may be several of ours. Raises
        :class:`UserError` if the task has no such split.
        """
        if demonstrations is None or demonstrations in SPLITS:
            return tuple(split for split in SPLITS if split == demonstrations)
        spec = self.dataset(name)
        theirs = spec.splits if isinstance(spec, DatasetSpec) else {}
        if found := tuple(split for split in SPLITS if theirs.get(split) == demonstrations):
            return found
        raise unknown_name(f"split of '{name}' for demonstrations", demonstrations,
                           [*SPLITS, *theirs.values()])

    def examples(self, name: str) -> int:
        """How many examples of a task are reported for each number of shots and seed."""
        asked = self.evaluate.examples
        if isinstance(asked, dict):
            asked = asked.get(name, EXAMPLES)
        return asked if isinstance(asked, int) else self.task(name).queries("report")

    def demonstrations_on(self, split: Split) -> str | None:
        """What the key ``demonstrations`` says for prompts whose queries are of a split."""
        return {"attribute": next((s.demonstrations for s in self.attribution), None),
                "search": self.search.demonstrations,
                "report": self.evaluate.demonstrations}[split]

    def format_on(self, split: Split) -> str:
        """How prompts of a split are written, unless their task has a format of its own."""
        return (self.evaluate.format or self.format) if split == "report" else self.format
