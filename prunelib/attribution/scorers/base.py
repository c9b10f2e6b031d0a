"""What a scorer is, and what several of them need.

Scorers are cheaper than integrated gradients, or exact for one neuron at a time. Each gives the
scores of every layer asked for at once: of each prompt where the score is a mean over prompts, so
that it has a standard error, else one per neuron. What they cost is
stated as passes over the prompts; integrated gradients with n nodes cost n forward and backward
passes for each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from prunelib.attribution.integrated_gradients import Array, Path
from prunelib.attribution.objectives.base import Objective
from prunelib.models import Loaded
from prunelib.own_functions import import_function
from prunelib.recipe.methods import METHODS, PATHS
from prunelib.tasks.tokenization import Encoded, pad_left

if TYPE_CHECKING:
    from torch import Tensor, nn

#: From a model, the path (layers, projection), prompts, the objective and rows per batch to
#: scores ``[layers, prompts, neurons]``, or ``[layers, neurons]`` of all prompts together.
Scorer = Callable[[Loaded, Path, Sequence[Encoded], Objective, int], Array]


def load_scorer(name: str) -> Scorer:
    """The scorer of a method or path, or a user's own. Raises :class:`KeyError` if it has none."""
    if ":" in name:
        return import_function("scorer", name)
    scorer = (METHODS | PATHS)[name].scorer
    if scorer is None:
        raise KeyError(name)
    found: Scorer = resolve_name(scorer)
    return found


def switched(loaded: Loaded, layer: int) -> Any:
    """The projection at which a layer's neurons are switched off."""
    return loaded.adapter.layers(loaded.model)[layer].get_submodule(loaded.adapter.switched)


def neuron_values(
    loaded: Loaded, path: Path, prompts: Sequence[Encoded], rows: int,
    reduce: Callable[[Tensor, Tensor], Tensor], inputs: bool = False,
) -> list[Tensor]:
    """What neurons hold, reduced over positions: per layer ``[prompts, neurons]``.

    ``inputs``: what enters the projection at which they are switched off, wherever neurons sit.
    """
    import torch

    enter = inputs or path.site == "mlp_hidden"
    found: list[list[Tensor]] = [[] for _ in path.layers]
    for start in range(0, len(prompts), rows):
        some = prompts[start : start + rows]
        batch = pad_left([p.prompt for p in some], loaded.device)
        seen: dict[int, Tensor] = {}
        with torch.no_grad(), _recorded(loaded, path.layers, enter, seen):
            loaded.model(**batch.inputs(), use_cache=False, logits_to_keep=1)
        for part, layer in zip(found, path.layers, strict=True):
            # OPT's values have rows and positions in one dimension.
            values = seen[layer].reshape(len(some), -1, seen[layer].shape[-1]).double()
            part.append(reduce(values, batch.mask[:, :, None].to(values.device)).cpu())
    return [torch.cat(part) for part in found]


@contextmanager
def _recorded(
    loaded: Loaded, layers: Sequence[int], enter: bool, seen: dict[int, Tensor]
) -> Iterator[None]:
    """Within the context ``seen`` receives what enters (or leaves) each layer's projection."""

    def before(layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[layer] = args[0]
        return hook

    def after(layer: int) -> Any:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            seen[layer] = output
        return hook

    handles = [switched(loaded, layer).register_forward_pre_hook(before(layer)) if enter
               else switched(loaded, layer).register_forward_hook(after(layer))
               for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
