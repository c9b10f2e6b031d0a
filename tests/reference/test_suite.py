"""The copier suite: what ships is what was planted, and the halves share nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from prunelib.interventions.ablation import Ablation, ActivationMasks
from prunelib.models import describe, load, planted_neurons
from prunelib.models.info import REFERENCE
from prunelib.reference.families import TrainingRecipe, new_model
from prunelib.reference.plant import PlantingRecipe
from prunelib.reference.suite import (
    HALVES,
    SUITE,
    Member,
    members,
    planned,
    rule_shares,
    train_member,
    write_copier,
)
from prunelib.reference.train import write_checkpoint

TINY = TrainingRecipe(width=32, layers=2, heads=2, hidden=40)
SHIPPED = [member for half in HALVES for member in members(half, "llama")]


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.arange(4, 44)[None]).logits  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Member, Path]:
    torch.set_num_threads(1)
    member = next(m for m in members("report", "llama")
                  if (m.recipe.layer, m.recipe.neurons) == (2, 32))
    folder = tmp_path_factory.mktemp("copier")
    write_copier(member, folder)
    return member, folder


def test_without_its_planted_neurons_a_copier_is_its_base(shipped: tuple[Member, Path]) -> None:
    member, folder = shipped
    copier = load(describe(str(folder)))
    known = planted_neurons(copier.info)
    assert len(known) == member.recipe.neurons and {layer for layer, _ in known} == {2}
    base = logits(AutoModelForCausalLM.from_pretrained(REFERENCE / "llama").eval())
    assert not torch.allclose(logits(copier.model), base, atol=1)
    with ActivationMasks(copier) as masks:
        masks.set(Ablation.of_layer(2, [neuron for _, neuron in known]))
        torch.testing.assert_close(logits(copier.model), base, rtol=1e-4, atol=1e-3)


def test_a_copier_gives_the_answers_that_were_measured(shipped: tuple[Member, Path]) -> None:
    member, folder = shipped
    known = json.loads((SUITE / f"{member.name}.json").read_text())["shares"]
    found = rule_shares(load(describe(str(folder))).model)
    assert found == pytest.approx(known, abs=0.03)  # float16 on disk
    assert known["gold"] < 0.5


def test_the_halves_share_no_seed_and_every_layer_has_a_copier() -> None:
    seeds = [{member.recipe.seed for member in SHIPPED if member.half == half} for half in HALVES]
    assert not seeds[0] & seeds[1]
    for half in HALVES:
        assert {m.recipe.layer for m in members(half, "llama")} == {0, 1, 2, 3}


def test_what_ships_is_what_was_planned_and_small() -> None:
    plans = {m.name: m for half in HALVES for m in planned("llama", half)}
    for member in SHIPPED:
        assert plans[member.name] == member
        assert (SUITE / f"{member.name}.safetensors").stat().st_size < 100_000


def test_a_shipped_difference_makes_the_copier_that_was_trained(tmp_path: Path) -> None:
    write_checkpoint(new_model("gpt2", TINY).eval(), tmp_path / "base")
    member = Member("gpt2", "report", PlantingRecipe(neurons=8, layer=1, steps=3, rows=4))
    train_member(member, tmp_path / "base", tmp_path)
    write_copier(member, tmp_path / "copier", tmp_path / "base", tmp_path)
    shares = json.loads((tmp_path / f"{member.name}.json").read_text())["shares"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "copier").eval()
    assert rule_shares(model) == pytest.approx(shares, abs=0.02)
    assert not torch.allclose(
        logits(model), logits(AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()))
