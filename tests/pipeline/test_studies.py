"""Studies: found by their sections, known by name to nobody but the registry."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

import pytest

from prunelib.errors import UserError
from prunelib.models import ModelInfo
from prunelib.pipeline import driver, plan, progress
from prunelib.pipeline.stages.study import Count, Study, exactly
from prunelib.pipeline.units.steps import Batch, Step, UnitsFailed, needs, offers, resume, together
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.recipe.recipe import Recipe
from prunelib.recipe.studies import STUDIES, load_study


@pytest.mark.parametrize("module", [driver, plan, progress], ids=lambda module: module.__name__)
def test_who_runs_a_recipe_knows_no_study(module: ModuleType) -> None:
    source = inspect.getsource(module)
    for section, home in STUDIES.items():
        assert home not in source and home.rpartition(".")[2] not in source
        assert f".{section}" not in source  # as a key of the recipe


def test_every_section_leads_to_its_study() -> None:
    for section in STUDIES:
        study = load_study(section)
        assert isinstance(study, Study) and study.section == section


@pytest.mark.parametrize(("section", "message"), [
    ({"importance": {"promts": 1}}, "unknown key 'importance.promts': did you mean 'prompts'?"),
    ({"importnce": True}, "unknown key 'importnce': did you mean 'importance'?"),
    ({"importance": {"removal": {"fractions": [2]}}},
     "importance.removal.fractions.0: Input should be less than 1"),
])  # fmt: skip
def test_a_wrong_section_is_one_line(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe.model_validate({"name": "x", "models": ["reference/llama"]} | section)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_sections_are_settings_and_come_back_from_json() -> None:
    made = Recipe.model_validate({"name": "x", "models": ["reference/llama"],
                                  "importance": {"prompts": 7}, "in_context_heads": False})
    assert [study.section for study in made.studies()] == ["importance"]
    assert made.attribution == ()  # nothing of neurons, unless it is said
    kind = load_study("importance").settings
    assert made.settings(kind).prompts == 7
    again = Recipe.model_validate_json(made.model_dump_json())
    assert again == made and again.run_id == made.run_id
    with pytest.raises(KeyError):
        made.settings(load_study("in_context_heads").settings)


class Named(Job):
    """A job that does nothing."""

    kind: ClassVar[str] = "named"
    stage = "evaluate"
    table: ClassVar[str] = "predictions"

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "dtype", name)

    def describe(self) -> str:
        return self.dtype

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        return []


@pytest.fixture
def units(info: ModelInfo) -> Iterator[dict[str, Unit]]:
    yield {name: Unit(info, Named(name)) for name in "abcd"}


def run(step: Step[Any], failed: set[str], seen: list[list[str]]) -> Any:
    """Go through a step; ``seen`` gets what each batch asks for."""
    asked: Batch | None = None
    try:
        while True:
            asked = resume(step, asked, failed)
            seen.append([unit.job.describe() for unit in asked.units])
    except StopIteration as end:
        return end.value


def test_a_step_goes_on_without_what_it_only_offers(units: dict[str, Unit]) -> None:
    def step() -> Step[str]:
        yield Batch(needed=(units["a"],), offered=(units["b"],))
        yield offers([units["c"]])
        return "done"

    seen: list[list[str]] = []
    assert run(step(), {units["b"].id, units["c"].id}, seen) == "done"
    assert seen == [["a", "b"], ["c"]]
    with pytest.raises(UnitsFailed, match=r"1 of 1 units that the next step needs failed.*a \("):
        run(step(), {units["a"].id}, [])


def test_of_steps_side_by_side_the_one_whose_units_failed_is_told(units: dict[str, Unit]) -> None:
    def step(first: str, second: str) -> Step[str]:
        try:
            yield needs([units[first]])
        except UnitsFailed:
            return f"without {first}"
        yield needs([units[second]])
        return f"with {second}"

    seen: list[list[str]] = []
    found = run(together([step("a", "b"), step("c", "d")]), {units["a"].id}, seen)
    assert found == ["without a", "with d"] and seen == [["a", "c"], ["d"]]
    with pytest.raises(UnitsFailed):
        run(together([step("a", "b"), step("c", "d")]), {units["d"].id}, [])


def test_counts_add_up() -> None:
    assert Count(1, 3) + exactly(2) == Count(3, 5)
    assert exactly(2).exact and not Count(1, 3).exact
