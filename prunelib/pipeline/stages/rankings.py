"""Rankings: components in the order in which they are switched off, and their random controls."""

from __future__ import annotations

from dataclasses import dataclass

from prunelib.components import Site
from prunelib.errors import UserError
from prunelib.models import ModelInfo, adapter_for
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import PromptsRef
from prunelib.recipe.arms import RankingRequest
from prunelib.recipe.attribution import AttributionSpec
from prunelib.recipe.search import SearchSpec
from prunelib.search.selection import random_order


@dataclass(frozen=True)
class Ranking:
    """Components of every searched layer, the first to be switched off first.

    Attributes:
        method: what it is called in the tables.
        seed: which of several draws, of prompts or of a random order; ``None`` if there is one.
        orders: layer → indices.
        request: what it was made for.
        sample: the prompts that were attributed.
        mass: layer → positive scores, summed; a control has that of what it controls.
    """

    method: str
    seed: int | None
    orders: dict[int, tuple[int, ...]]
    site: Site
    request: RankingRequest
    sample: PromptsRef
    mass: dict[int, float]

    @property
    def random(self) -> bool:
        """Whether no score is behind it."""
        return self.method == "random_search"


def random_rankings(run: ModelRun, ranking: Ranking) -> list[Ranking]:
    """The controls of a ranking: random orders of the same components, for the same search."""
    return [
        Ranking("random_search", seed, {layer: random_components(run, ranking.site, layer, seed)
                                        for layer in run.layers},
                ranking.site, ranking.request, ranking.sample, ranking.mass)
        for seed in range(run.recipe.controls.random_searches)
    ]


def random_components(run: ModelRun, site: Site, layer: int, seed: int) -> tuple[int, ...]:
    """A seeded random order of a layer's components."""
    return random_order(run.info.components(site), layer, seed)


def scored_site(info: ModelInfo, spec: AttributionSpec) -> Site:
    """Where the components sit whose scores an attribution gives."""
    return adapter_for(info.model_type).projection(spec.projection)[1]


def scored_together(run: ModelRun, request: RankingRequest) -> list[tuple[int, ...]]:
    """Groups of layers that are scored together."""
    if request.spec.computation.by_layer:
        return [(layer,) for layer in run.layers]
    return [run.layers]


def pruned_site(info: ModelInfo, spec: AttributionSpec, search: SearchSpec) -> Site:
    """Where components that were scored are switched off.

    Without biases a neuron whose weight row is zero is off, so ``weight_row`` asks for nothing else
    than ``neuron``. Raises :class:`UserError` if the model does not have what is asked for.
    """
    adapter = adapter_for(info.model_type)
    path, site = adapter.projection(spec.projection)
    if search.prune == "neuron" or not info.mlp_bias:
        return site
    if site != "mlp_hidden" or "mlp_row" not in adapter.sites:
        raise UserError(f"search.prune: '{path}' of model '{info.id}' has a bias, and its weight "
                        "rows cannot be pruned alone: use prune: neuron")
    return "mlp_row"
