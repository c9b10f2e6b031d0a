"""Recipes: what a user writes. Frozen pydantic models, read with ``yaml.safe_load``.

A recipe reads like the method section of a paper; nearly every line has a default, and
``prunelib plan`` prints the resolved whole.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from prunelib.errors import UserError, unknown_name
from prunelib.identity import digest
from prunelib.tasks import FORMATS, MAX_SHOTS, get_task, task_names

Rate = Annotated[float, Field(gt=0, lt=1)]
Shots = Annotated[int, Field(ge=0, le=MAX_SHOTS)]
Count = Annotated[int, Field(ge=1)]
Dtype = Literal["float32", "bfloat16", "float16"]

#: Registry of attribution methods and objectives, by name. One line each.
METHODS = ("integrated_gradients",)
OBJECTIVES = ("copy_shift",)


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _model(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


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


def _task(name: str) -> str:
    return get_task(name).name


class ModelSpec(_Spec):
    """A model: ``reference/NAME``, a local folder, or a hub name with an optional revision."""

    id: str
    revision: str | None = None
    dtype: Dtype = "float32"
    #: GPUs over which vLLM splits the model; ``auto`` is as few as hold it.
    tensor_parallel: Count | Literal["auto"] = "auto"
    #: Whether Python code that lies beside the weights may run. It may do anything this user may.
    trust_remote_code: bool = False


class AttributionSpec(_Spec):
    """How components are scored."""

    method: str = "integrated_gradients"
    objective: str = "copy_shift"
    proxy: str = "vowel_counting"
    prompts: Count = 100
    shots: Annotated[int, Field(ge=1, le=MAX_SHOTS)] = 3
    seed: int = 0
    #: Quadrature nodes of a layer are raised until the estimated relative error of its mean
    #: scores is below this, or ``max_nodes`` is reached.
    tolerance: Annotated[float, Field(gt=0)] = 0.02
    max_nodes: Literal[9, 17, 33, 65, 129, 257] = 129
    #: Prompts of one unit of work.
    block: Count = 25

    _proxy = field_validator("proxy")(_task)

    @field_validator("method")
    @classmethod
    def _known_method(cls, name: str) -> str:
        if name not in METHODS:
            raise unknown_name("method", name, METHODS)
        return name

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, name: str) -> str:
        if name not in OBJECTIVES:
            raise unknown_name("objective", name, OBJECTIVES)
        return name


class SearchSpec(_Spec):
    """The grid over layers and rates, on held-out examples of a proxy."""

    layers: Literal["all"] | tuple[Annotated[int, Field(ge=0)], ...] = "all"
    rates: tuple[Rate, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
    proxy: str = "vowel_counting"
    examples: Count = 200
    shots: Annotated[int, Field(ge=1, le=MAX_SHOTS)] = 3
    seed: int = 0

    _proxy = field_validator("proxy")(_task)

    @field_validator("rates")
    @classmethod
    def _ascending(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if not rates:
            raise UserError("search.rates is empty: give at least one rate")
        return tuple(sorted(set(rates)))


class ControlsSpec(_Spec):
    """Random controls: how many random rankings go through the same search."""

    random: Annotated[int, Field(ge=0)] = 1


def _tasks(value: Any) -> tuple[str, ...]:
    return tuple(task_names(value))


class EvaluateSpec(_Spec):
    """What is reported, on the report split."""

    tasks: Annotated[tuple[str, ...], BeforeValidator(_tasks)] = tuple(task_names("icl18"))
    shots: tuple[Shots, ...] = (1, 2, 3, 4)
    seeds: tuple[int, ...] = (0,)
    examples: Count = 100
    format: str = "arrow"

    @field_validator("format")
    @classmethod
    def _known_format(cls, name: str) -> str:
        if name not in FORMATS:
            raise unknown_name("prompt format", name, FORMATS)
        return name


class Recipe(_Spec):
    """One experiment: models, attribution, search, controls, evaluation."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    models: tuple[Annotated[ModelSpec, BeforeValidator(_model)], ...] = Field(min_length=1)
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    #: When results are wanted: ``07:00`` (the next one, local time of the driver) or a date and
    #: time. Every model gets its main comparison before any gets extras.
    deadline: Annotated[str | None, BeforeValidator(_clock)] = None
    attribution: AttributionSpec = AttributionSpec()
    search: SearchSpec = SearchSpec()
    controls: ControlsSpec = ControlsSpec()
    evaluate: EvaluateSpec = EvaluateSpec()

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

    def check_tasks(self) -> None:
        """Raise :class:`UserError` if a task is too small for the shots asked of it."""
        get_task(self.attribution.proxy).check("attribute", self.attribution.shots)
        get_task(self.search.proxy).check("search", self.search.shots)
        for name in self.evaluate.tasks:
            get_task(name).check("report", max(self.evaluate.shots))


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
        recipe.check_tasks()
    except ValidationError as error:
        raise UserError(f"{source}: {_first_problem(error)}") from error
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


def _first_problem(error: ValidationError) -> str:
    """The first mistake that pydantic found, with its place and, for a key, near matches."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section: Any = Recipe
        for part in problem["loc"][:-1]:
            field = section.model_fields.get(part) if isinstance(part, str) else None
            section = ModelSpec if part == "models" else getattr(field, "annotation", section)
        near = get_close_matches(str(problem["loc"][-1]), list(section.model_fields), n=1)
        hint = f": did you mean '{near[0]}'?" if near else (
            f": known keys are {', '.join(section.model_fields)}")
        return f"unknown key '{place}'{hint}"
    return f"{place}: {problem['msg']} (got {problem['input']!r})"
