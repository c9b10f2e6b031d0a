"""Methods, objectives, strategies and ways to steer by name: what a recipe can choose.

Each has one line here and one file elsewhere. The lines name functions and import none of them,
so that a recipe is read without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Method:
    """What the rest of prunelib asks about a way to score components.

    Attributes:
        name: what a recipe calls it.
        scorer: ``module:function`` of type :data:`prunelib.attribution.scorers.base.Scorer`, or
            ``None`` for what no such function computes.
        quadrature: whether gradients at the nodes of a quadrature rule are computed, level by
            level. What has neither this nor a scorer runs nothing.
        needs_objective: whether it evaluates an objective, so that the choice of one matters.
        by_layer: whether each layer is a unit of work of its own, as that is long; else one unit
            has all of them.
        passes: forward passes of a prompt, a backward pass counted as one more; of each layer
            ``by_layer``, else in all. ``None``: one for each neuron. What runs without a pass
            counts as one, as plans tell time by passes.
        passes_to_tolerance: the same of integrated gradients with a tolerance.
        takes: keys of an attribution that mean something to it, of those that not all take.
    """

    name: str
    scorer: str | None = None
    quadrature: bool = False
    needs_objective: bool = False
    by_layer: bool = False
    passes: float | None = 1
    passes_to_tolerance: float = 2 * 9
    takes: tuple[str, ...] = ("projection", "objective.tokens")

    @property
    def runs(self) -> bool:
        """Whether anything is computed with the model."""
        return self.quadrature or self.scorer is not None

    def cost(self, layers: float, width: int) -> float:
        """Forward passes of a prompt through a whole model.

        Args:
            layers: the layers that are scored, each as the share of the model that is run for it.
            width: neurons of a layer.
        """
        return (layers if self.by_layer else 1.0) * (width if self.passes is None else self.passes)


_SCORERS = "prunelib.attribution.scorers"
_INTEGRATED = ("path", "variant", "projection", "objective.tokens")

#: Attribution methods by name. Integrated gradients begin with 4 nodes and both ends of the path,
#: or with 9 nodes where they have a tolerance, and most layers end there.
METHODS: dict[str, Method] = {method.name: method for method in (
    Method("integrated_gradients", quadrature=True, needs_objective=True, by_layer=True,
           passes=2 * 4 + 2, takes=_INTEGRATED),
    Method("iterated_path", f"{_SCORERS}.iterated_path:iterated_path", needs_objective=True,
           by_layer=True, passes=2 * (16 + 9), takes=()),
    Method("gradient_activation", f"{_SCORERS}.gradient_activation:gradient_activation",
           needs_objective=True, passes=2),
    Method("activation", f"{_SCORERS}.activation:activation"),
    Method("weight", f"{_SCORERS}.weight:weight"),
    Method("wanda", f"{_SCORERS}.wanda:wanda"),
    Method("random", passes=0),
)}  # fmt: skip

#: Paths of integrated gradients that are computed in another way than layer by layer.
PATHS: dict[str, Method] = {method.name: method for method in (
    Method("joint", quadrature=True, needs_objective=True, passes=2 * 4 + 2,
           takes=_INTEGRATED),
    Method("single", f"{_SCORERS}.single:single", needs_objective=True, by_layer=True,
           passes=None, takes=("path", "projection", "objective.tokens")),
)}  # fmt: skip


def method_of(name: str) -> Method:
    """The attribution method of this name, or a user's own scorer, ``package.module:function``."""
    return METHODS.get(name) or Method(name, name, needs_objective=True, passes=2)


@dataclass(frozen=True)
class KnownObjective:
    """What the rest of prunelib asks about an objective.

    Attributes:
        maker: ``module:function`` that makes it from the recipe's
            :class:`~prunelib.recipe.attribution.ObjectiveSpec`.
        needs_labels: whether it reads gold answers.
        compares_answers: whether it compares answers of demonstrations, so that there have to be
            some, and of different first tokens.
        switches: whether it has those of ``ObjectiveSpec``.
    """

    maker: str
    needs_labels: bool = True
    compares_answers: bool = False
    switches: bool = False


_OBJECTIVES = "prunelib.attribution.objectives"

#: Objectives by name; a user's own is named ``package.module:function``.
OBJECTIVES: dict[str, KnownObjective] = {
    "copy_shift": KnownObjective(f"{_OBJECTIVES}.copy_shift:make", compares_answers=True,
                                 switches=True),
    "max_logit": KnownObjective(f"{_OBJECTIVES}.max_logit:make", needs_labels=False),
}

#: Search strategies by name: ``module:function`` of type
#: :data:`prunelib.search.strategies.Strategy`.
STRATEGIES: dict[str, str] = {
    "exhaustive": "prunelib.search.strategies:exhaustive",
    "coarse_to_fine": "prunelib.search.strategies:coarse_to_fine",
    "attribution_mass": "prunelib.search.strategies:attribution_mass",
    "successive_halving": "prunelib.search.strategies:successive_halving",
}


@dataclass(frozen=True)
class SteeringMethod:
    """A way to steer.

    Attributes:
        maker: ``module:function`` that makes the steering from what right and wrong answers differ
            in, of a layer or a number of components, and of a strength.
        place: what is read and changed; ``None`` of a user's own, which may take any.
        sizes: numbers of components that are tried; none where a layer is chosen instead.
        strongest: the largest strength that is tried.
        probes: whether it needs a probe of each head.
    """

    maker: str
    place: Literal["stream", "mlp_out", "mlp_hidden", "head"] | None
    sizes: tuple[int, ...]
    strongest: float
    probes: bool = False


_INTERVENTIONS = "prunelib.interventions"

#: Steering methods by name, with the ranges that their authors try (formulas.md §5.6).
STEERING: dict[str, SteeringMethod] = {
    "iti": SteeringMethod(f"{_INTERVENTIONS}.iti:iti", "head", (4, 8, 16, 32, 48, 64, 96), 30.0,
                          probes=True),
    "caa": SteeringMethod(f"{_INTERVENTIONS}.caa:caa", "stream", (), 2.0),
    "sadi_hidden": SteeringMethod(f"{_INTERVENTIONS}.sadi:sadi_hidden", "mlp_out",
                                  (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20), 79.0),
    "sadi_neuron": SteeringMethod(f"{_INTERVENTIONS}.sadi:sadi_neuron", "mlp_hidden",
                                  (3, 5, 10, 30, 50, 100, 200, 300, 400, 500), 89.0),
    "sadi_head": SteeringMethod(f"{_INTERVENTIONS}.sadi:sadi_head", "head",
                                (1, 2, 4, 6, 8, 10), 79.0),
}
