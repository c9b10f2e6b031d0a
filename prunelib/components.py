"""Components, and ablations: frozen sets of components that are set to zero."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from prunelib.identity import digest

#: ``mlp_hidden``: a neuron feeding the MLP's output projection; off means that its value entering
#: that projection is zero, bias included. ``mlp_row``: the same neuron, in the papers' projection;
#: off means that its weight row is zero and its bias stays, so that it holds the activation of its
#: bias (papers.md §6, row 5); without a bias the same function as ``mlp_hidden``. ``mixer_in``: an
#: output neuron of a Mamba mixer's input projection; off means that this output is zero.
#: ``mlp_out``: an output neuron of the MLP's output projection; off means that the MLP adds nothing
#: to that dimension of the stream. ``head``: an attention (query) head; off means that its output
#: entering the attention's output projection is zero (papers.md §3.1). ``ffn``: a whole MLP, index
#: 0; off means that it adds nothing to the stream, the bias of its output included.
Site = Literal["mlp_hidden", "mlp_row", "mlp_out", "mixer_in", "head", "ffn"]


@dataclass(frozen=True, order=True)
class Component:
    """Something that can be switched off; ``index`` counts within the layer and site, from 0."""

    layer: int
    site: Site
    index: int


@dataclass(frozen=True)
class Ablation:
    """A frozen set of components set to zero. Equal sets have equal digests.

    The empty ablation is the baseline. Where it came from (method, rate, seed) is not part of
    it: that stands in the table ``ablations``.
    """

    components: tuple[Component, ...] = ()

    @classmethod
    def of(cls, components: Iterable[Component]) -> Ablation:
        """The ablation of these components, in canonical order, each once."""
        return cls(tuple(sorted(set(components))))

    @classmethod
    def of_layer(cls, layer: int, indices: Iterable[int], site: Site = "mlp_hidden") -> Ablation:
        """The ablation of some components of one layer."""
        return cls.of(Component(layer, site, int(i)) for i in indices)

    @functools.cached_property
    def digest(self) -> str:
        """Content digest, the key of every table."""
        return digest("ablation", [[c.layer, c.site, c.index] for c in self.components])

    def by_layer(self, site: Site) -> dict[int, list[int]]:
        """Layer → indices that are off at a site, ascending. Plain ints: it may cross processes."""
        layers: dict[int, list[int]] = {}
        for component in self.components:
            if component.site == site:
                layers.setdefault(component.layer, []).append(component.index)
        return layers

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where components are off, in canonical order."""
        return tuple(sorted({component.site for component in self.components}))

    def __len__(self) -> int:
        return len(self.components)


BASELINE = Ablation()
