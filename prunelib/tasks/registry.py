"""Bundled tasks by name, and suites of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prunelib.errors import unknown_name
from prunelib.tasks.base import Task
from prunelib.tasks.bundled import TRAINED
from prunelib.tasks.classification import CLASSIFICATION
from prunelib.tasks.scenarios import CAPABILITY, OOD, PROXIES

TASKS: dict[str, Callable[[], Task]] = (
    TRAINED | PROXIES | OOD | CAPABILITY | CLASSIFICATION)

#: The 18 tasks that Hendel et al. evaluate (papers.md §1.5).
ICL18 = (
    "fr_en", "es_en", "en_fr", "en_es",
    "present_gerund", "present_past", "plural_singular", "antonyms",
    "country_capital", "person_language", "location_continent", "location_religion",
    "next_letter", "prev_letter", "list_first", "list_last", "to_upper", "to_lower",
)  # fmt: skip
SUITES: dict[str, tuple[str, ...]] = {
    "icl18": ICL18,
    "union": tuple(n for n in TRAINED if n != "vowel_counting"),
    #: What the reference models are trained on.
    "all": tuple(TRAINED),
    "proxies": ("vowel_counting", *PROXIES),
    #: Out of the reference models' distribution.
    "ood": tuple(OOD),
    "capability": tuple(CAPABILITY),
    "classification": tuple(CLASSIFICATION),
}


def get_task(name: str) -> Task:
    """The bundled task of this name; :class:`UserError` with near matches if there is none."""
    if name not in TASKS:
        raise unknown_name("task", name, [*TASKS, *SUITES])
    return TASKS[name]()


def task_names(selection: str | Iterable[str]) -> list[str]:
    """Expand names of suites (:data:`SUITES`) and of tasks, in order, once each."""
    chosen = [selection] if isinstance(selection, str) else list(selection)
    names: dict[str, None] = {}
    for name in chosen:
        for member in SUITES.get(name, (name,)):
            names[get_task(member).name] = None
    return list(names)
