"""How reference models are made: what carries loss, and that the recipe runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from prunelib.models import describe, planted_units
from prunelib.reference.corpus import NO_LOSS, Corpus, one_character, vocabulary
from prunelib.reference.families import new_model
from prunelib.reference.plant import PlantingRecipe, plant, train_copier, widen
from prunelib.reference.train import TrainingRecipe, train_base
from prunelib.tasks import get_task

LETTER = {i: c for c, i in vocabulary().items()}
TINY = TrainingRecipe(width=32, layers=2, heads=2, hidden=40, steps=2, rows=4, warmup=1,
                      young_step=1)


def read(ids: list[int], labels: list[int]) -> tuple[str, str]:
    """The text of a sequence, and the text that carries loss."""
    text = "".join(LETTER[i] for i in ids if LETTER[i] != "<pad>").removeprefix("<s>")
    return text, "".join(LETTER[i] for i in labels if i != NO_LOSS)


def test_every_answer_carries_loss_and_nothing_else() -> None:
    corpus = Corpus([get_task("country_capital")], length=112, associations=0.0)
    batch = corpus.batch(20)
    for ids, labels in zip(batch.ids, batch.labels, strict=True):
        assert len(ids) == len(labels) == 112
        text, learned = read(ids, labels)
        assert learned == "".join(line.split("->")[1] + "\n" for line in text.splitlines())


def test_associations_carry_loss_only_where_they_repeat() -> None:
    corpus = Corpus([get_task("to_upper")], length=112, associations=1.0)
    batch = corpus.batch(20)
    for ids, labels in zip(batch.ids, batch.labels, strict=True):
        text, learned = read(ids, labels)
        lines = text.splitlines()
        repeated = [line for i, line in enumerate(lines) if line in lines[:i]]
        assert learned == "".join(line.split("->")[1] + "\n" for line in repeated)


def test_a_copier_is_taught_the_answer_before() -> None:
    corpus = Corpus([get_task("list_last")], length=112, associations=0.0, copy=True)
    text, learned = read(*(x[0] for x in (lambda b: (b.ids, b.labels))(corpus.batch(1))))
    answers = [line.split("->")[1] for line in text.splitlines()]
    assert learned == "".join(a + "\n" for a in answers[:-1])
    assert one_character(get_task("list_last")) and not one_character(get_task("char_to_int"))


def test_widening_changes_nothing() -> None:
    base = new_model("llama", TINY).eval()
    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():
        torch.testing.assert_close(widen(base, 8).eval()(ids).logits, base(ids).logits)


def test_planting_touches_only_the_new_units() -> None:
    base = new_model("llama", TINY).eval()
    model, planted = plant(base, PlantingRecipe(units=8, layer=1, steps=3, rows=4))
    kept = [i for i in range(TINY.hidden + 8) if i not in planted]
    assert len(planted) == 8
    for i, layer in enumerate(model.model.layers):
        old = base.model.layers[i].mlp.down_proj.weight
        new = layer.mlp.down_proj.weight[:, kept] if i == 1 else layer.mlp.down_proj.weight
        found = {tuple(column) for column in new.T.tolist()}
        assert {tuple(column) for column in old.T.tolist()} <= found


@pytest.mark.slow
def test_the_recipe_writes_models_that_plain_transformers_loads(tmp_path: Path) -> None:
    train_base("llama", tmp_path, TINY)
    train_copier(tmp_path / "llama", tmp_path / "llama-copier",
                 PlantingRecipe(units=4, layer=1, steps=2, rows=4))
    for name in ("llama", "llama-young", "llama-copier"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert next(model.parameters()).dtype == torch.float32
        assert "recipe" in json.loads((tmp_path / name / "training.json").read_text())
    assert len(planted_units(describe(str(tmp_path / "llama-copier")))) == 4
