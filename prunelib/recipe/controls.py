"""The section ``controls``: what an ablation is compared with."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from prunelib.recipe.base import Count, Spec, section


class FineTuningSpec(Spec):
    """Settings of full fine-tuning with AdamW: no weight decay, no schedule, no dropout.

    The defaults are this project's, as the DSM paper's are not known (formulas.md §2.3): a learning
    rate that is usual for all parameters of a model of billions, and so many small batches that
    the loss on ten samples falls (25 steps). The reference models are small and take ten times
    that rate.
    """

    #: Passes over the samples.
    epochs: Annotated[int, Field(ge=0)] = 5
    #: The same in every step.
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    #: Samples of one step.
    batch_size: Count = 2
    #: Of the order of the samples.
    seed: int = 0


class ControlsSpec(Spec):
    """What an ablation is compared with, besides the untouched model."""

    #: Sets of random components of the layer, site and size of every attribution's choice. They
    #: are draws: an interval of the difference needs two or more.
    random: Annotated[int, Field(ge=0)] = 5
    #: Random rankings that go through the search of the first attribution, each with a choice of
    #: its own. None where ``random`` is 0, unless they are asked for.
    random_searches: Annotated[int, Field(ge=0)] = 3
    #: Full fine-tuning on the very prompts that the first attribution saw, with their labels.
    #: ``true``, or a section.
    fine_tuning: Annotated[FineTuningSpec | None, BeforeValidator(section)] = None

    @model_validator(mode="before")
    @classmethod
    def _without_random_sets(cls, given: Any) -> Any:
        return {"random_searches": 0} | given if isinstance(given, dict) and given.get(
            "random") == 0 else given
