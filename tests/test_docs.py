"""Documentation against code: a page that lists choices lists those that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prunelib import specs, specs_heads
from prunelib.tasks import DatasetSpec

CHOICES = (Path(__file__).parent.parent / "docs" / "choices.md").read_text()
_PROSE = re.sub(r"```.*?```", "", CHOICES, flags=re.DOTALL)
NAMED = set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"`([^`]+)`", _PROSE))))


@pytest.mark.parametrize("section", [
    specs.AttributionSpec, specs.ObjectiveSpec, specs.SearchSpec, specs.ControlsSpec,
    specs.FineTuningSpec, specs.EvaluateSpec, specs.TaskVectorsSpec, specs.CapabilitySpec,
    specs_heads.ImportanceSpec, specs_heads.RemovalSpec, specs_heads.InContextHeadsSpec,
    DatasetSpec,
])  # fmt: skip
def test_every_key_of_a_section_is_described(section: type[specs.Spec]) -> None:
    assert set(section.model_fields) <= NAMED


def test_every_name_that_a_recipe_can_choose_is_described() -> None:
    assert {*specs.METHODS, *specs.OBJECTIVES, *specs.STRATEGIES, *specs_heads.RANKINGS,
            *specs_heads.ORDERS} <= NAMED


def test_every_recipe_that_is_named_is_there() -> None:
    root = Path(__file__).parent.parent
    for name in re.findall(r"jobs/recipes/\w+\.yaml", CHOICES):
        assert (root / name).is_file(), name
