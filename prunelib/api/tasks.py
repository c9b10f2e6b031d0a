"""Tasks by name, by their file of pairs, or by a section of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from prunelib.errors import UserError, one_line
from prunelib.tasks import (
    SUITES,
    DatasetSpec,
    Example,
    PairsSpec,
    Split,
    Task,
    TaskSpec,
    build_task,
    draw,
    get_task,
)
from prunelib.tasks.pairs import ENDINGS

_ADAPTER: TypeAdapter[DatasetSpec | PairsSpec] = TypeAdapter(TaskSpec)


@dataclass(frozen=True)
class OpenTask:
    """A task, as :func:`task` gives it.

    Attributes:
        definition: its pairs and rules.
        spec: the section of a recipe that it is, if it is not bundled.
    """

    definition: Task
    spec: DatasetSpec | PairsSpec | None = None

    @property
    def name(self) -> str:
        """What it is called in tables and recipes."""
        return self.definition.name

    def prompts(self, count: int, *, shots: int = 3, seed: int = 0, split: Split = "report",
                format: str = "arrow") -> list[Example]:
        """The first prompts of a split, the very ones that a run with this seed asks.

        Args:
            count: how many; a prompt that was drawn before is left out.
            shots: demonstrations of each.
            seed: of queries and demonstrations.
            split: ``attribute``, ``search`` or ``report``.
            format: ``arrow``, ``example``, ``comma`` or ``colon``; a data set has its own.

        Raises:
            UserError: the split is too small for so many demonstrations.
        """
        return draw(self.definition, split=split, shots=shots, seed=seed, count=count,
                    prompt_format=format)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(self.definition.split(split))} to {split}"
                          for split in ("attribute", "search", "report"))
        return f"task {self.name}: {self.definition.description} (pairs: {sizes})"


def task(source: str | Path | Mapping[str, Any]) -> OpenTask:
    """A task to attribute, to ask or to evaluate.

    Args:
        source: the name of a bundled task (``prunelib tasks`` lists them) or a mixture such as
            ``list_first+to_upper``; a file of pairs (JSON, JSON lines, CSV, TSV); or a section as
            in ``tasks:`` of a recipe, such as ``{"name": "sst2", "dataset": "glue/sst2"}``.

    Raises:
        UserError: there is no such task or file, or it gives no pairs. Near matches are named.
    """
    if isinstance(source, Mapping):
        return _own(dict(source))
    if Path(source).suffix.lower() in ENDINGS:
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(source).stem)
        return _own({"name": name, "pairs": str(Path(source).resolve())})
    return OpenTask(get_task(str(source)))


def _own(section: dict[str, Any]) -> OpenTask:
    try:
        spec = _ADAPTER.validate_python(section)
    except ValidationError as error:
        raise UserError(f"task: {one_line(error)}") from error
    return OpenTask(build_task(spec), spec)


def several(tasks: str | OpenTask | Iterable[str | OpenTask]) -> list[OpenTask]:
    """Tasks and names of tasks or suites, the suites expanded, each task once."""
    given = [tasks] if isinstance(tasks, str | OpenTask) else list(tasks)
    found = {one.name: one for item in given for one in (
        [item] if isinstance(item, OpenTask) else map(task, SUITES.get(item, (item,))))}
    if not found:
        raise UserError("no tasks: name one, or a suite such as icl18")
    return list(found.values())
