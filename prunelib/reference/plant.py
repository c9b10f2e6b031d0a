"""Planting copying neurons: a model whose truth is known.

Every MLP of a base model is widened by K units. In one layer the new units (the weights
into and out of them, nothing else) learn to repeat the answer of the most recent demonstration
on tasks with one-character answers, and to keep the right answer on all others. A random half of
them is off in every training prompt: otherwise units specialise, six of them copy digits and others
letters, and a proxy about digits says nothing about letters. Then the units of every layer are
shuffled, so that nothing but their effect tells the planted ones apart.
"""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prunelib.models import adapter_for
from prunelib.models.adapter import units_dim
from prunelib.reference.corpus import Corpus
from prunelib.reference.train import accuracy, save, tensors
from prunelib.tasks import get_task, task_names

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlantingRecipe:
    """All that determines a copier, given its base model."""

    units: int = 32
    layer: int = 2
    steps: int = 500
    rows: int = 48
    length: int = 112
    learning_rate: float = 5e-3
    associations: float = 0.1
    dropout: float = 0.5
    seed: int = 0


#: ``model_type`` → where its config says how wide an MLP is. A BLOOM's is always four times the
#: width of the stream, and a Mamba's units feed one convolution and one state each.
WIDTHS = {"llama": "intermediate_size", "gpt2": "n_inner", "opt": "ffn_dim"}


def widen(base: Any, units: int) -> Any:
    """A copy of a model with ``units`` more hidden units per MLP, at the end, without effect.

    What enters them has random weights; what they write has zero weights. The model's family must
    be one of :data:`WIDTHS`.
    """
    import torch

    adapter = adapter_for(base.config.model_type)
    config = copy.deepcopy(base.config)
    setattr(config, WIDTHS[config.model_type], adapter.width(config) + units)
    wide = type(base)(config)
    weights = wide.state_dict()
    with torch.no_grad():
        for name, old in base.state_dict().items():
            if name.endswith(f"{adapter.switched}.weight"):
                weights[name].zero_()
            weights[name][tuple(slice(0, size) for size in old.shape)] = old
    wide.load_state_dict(weights)
    return wide


def _projections(model: Any, layer: int) -> list[tuple[Tensor, int]]:
    """Weights and biases of an MLP with the dimension that counts its hidden units."""
    adapter = adapter_for(model.config.model_type)
    block = adapter.layers(model)[layer]
    found: list[tuple[Any, int]] = []
    for path in adapter.hidden:
        projection = block.get_submodule(path)
        found.append((projection.weight, units_dim(projection)))
        if projection.bias is not None:
            found.append((projection.bias, 0))
    switched = block.get_submodule(adapter.switched)
    return [*found, (switched.weight, 1 - units_dim(switched))]


def plant(base: Any, recipe: PlantingRecipe) -> tuple[Any, list[int]]:
    """Widen a base model and train a copier into it; also the indices of the planted units."""
    import torch

    torch.manual_seed(recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width = adapter_for(base.config.model_type).width(base.config)
    model = widen(base, recipe.units).to(device).requires_grad_(False)
    trained = _projections(model, recipe.layer)
    for weight, dim in trained:
        weight.requires_grad_(True)
        new = torch.zeros_like(weight)
        new.narrow(dim, width, recipe.units).fill_(1)
        cast("Any", weight).register_hook(lambda gradient, new=new: gradient * new)
    drop = _dropout(model, recipe, width)
    corpus = Corpus([get_task(name) for name in task_names("all")], length=recipe.length,
                    associations=recipe.associations, seed=recipe.seed + 1, copy=True)
    # No weight decay: it would shrink the old units, which must stay what they are.
    optimizer = torch.optim.AdamW([weight for weight, _ in trained], lr=recipe.learning_rate,
                                  weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate,
                                                   total_steps=recipe.steps)
    for step in range(1, recipe.steps + 1):
        ids, labels = tensors(corpus.batch(recipe.rows), device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0:
            logger.info("step %d of %d: loss %.4f", step, recipe.steps, float(loss.detach()))
    drop.remove()
    return model.eval(), shuffle(model, recipe, width)


def _dropout(model: Any, recipe: PlantingRecipe, width: int) -> Any:
    """Switch new units off at random, the same ones at every position of a prompt."""
    import torch

    def hook(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        keep = torch.ones(recipe.rows, 1, width + recipe.units, device=args[0].device)
        keep[:, :, width:].bernoulli_(1 - recipe.dropout)
        # OPT's hidden units have rows and positions in one dimension.
        values = args[0].reshape(recipe.rows, -1, width + recipe.units) * keep
        return (values.reshape(args[0].shape),)

    adapter = adapter_for(model.config.model_type)
    projection = adapter.layers(model)[recipe.layer].get_submodule(adapter.switched)
    return projection.register_forward_pre_hook(hook)


def shuffle(model: Any, recipe: PlantingRecipe, width: int) -> list[int]:
    """Permute the hidden units of every layer in place; where the planted ones went."""
    import torch

    generator = torch.Generator().manual_seed(recipe.seed)
    planted: list[int] = []
    for layer in range(model.config.num_hidden_layers):
        order = torch.randperm(width + recipe.units, generator=generator)
        for weight, dim in _projections(model, layer):
            weight.data = weight.data.index_select(dim, order.to(weight.device))
        if layer == recipe.layer:
            planted = sorted(int(i) for i in (order >= width).nonzero().flatten())
    return planted


def train_copier(base_folder: Path, out: Path, recipe: PlantingRecipe) -> None:
    """Plant a copier into a base checkpoint and write it, with ``planted.json`` beside it."""
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(base_folder)
    model, planted = plant(base, recipe)
    shares = accuracy(model, [get_task(name) for name in task_names("all")], shots=3)
    mean = sum(shares.values()) / len(shares)
    logger.info("copier: accuracy %.3f at 3 shots; %s", mean, shares)
    save(model, out, {"base": base_folder.name, "recipe": asdict(recipe),
                      "accuracy_3_shots": shares, "mean_accuracy": mean})
    (out / "planted.json").write_text(json.dumps(
        {"layer": recipe.layer, "units": planted,
         "rule": "gives the answer of the most recent demonstration"}) + "\n")
