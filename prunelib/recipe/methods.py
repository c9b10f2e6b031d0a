"""Attribution methods, objectives and search strategies by name: what a recipe can choose.

Each has one line here and one file elsewhere. The lines name functions and import none of them,
so that a recipe is read without torch.
"""

from __future__ import annotations

from dataclasses import dataclass


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
