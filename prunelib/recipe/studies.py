"""The studies that a recipe can ask for: one line each."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Section of a recipe → module of its study, in the order in which studies are done. A module is
#: imported when a recipe asks for its study; it has a ``STUDY``
#: (:class:`prunelib.pipeline.stages.study.Study`), whose ``settings`` are what the section holds.
STUDIES = {
    "attribution": "prunelib.pipeline.stages.neurons",
    "steering": "prunelib.pipeline.stages.steering",
    "importance": "prunelib.pipeline.stages.head_importance",
    "in_context_heads": "prunelib.pipeline.stages.in_context_heads",
    "interventions": "prunelib.pipeline.stages.own_interventions",
}


def load_study(section: str) -> Any:
    """The study that a section asks for."""
    return import_module(STUDIES[section]).STUDY
