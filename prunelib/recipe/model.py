"""The section ``models``: which models a recipe is about."""

from __future__ import annotations

from typing import Any, Literal

from prunelib.recipe.base import Count, Dtype, Spec

Bos = Literal["auto", "always", "never"]


class ModelSpec(Spec):
    """A model: ``reference/NAME``, a local folder, a GGUF file, or a name on the hub."""

    #: ``reference/NAME``, a local folder, a local ``.gguf`` file, or a name on the hub.
    id: str
    #: Commit, branch or tag on the hub, by default its main branch; of a GGUF file, the SHA-256
    #: that it must have.
    revision: str | None = None
    #: Number format of the weights once they are loaded.
    dtype: Dtype = "float32"
    #: GPUs of one node over which the model is spread, in vLLM and in torch; ``auto`` is as few as
    #: hold it.
    tensor_parallel: Count | Literal["auto"] = "auto"
    #: Whether Python code that lies beside the weights may run. It may do anything this user may.
    trust_remote_code: bool = False
    #: Whether the tokenizer's start token stands in front of every prompt: ``auto`` as the
    #: tokenizer does it, ``always`` or ``never``. A chat template decides by itself.
    bos: Bos = "auto"


def named_model(value: Any) -> Any:
    """A model that is given by its id alone."""
    return {"id": value} if isinstance(value, str) else value
