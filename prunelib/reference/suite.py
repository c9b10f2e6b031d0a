"""The copier suite: copiers planted in every layer, to ask where a scorer finds them.

A copier ships as what differs from its base: the weights of its planted neurons, in float16, and
the recipe. :func:`write_copier` makes a checkpoint of them. Two halves share no seed: scorers
are developed on ``development`` and reported on ``report``.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from prunelib.identity import seed_of
from prunelib.models.info import REFERENCE
from prunelib.reference.corpus import RULES, Rule, copies, one_character, vocabulary
from prunelib.reference.neuron_weights import neuron_weights
from prunelib.reference.plant import (
    NORMS,
    Norms,
    PlantingRecipe,
    grow,
    shuffle,
    teach,
    write_planted,
)
from prunelib.reference.train import write_checkpoint
from prunelib.tasks import draw, get_task, task_names
from prunelib.tasks.tokenization import pad_left

logger = logging.getLogger(__name__)

SUITE = Path(__file__).parent / "suite"
Half = Literal["development", "report"]
HALVES: tuple[Half, ...] = ("development", "report")
#: Steps by layer: the higher the layer, the cheaper a step, and the less its neurons can do.
_STEPS = (120, 160, 220, 400)


@dataclass(frozen=True)
class Member:
    """One copier of the suite."""

    family: str
    half: Half
    recipe: PlantingRecipe

    @property
    def name(self) -> str:
        """File name without its ending."""
        recipe = self.recipe
        matched = "-matched" if recipe.norms == "base" else ""
        return f"{self.family}-{self.half}-{recipe.layer}-{recipe.rule}-{recipe.neurons}{matched}"


def planned(family: str, half: Half) -> list[Member]:
    """Every rule with 32 neurons, and 8 and 64 neurons with the most recent rule, in each layer.

    And, for the most recent rule, the same once more with neurons as large as others of the base
    (*matched*), so that no size gives them away.
    """
    shapes: list[tuple[Rule, int, Norms]] = [
        *((rule, 32, "trained") for rule in RULES),
        *(("recent", neurons, norms) for norms in NORMS for neurons in (8, 32, 64)
          if (neurons, norms) != (32, "trained"))]
    return [
        Member(family, half, PlantingRecipe(
            neurons=neurons, layer=layer, rule=rule, steps=steps, rows=24, length=64,
            learning_rate=1e-2, emphasis=2, norms=norms,
            seed=seed_of("copier suite", family, half, layer, rule, neurons) % 2**31))
        for rule, neurons, norms in shapes
        for layer, steps in enumerate(_STEPS)
    ]  # fmt: skip


def members(half: Half, family: str) -> list[Member]:
    """The shipped copiers of one half and family, by layer, rule and number of neurons."""
    found = []
    for file in SUITE.glob(f"{family}-{half}-*.json"):
        recipe = PlantingRecipe(**json.loads(file.read_text())["recipe"])
        found.append(Member(family, half, recipe))
    return sorted(found, key=lambda m: (m.recipe.layer, list(RULES).index(m.recipe.rule),
                                        m.recipe.neurons, m.recipe.norms))


def train_member(member: Member, base_folder: Path, out: Path = SUITE) -> None:
    """Plant one copier and write its difference to the base, with what it does, into ``out``."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    model, neurons = grow(AutoModelForCausalLM.from_pretrained(base_folder), member.recipe)
    teach(model, neurons, member.recipe)
    shares = rule_shares(model)
    logger.info("%s: %s", member.name, shares)
    out.mkdir(exist_ok=True)
    chosen = torch.tensor(neurons)
    save_file({name: part.weight.index_select(part.dim, part.places(chosen)).half().cpu()
               for name, part in neuron_weights(model, member.recipe.layer).items()},
              out / f"{member.name}.safetensors")
    (out / f"{member.name}.json").write_text(
        json.dumps({"recipe": asdict(member.recipe), "shares": shares}, indent=2) + "\n")


def write_copier(member: Member, folder: Path, base_folder: Path | None = None,
                 source: Path = SUITE) -> None:
    """Write a copier as a checkpoint, with ``planted.json`` beside it.

    ``base_folder`` holds the base model; the shipped reference model of the family if ``None``.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(base_folder or REFERENCE / member.family)
    model, neurons = grow(base, member.recipe)
    weights = neuron_weights(model, member.recipe.layer)
    chosen = torch.tensor(neurons)
    for name, taught in load_file(source / f"{member.name}.safetensors").items():
        part = weights[name]
        part.weight.data.index_copy_(part.dim, part.places(chosen), taught.to(part.weight.dtype))
    planted = shuffle(model, member.recipe, neurons)
    write_checkpoint(model, folder)
    write_planted(folder, member.recipe, planted)


def rule_shares(model: Any, shots: int = 4, count: int = 20) -> dict[str, float]:
    """What a model answers where the gold answer is not in the prompt.

    Returns:
        Share of the prompts of tasks with one-character answers, in the report split, that get
        the gold answer (``gold``) and the answer of each rule.
    """
    import torch

    ids = vocabulary()
    tasks = [task for name in task_names("reference") if one_character(task := get_task(name))]
    examples = [e for task in tasks
                for e in draw(task, split="report", shots=shots, seed=0, count=count)
                if e.gold not in e.answers]
    device = next(model.parameters()).device
    rows = [[ids["<s>"], *(ids[c] for c in e.prompt)] for e in examples]
    with torch.inference_mode():
        logits = model(**pad_left(rows, device).inputs(), logits_to_keep=1).logits
    said = logits[:, -1].argmax(-1).tolist()
    shares = {"gold": sum(ids[e.gold] == s for e, s in zip(examples, said, strict=True))}
    for rule in RULES:
        shares[rule] = sum(s in [ids[a] for a in copies(rule, e.answers)]
                           for e, s in zip(examples, said, strict=True))
    return {name: round(count / len(examples), 3) for name, count in shares.items()}
