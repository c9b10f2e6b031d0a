"""Loading of models, their identity, and one adapter per architecture family."""

from prunelib.models.info import ModelInfo, describe, planted_neurons, reference_models
from prunelib.models.loading import Loaded, load
from prunelib.models.registry import adapter_for

__all__ = ["Loaded", "ModelInfo", "adapter_for", "describe", "load", "planted_neurons",
           "reference_models"]
