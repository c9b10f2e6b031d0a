"""The key ``interventions``: what a user does to a model, under names of their own."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from prunelib.components import Site
from prunelib.errors import UserError
from prunelib.recipe.base import Spec, check_free_name, one_of, one_or_more

SITES: tuple[Site, ...] = get_args(Site)


class ComponentSpec(Spec):
    """A component that is switched off."""

    #: From 0.
    layer: Annotated[int, Field(ge=0)]
    #: Where it sits in its layer.
    site: Annotated[str, one_of("site", SITES)]
    #: Within its layer and site, from 0.
    index: Annotated[int, Field(ge=0)]


class VectorSpec(Spec):
    """A vector that is added to what a place of a layer holds."""

    #: A safetensors file.
    file: str
    #: Which of its tensors, where it has several.
    tensor: str | None = None
    #: From 0.
    layer: Annotated[int, Field(ge=0)]
    #: What a layer gives to the next one (``stream``), what its MLP adds (``mlp_out``), or what
    #: enters the output projection of its MLP (``mlp_hidden``) or attention (``head``).
    place: Literal["stream", "mlp_out", "mlp_hidden", "head"] = "stream"
    #: Factor of the vector.
    strength: float = 1.0
    #: Added from the last token of the prompt on (``answer``), or at that token alone.
    scope: Literal["answer", "prompt_end"] = "answer"


def _component(value: Any) -> Any:
    """A component that is given as ``[layer, site, index]``."""
    if isinstance(value, list | tuple):
        if len(value) != 3:
            raise UserError("a component is {layer: 0, site: mlp_hidden, index: 3} or [0, "
                            f"mlp_hidden, 3], not a list of {len(value)}")
        return dict(zip(("layer", "site", "index"), value, strict=True))
    return value


class InterventionSpec(Spec):
    """An intervention of the user's own: components, a file, a vector, or one of another run."""

    #: What it is called in the tables.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    #: Components that are switched off, each as ``{layer: 0, site: mlp_hidden, index: 3}`` or as
    #: ``[0, mlp_hidden, 3]``.
    components: tuple[Annotated[ComponentSpec, BeforeValidator(_component)], ...] | None = None
    #: A CSV or Parquet file of components with the columns ``layer``, ``site`` and ``index``, or
    #: a JSON file that ``prunelib export`` wrote.
    file: str | None = None
    vector: VectorSpec | None = None
    #: Results of another run, with ``digest``.
    results: str | None = None
    #: The beginning of the digest of an intervention in ``results``.
    digest: Annotated[str | None, Field(pattern=r"^[0-9a-f]{4,32}$")] = None

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        check_free_name("interventions", name)
        return name

    @model_validator(mode="after")
    def _one_source(self) -> InterventionSpec:
        if (self.results is None) != (self.digest is None):
            raise UserError(f"intervention '{self.name}': results and digest go together")
        given = [key for key in ("components", "file", "vector", "results")
                 if getattr(self, key) is not None]
        if len(given) != 1:
            raise UserError(f"intervention '{self.name}' needs one of components, file, vector, or "
                            f"results with digest; it has {' and '.join(given) or 'none'}")
        return self


def named_interventions(value: Any) -> Any:
    """None, one or several interventions."""
    return () if value is None else one_or_more(value)
