"""Which weights of a layer belong to its neurons, in every family that reference models have.

A neuron is a hidden neuron of an MLP, or a channel of a Mamba mixer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from prunelib.models import adapter_for
from prunelib.models.adapter import output_dim

if TYPE_CHECKING:
    from torch import Tensor

#: ``in``: what the neuron reads; ``out``: what it writes; ``own``: what it does in between;
#: ``shared``: what it tells all neurons of its layer.
Role = Literal["in", "out", "own", "shared"]


@dataclass(frozen=True)
class NeuronWeight:
    """A weight or bias that has a part for every neuron of a layer.

    Attributes:
        weight: the whole of it.
        dim: its dimension that counts neurons.
        role: what the part of a neuron is for.
        times: how many parts a neuron has, the first parts of all neurons before the second ones.
    """

    weight: Tensor
    dim: int
    role: Role
    times: int = 1

    @property
    def neurons(self) -> int:
        """How many neurons there are."""
        return self.weight.shape[self.dim] // self.times

    def places(self, neurons: Tensor) -> Tensor:
        """Where the parts of some neurons are, along ``dim``."""
        import torch

        places = [neurons.to(self.weight.device) + part * self.neurons
                  for part in range(self.times)]
        return torch.cat(places)

    def norms(self) -> Tensor:
        """The norm of each part, ``[times * neurons]``."""
        import torch

        rows = self.weight.detach().movedim(self.dim, 0).flatten(1)
        norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
        return norms


def neuron_weights(model: Any, layer: int) -> dict[str, NeuronWeight]:
    """Weights and biases of a layer's neurons, by name."""
    adapter = adapter_for(model.config.model_type)
    block: Any = adapter.layers(model)[layer]
    if adapter.site == "mixer_in":
        return _channel_weights(block.mixer)
    found: dict[str, NeuronWeight] = {}
    for path in adapter.hidden:
        projection = block.get_submodule(path)
        found[f"{path}.weight"] = NeuronWeight(projection.weight, output_dim(projection), "in")
        if projection.bias is not None:
            found[f"{path}.bias"] = NeuronWeight(projection.bias, 0, "in")
    switched = block.get_submodule(adapter.switched)
    found[f"{adapter.switched}.weight"] = NeuronWeight(switched.weight, 1 - output_dim(switched),
                                                     "out")
    return found


def _channel_weights(mixer: Any) -> dict[str, NeuronWeight]:
    """Of a Mamba mixer; each channel has two neurons at ``mixer_in``: its input and its gate."""
    return {
        "in_proj.weight": NeuronWeight(mixer.in_proj.weight, 0, "in", times=2),
        "conv1d.weight": NeuronWeight(mixer.conv1d.weight, 0, "own"),
        "conv1d.bias": NeuronWeight(mixer.conv1d.bias, 0, "own"),
        "x_proj.weight": NeuronWeight(mixer.x_proj.weight, 1, "shared"),
        "dt_proj.weight": NeuronWeight(mixer.dt_proj.weight, 0, "own"),
        "dt_proj.bias": NeuronWeight(mixer.dt_proj.bias, 0, "own"),
        "A_log": NeuronWeight(mixer.A_log, 0, "own"),
        "D": NeuronWeight(mixer.D, 0, "own"),
        "out_proj.weight": NeuronWeight(mixer.out_proj.weight, 1, "out"),
    }
