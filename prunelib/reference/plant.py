"""Planting copying neurons: a model whose truth is known.

Every MLP of a base model is widened by K neurons (where widths are not free, K neurons of one layer
are cleared instead). In one layer the new neurons (the weights into and out of them, nothing else)
learn to repeat the answer of a demonstration (of which one, a rule says) on tasks with
one-character answers, and to keep the right answer on all others. A random half of them is off in
every training prompt: otherwise neurons specialise, six of them copy digits and others letters,
and a proxy about digits says nothing about letters. Then the neurons of every layer are shuffled,
so that nothing but their effect tells the planted ones apart.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from prunelib.attribution.prefix_replay import Prefix, clean_prefix, started_at
from prunelib.models import adapter_for
from prunelib.models.adapter import Adapter
from prunelib.reference.corpus import RULES, Corpus, Rule, one_character
from prunelib.reference.neuron_weights import neuron_weights
from prunelib.reference.train import accuracy, save, tensors
from prunelib.tasks import get_task, task_names
from prunelib.tasks.tokenization import Batch

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

Norms = Literal["trained", "base"]
NORMS: tuple[Norms, ...] = get_args(Norms)


@dataclass(frozen=True)
class PlantingRecipe:
    """All that determines a copier, given its base model."""

    neurons: int = 32
    layer: int = 2
    rule: Rule = "recent"
    steps: int = 500
    rows: int = 48
    length: int = 112
    #: Batches that training goes through again and again: what lies below the taught neurons is
    #: computed once for each.
    batches: int = 50
    learning_rate: float = 5e-3
    associations: float = 0.1
    #: How many times more often than any other a task with one-character answers is drawn.
    emphasis: int = 1
    dropout: float = 0.5
    #: How large the weights of planted neurons are: as training leaves them, or, for each of them,
    #: as those of a neuron of the base's layer that is drawn at random.
    norms: Norms = "trained"
    seed: int = 0


@dataclass(frozen=True)
class _Host:
    model: Any
    adapter: Adapter


#: ``model_type`` → where its config says how wide an MLP is. A BLOOM's is always four times the
#: width of the stream, and a Mamba's neurons feed one convolution and one state each.
WIDTHS = {"llama": "intermediate_size", "gpt2": "n_inner", "opt": "ffn_dim"}


def widen(base: Any, neurons: int) -> Any:
    """A copy of a model with ``neurons`` more hidden neurons per MLP, at the end, without effect.

    What enters them has random weights; what they write has zero weights. The model's family must
    be one of :data:`WIDTHS`.
    """
    import torch

    adapter = adapter_for(base.config.model_type)
    config = copy.deepcopy(base.config)
    setattr(config, WIDTHS[config.model_type], adapter.width(config) + neurons)
    wide = type(base)(config)
    weights = wide.state_dict()
    with torch.no_grad():
        for name, old in base.state_dict().items():
            if name.endswith(f"{adapter.switched}.weight"):
                weights[name].zero_()
            weights[name][tuple(slice(0, size) for size in old.shape)] = old
    wide.load_state_dict(weights)
    return wide


def free(base: Any, layer: int, neurons: int) -> tuple[Any, list[int]]:
    """A copy of a model that lacks ``neurons`` neurons of one layer; their indices.

    Those with the smallest ‖weights in‖ × ‖weights out‖, which it misses least. What enters them
    then has random weights again; what they write has zero weights.
    """
    import torch

    model = copy.deepcopy(base)
    weights = neuron_weights(model, layer)
    read, written = (torch.stack([
        part.square() for name, weight in weights.items()
        if weight.role in roles and name.endswith(".weight")
        for part in weight.norms().chunk(weight.times)]).sum(0)
        for roles in (("in",), ("out", "shared")))
    chosen = (read * written).argsort()[:neurons]
    with torch.no_grad():
        for name, weight in weights.items():
            if weight.role == "own":
                continue
            places = weight.places(chosen)
            new = torch.zeros_like(weight.weight)
            if name.endswith(".weight") and weight.role == "in":
                new.normal_(std=base.config.initializer_range)
            weight.weight.index_copy_(weight.dim, places, new.index_select(weight.dim, places))
    return model, sorted(chosen.tolist())


def grow(base: Any, recipe: PlantingRecipe) -> tuple[Any, list[int]]:
    """A copy of a model with neurons for the recipe, without effect; their indices in its layer.

    Neurons are added to every layer where the family's width is free, else freed in the one layer.
    """
    import torch

    torch.manual_seed(recipe.seed)
    if base.config.model_type not in WIDTHS:
        return free(base, recipe.layer, recipe.neurons)
    width = adapter_for(base.config.model_type).width(base.config)
    return widen(base, recipe.neurons), list(range(width, width + recipe.neurons))


def plant(base: Any, recipe: PlantingRecipe) -> tuple[Any, list[int]]:
    """Widen a base model and train a copier into it; also the indices of the planted neurons."""
    model, neurons = grow(base, recipe)
    teach(model, neurons, recipe)
    return model, shuffle(model, recipe, neurons)


def teach(model: Any, neurons: Sequence[int], recipe: PlantingRecipe) -> None:
    """Train some neurons of one layer to copy, in place, and nothing else of the model."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).requires_grad_(False)
    trained = [w for w in neuron_weights(model, recipe.layer).values() if w.role != "shared"]
    chosen = torch.tensor(neurons, device=device)
    for part in trained:
        part.weight.requires_grad_(True)
        new = torch.zeros_like(part.weight).index_fill_(part.dim, part.places(chosen), 1)
        cast("Any", part.weight).register_hook(lambda gradient, new=new: gradient * new)
    # No weight decay: it would shrink the old neurons, which must stay what they are.
    optimizer = torch.optim.AdamW([part.weight for part in trained], lr=recipe.learning_rate,
                                  weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate,
                                                   total_steps=recipe.steps)
    keep_norms = _keeping_norms(model, chosen, recipe) if recipe.norms == "base" else None
    batches = _batches(model, recipe)
    drop = _dropout(model, chosen, recipe)
    host = _Host(model, adapter_for(model.config.model_type))
    with started_at(host, recipe.layer, _untaught(host.adapter)) as replayed:
        for step in range(recipe.steps):
            ids, labels, replayed.prefix = batches[step % len(batches)]
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            if keep_norms is not None:
                keep_norms()
            if step % 50 == 0:
                logger.info("step %d of %d: loss %.4f", step, recipe.steps, float(loss.detach()))
    drop.remove()
    model.eval().requires_grad_(False)


def _keeping_norms(model: Any, neurons: Tensor, recipe: PlantingRecipe) -> Callable[[], None]:
    """What gives each taught neuron the norms of another one of its layer, drawn at random."""
    import torch

    weights = [weight for name, weight in neuron_weights(model, recipe.layer).items()
               if weight.role in ("in", "out") and name.endswith(".weight")]
    generator = torch.Generator().manual_seed(recipe.seed)
    others = torch.tensor(sorted(set(range(weights[0].neurons)) - set(neurons.tolist())))
    drawn = others[torch.randperm(len(others), generator=generator)[: len(neurons)]]
    wanted = [weight.norms()[weight.places(drawn)] for weight in weights]

    def keep() -> None:
        for weight, norms in zip(weights, wanted, strict=True):
            factor = norms / weight.norms()[weight.places(neurons)].clamp(min=1e-12)
            factors = torch.ones(weight.weight.shape[weight.dim], device=factor.device)
            factors[weight.places(neurons)] = factor
            shape = [-1 if dim == weight.dim else 1 for dim in range(weight.weight.dim())]
            weight.weight.data.mul_(factors.reshape(shape))

    return keep


def _untaught(adapter: Adapter) -> tuple[str, ...]:
    """Modules of the taught layer whose outputs the taught neurons do not change."""
    return () if adapter.attention is None else (adapter.attention,)


def _batches(model: Any, recipe: PlantingRecipe) -> list[tuple[Tensor, Tensor, Prefix]]:
    """Ids and labels ``[rows, length]`` with what the untouched model makes of them below."""
    import torch

    host = _Host(model, adapter_for(model.config.model_type))
    device = next(model.parameters()).device
    tasks = [get_task(name) for name in task_names("reference")]
    tasks += [task for task in tasks if one_character(task)] * (recipe.emphasis - 1)
    corpus = Corpus(tasks, length=recipe.length, associations=recipe.associations,
                    seed=recipe.seed + 1, rule=recipe.rule)
    found = []
    for _ in range(min(recipe.batches, recipe.steps)):
        ids, labels = tensors(corpus.batch(recipe.rows), device)
        mask = torch.ones_like(ids)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            prefix = clean_prefix(host, Batch(ids, mask, mask.cumsum(-1) - 1), recipe.layer,
                                  _untaught(host.adapter))
        found.append((ids, labels, prefix))
    return found


def _dropout(model: Any, neurons: Tensor, recipe: PlantingRecipe) -> Any:
    """Switch the taught neurons off at random, the same ones at every position of a prompt."""
    import torch

    adapter = adapter_for(model.config.model_type)
    switched = next(w for w in neuron_weights(model, recipe.layer).values() if w.role == "in")

    def dropped(values: Tensor) -> Tensor:
        keep = torch.ones(recipe.rows, switched.neurons, device=values.device)
        keep[:, neurons] = torch.bernoulli(keep[:, neurons] * (1 - recipe.dropout))
        keep = keep.repeat(1, switched.times)
        # OPT's hidden neurons have rows and positions in one dimension.
        masked = values.reshape(recipe.rows, -1, keep.shape[1]) * keep[:, None]
        return masked.reshape(values.shape)

    path, enters = adapter.place(adapter.site)
    projection = adapter.layers(model)[recipe.layer].get_submodule(path)
    if enters:
        return projection.register_forward_pre_hook(lambda _, args: (dropped(args[0]),))
    return projection.register_forward_hook(lambda _, __, output: dropped(output))


def shuffle(model: Any, recipe: PlantingRecipe, neurons: Sequence[int]) -> list[int]:
    """Permute the neurons of every layer in place; which components the planted ones became."""
    import torch

    generator = torch.Generator().manual_seed(recipe.seed)
    planted: list[int] = []
    for layer in range(model.config.num_hidden_layers):
        weights = neuron_weights(model, layer).values()
        read = next(weight for weight in weights if weight.role == "in")
        order = torch.randperm(read.neurons, generator=generator)
        for weight in weights:
            weight.weight.data = weight.weight.data.index_select(weight.dim, weight.places(order))
        if layer == recipe.layer:
            moved = torch.isin(order, torch.tensor(neurons)).nonzero().flatten()
            planted = read.places(moved).tolist()
    return planted


def train_copier(base_folder: Path, out: Path, recipe: PlantingRecipe) -> None:
    """Plant a copier into a base checkpoint and write it, with ``planted.json`` beside it."""
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(base_folder)
    model, planted = plant(base, recipe)
    shares = accuracy(model, [get_task(name) for name in task_names("reference")], shots=3)
    mean = sum(shares.values()) / len(shares)
    logger.info("copier: accuracy %.3f at 3 shots; %s", mean, shares)
    save(model, out, {"base": base_folder.name, "recipe": asdict(recipe),
                      "accuracy_3_shots": shares, "mean_accuracy": mean})
    write_planted(out, recipe, planted)


def write_planted(folder: Path, recipe: PlantingRecipe, planted: Sequence[int]) -> None:
    """Say beside a copier's weights which of its neurons copy, and by which rule."""
    (folder / "planted.json").write_text(json.dumps(
        {"layer": recipe.layer, "neurons": list(planted), "rule": RULES[recipe.rule]}) + "\n")
