"""The section ``evaluate.lm_eval``: tasks of lm-evaluation-harness."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from prunelib.errors import UserError
from prunelib.recipe.base import ONE_OR_MORE, Count, Spec, one_or_more
from prunelib.tasks.lm_eval_catalogue import PREFIX, leaves_of


def _bare(value: Any) -> Any:
    """Names without the prefix that they have among other tasks."""
    return [name.removeprefix(PREFIX) if isinstance(name, str) else name
            for name in one_or_more(value)]


class LmEvalSpec(Spec):
    """Tasks of lm-evaluation-harness, asked and scored as it does, by our engines.

    They are reported in the view ``lm_eval``, for the untouched model and everything that is
    evaluated beside it.
    """

    #: Names of tasks, tags and groups, as ``prunelib tasks --lm-eval`` lists them.
    tasks: Annotated[tuple[str, ...], *ONE_OR_MORE, BeforeValidator(_bare)]
    #: Folders with YAML files of tasks of your own (``--include_path`` of the harness).
    folders: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = ()
    #: Demonstrations; by default as many as each task says. A task that says 0 has none.
    shots: Annotated[int, Field(ge=0)] | None = None
    #: By which demonstrations are drawn.
    seed: int = 1234
    #: The first so many documents of each task, or ``all``.
    examples: Count | Literal["all"] = "all"
    #: Whether the model's chat template writes the prompts.
    chat: bool = False
    #: With ``chat``: each demonstration is a turn of its own.
    multiturn: bool = False
    #: The system prompt; by default there is none.
    system: Annotated[str, Field(pattern=r"\S")] | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> LmEvalSpec:
        if self.multiturn and not self.chat:
            raise UserError("multiturn is about turns of a chat: it needs chat: true")
        return self

    @property
    def leaves(self) -> list[str]:
        """The tasks, those of tags and groups each by name.

        Raises :class:`UserError`, with near matches, if a name is unknown.
        """
        return leaves_of(self.tasks, self.folders)

    @property
    def limit(self) -> int | None:
        """Documents of each task at the most."""
        return None if self.examples == "all" else self.examples


def named_tasks(value: Any) -> Any:
    """A section of which the tasks are given alone."""
    return {"tasks": value} if isinstance(value, str | list | tuple) else value
