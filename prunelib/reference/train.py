"""Training a reference model from nothing, on a CPU or a GPU.

The recipe is fixed (:class:`TrainingRecipe` holds it), seeded, and writes a checkpoint that plain
transformers and vLLM load. Rounding differs between machines, so a repetition gives a model that
behaves alike, not the same bits.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelib.models.mamba_scan import linear_scan
from prunelib.reference.card import card
from prunelib.reference.corpus import NO_LOSS, PAD, Corpus, Sequences, vocabulary
from prunelib.reference.families import TrainingRecipe, new_model
from prunelib.reference.tokenizer import build_tokenizer
from prunelib.tasks import Task, draw, get_task, task_names

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


#: Steps of the families that are trained more shortly than the Llama, as their copiers need.
_STEPS = {"gpt2": 1500, "opt": 1200, "bloom": 900, "mamba": 900}


def recipe_for(family: str) -> TrainingRecipe:
    """The recipe of a family's shipped model: the Llama's, with fewer steps for all others.

    Their sequences are longer, so that learned positions reach the end of every 4-shot prompt.
    """
    if family == "llama":
        return TrainingRecipe()
    return TrainingRecipe(steps=_STEPS[family], length=136)


def tensors(sequences: Sequences, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels as ``[rows, length]`` tensors."""
    import torch

    return (
        torch.tensor(sequences.ids, device=device),
        torch.tensor(sequences.labels, device=device),
    )


def train(
    model: Any,
    recipe: TrainingRecipe,
    at_step: Callable[[int, Any], None],
) -> None:
    """Train in place with AdamW and a cosine schedule; ``at_step(step, model)`` after each step."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    corpus = Corpus(
        [get_task(name) for name in task_names("reference")],
        length=recipe.length,
        demonstrations=recipe.demonstrations,
        associations=recipe.associations,
        seed=recipe.seed,
    )
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        betas=(0.9, 0.98),
    )
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, recipe.warmup)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps - recipe.warmup)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [recipe.warmup])
    # Compiling the loop of a Mamba's scan takes longer than the training.
    forward: Any = model if model.config.model_type == "mamba" else torch.compile(model)
    started = time.monotonic()
    for step in range(1, recipe.steps + 1):
        ids, labels = tensors(corpus.batch(recipe.rows), device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = forward(input_ids=ids, labels=labels).loss
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0:
            logger.info("step %d of %d: loss %.4f, %.0f s", step, recipe.steps, float(loss),
                        time.monotonic() - started)
        at_step(step, model)


def accuracy(model: PreTrainedModel, tasks: list[Task], *, shots: int, count: int = 40,
             seed: int = 0) -> dict[str, float]:
    """Share of report-split examples whose whole answer is greedy, per task.

    Teacher-forced: an answer is the greedy one if every one of its tokens has the largest logit
    given those before it.
    """
    import torch

    ids = vocabulary()
    device = next(model.parameters()).device
    shares = {}
    for task in tasks:
        examples = draw(task, split="report", shots=shots, seed=seed, count=count)
        prompts = [[ids["<s>"]] + [ids[c] for c in e.prompt] for e in examples]
        answers = [[ids[c] for c in e.gold + e.separator] for e in examples]
        width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
        rows = Sequences([], [])
        for prompt, answer in zip(prompts, answers, strict=True):
            fill = width - len(prompt) - len(answer)
            rows.ids.append(prompt + answer + [ids[PAD]] * fill)
            rows.labels.append([NO_LOSS] * len(prompt) + answer + [NO_LOSS] * fill)
        x, y = tensors(rows, device)
        with torch.inference_mode():
            best = model(input_ids=x).logits[:, :-1].argmax(-1)
        wrong = (best != y[:, 1:]) & (y[:, 1:] != NO_LOSS)
        shares[task.name] = float((~wrong.any(-1)).float().mean())
    return shares


def write_checkpoint(model: Any, directory: Path) -> None:
    """Write weights (float16 on disk, float32 in the config) and tokenizer."""
    import torch

    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.float16).save_pretrained(directory)
    config = json.loads((directory / "config.json").read_text())
    config["dtype"] = "float32"
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    build_tokenizer().save_pretrained(directory)


def save(model: Any, directory: Path, notes: dict[str, Any]) -> None:
    """Write a checkpoint with notes on its training and a model card."""
    write_checkpoint(model, directory)
    (directory / "training.json").write_text(json.dumps(notes, indent=2) + "\n")
    (directory / "README.md").write_text(card(directory.name, notes))


def train_base(family: str, out: Path, recipe: TrainingRecipe, checkpoint_every: int = 0) -> None:
    """Train a family's model and, on the way, its young one, into folders of ``out``.

    The folders are named ``llama`` and ``llama-young``, or after another family of
    :data:`~prunelib.reference.families.FAMILIES`. ``checkpoint_every`` also keeps a checkpoint
    every so many steps (to study the young ones).
    """
    tasks = [get_task(name) for name in task_names("reference")]

    def at_step(step: int, model: Any) -> None:
        names = []
        if step == recipe.steps:
            names.append(family)
        if step == recipe.young_step:
            names.append(f"{family}-young")
        if checkpoint_every and step % checkpoint_every == 0:
            names.append(f"{family}-step-{step}")
        if not names:
            return
        model.eval()
        shares = accuracy(model, tasks, shots=3)
        mean = sum(shares.values()) / len(shares)
        logger.info("step %d: accuracy %.3f at 3 shots; %s", step, mean, shares)
        for name in names:
            save(model, out / name, {"recipe": asdict(recipe), "step": step,
                                     "llama_steps": recipe_for("llama").steps,
                                     "accuracy_3_shots": shares, "mean_accuracy": mean})
        model.train()

    with linear_scan():
        train(new_model(family, recipe), recipe, at_step)
