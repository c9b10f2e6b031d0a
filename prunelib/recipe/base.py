"""What every section of a recipe is made of: the base class, checks and shared types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from prunelib.errors import UserError, unknown_name
from prunelib.own_functions import check_form
from prunelib.recipe.problems import Keys, Mistakes, mistakes_of
from prunelib.tasks import CHAT, FORMATS, MAX_SHOTS, MIXED
from prunelib.vocabulary import REFERENCE_METHODS

Rate = Annotated[float, Field(gt=0, lt=1)]
Shots = Annotated[int, Field(ge=0, le=MAX_SHOTS)]
Count = Annotated[int, Field(ge=1)]
Dtype = Literal["float32", "bfloat16", "float16"]


class Spec(BaseModel):
    """Base of every section: frozen, and a key that nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """As in pydantic, but what is wrong is a :class:`~prunelib.errors.UserError`."""
        return cls.read(obj, (), **options)

    @classmethod
    def read(cls, obj: Any, at: Keys, **options: Any) -> Self:
        """As :meth:`model_validate`, of what a recipe has at some keys."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise Mistakes(mistakes_of(error, cls, obj, at)) from error


def one_of(kind: str, names: Iterable[str], own: bool = False) -> AfterValidator:
    """A check that a name is one of ``names``; the error has near matches.

    With ``own`` it may also name a function of the user's, ``package.module:function``.
    """

    def check(name: str) -> str:
        if own and ":" in name:
            check_form(kind, name)
        elif name not in names:
            raise unknown_name(kind, name, [*names, *["package.module:function"] * own])
        return name

    return AfterValidator(check)


def one_or_more(value: Any) -> Any:
    """A list of one where a recipe gives a single value."""
    return value if isinstance(value, list | tuple) else (value,)


def once(values: Iterable[Any]) -> tuple[Any, ...]:
    """The values in their order, each once."""
    return tuple(dict.fromkeys(values))


#: What may be a single value; an empty list is a mistake, and a repeated value is taken once.
ONE_OR_MORE = (BeforeValidator(one_or_more), Field(min_length=1), AfterValidator(once))
#: ``(0,)`` and the like: what draws differ by.
Seeds = Annotated[tuple[int, ...], *ONE_OR_MORE]


def section(value: Any) -> Any:
    """A section that is asked for by ``true``, with its defaults, or left out by ``false``."""
    return {} if value is True else None if value is False else value


PromptFormatName = Annotated[str, one_of("prompt format", (*FORMATS, CHAT))]


def _mixed(value: Any) -> Any:
    """Several proxies are one task, which takes their prompts in turn."""
    if isinstance(value, list | tuple):
        return MIXED.join(str(name) for name in once(value)) or value
    return value


#: A task by name, or several whose prompts are taken in turn.
Proxy = Annotated[str, BeforeValidator(_mixed)]


def check_free_name(key: str, name: str | None) -> None:
    """Raise :class:`UserError` if what a key names is called as a reference of the tables is."""
    if name in REFERENCE_METHODS:
        raise UserError(f"{key}: '{name}' is what the tables call a reference: give it another "
                        "name")
