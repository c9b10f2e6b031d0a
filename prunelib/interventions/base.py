"""What an intervention is: something that is done to a model, and can be undone.

Every kind is one file of this folder with one class, and one line in
:mod:`prunelib.interventions.registry`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Self

from prunelib.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunelib.models import Loaded, ModelInfo


class Intervention(ABC):
    """Something that is done to a model. Equal content has an equal digest, whoever computes it.

    Where it came from (method, rate, seed) is not part of it: that stands in the table
    ``interventions``.
    """

    #: Name of the kind, as in the table ``interventions``.
    kind: ClassVar[str]
    #: Whether it makes other weights by training, so that nothing is live in a running model.
    trains: ClassVar[bool] = False

    @property
    @abstractmethod
    def digest(self) -> str:
        """Content digest, by which every table names the intervention."""

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """All of it, as JSON-like values, from which :meth:`from_content` makes an equal one."""

    @classmethod
    @abstractmethod
    def from_content(cls, content: dict[str, Any]) -> Self:
        """The intervention with this content."""

    @abstractmethod
    def check(self, info: ModelInfo) -> None:
        """Raise :class:`UserError` if it cannot be done to a model."""

    @abstractmethod
    def applied(self, loaded: Loaded) -> AbstractContextManager[Loaded]:
        """The model in transformers with the intervention live; within the context only."""

    def written(self, info: ModelInfo) -> PreTrainedModel:
        """The model with the intervention in its weights.

        Raises :class:`UserError` if weights cannot hold it.
        """
        raise UserError(f"an intervention of kind {self.kind} cannot be written into the weights "
                        f"of '{info.id}': give a file that ends in .json for a description of it")

    def __str__(self) -> str:
        return f"{self.kind} {self.digest[:8]}"
