"""Which weights of a layer belong to its units, in every family that reference models have.

A unit is a hidden unit of an MLP, or a channel of a Mamba mixer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from prunelib.models import adapter_for
from prunelib.models.adapter import units_dim

if TYPE_CHECKING:
    from torch import Tensor

#: ``in``: what the unit reads; ``out``: what it writes; ``own``: what it does in between;
#: ``shared``: what it tells all units of its layer.
Role = Literal["in", "out", "own", "shared"]


@dataclass(frozen=True)
class UnitWeight:
    """A weight or bias that has a part for every unit of a layer.

    Attributes:
        weight: the whole of it.
        dim: its dimension that counts units.
        role: what the part of a unit is for.
        times: how many parts a unit has, the first parts of all units before the second ones.
    """

    weight: Tensor
    dim: int
    role: Role
    times: int = 1

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.weight.shape[self.dim] // self.times

    def places(self, units: Tensor) -> Tensor:
        """Where the parts of some units are, along ``dim``."""
        import torch

        places = [units.to(self.weight.device) + part * self.units for part in range(self.times)]
        return torch.cat(places)

    def norms(self) -> Tensor:
        """The norm of each part, ``[times * units]``."""
        import torch

        rows = self.weight.detach().movedim(self.dim, 0).flatten(1)
        norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
        return norms


def unit_weights(model: Any, layer: int) -> dict[str, UnitWeight]:
    """Weights and biases of a layer's units, by name."""
    adapter = adapter_for(model.config.model_type)
    block: Any = adapter.layers(model)[layer]
    if adapter.site == "mixer_in":
        return _channel_weights(block.mixer)
    found: dict[str, UnitWeight] = {}
    for path in adapter.hidden:
        projection = block.get_submodule(path)
        found[f"{path}.weight"] = UnitWeight(projection.weight, units_dim(projection), "in")
        if projection.bias is not None:
            found[f"{path}.bias"] = UnitWeight(projection.bias, 0, "in")
    switched = block.get_submodule(adapter.switched)
    found[f"{adapter.switched}.weight"] = UnitWeight(switched.weight, 1 - units_dim(switched),
                                                     "out")
    return found


def _channel_weights(mixer: Any) -> dict[str, UnitWeight]:
    """Of a Mamba mixer; each channel has two units at ``mixer_in``: its input and its gate."""
    return {
        "in_proj.weight": UnitWeight(mixer.in_proj.weight, 0, "in", times=2),
        "conv1d.weight": UnitWeight(mixer.conv1d.weight, 0, "own"),
        "conv1d.bias": UnitWeight(mixer.conv1d.bias, 0, "own"),
        "x_proj.weight": UnitWeight(mixer.x_proj.weight, 1, "shared"),
        "dt_proj.weight": UnitWeight(mixer.dt_proj.weight, 0, "own"),
        "dt_proj.bias": UnitWeight(mixer.dt_proj.bias, 0, "own"),
        "A_log": UnitWeight(mixer.A_log, 0, "own"),
        "D": UnitWeight(mixer.D, 0, "own"),
        "out_proj.weight": UnitWeight(mixer.out_proj.weight, 1, "out"),
    }
