"""How reference models are made: what carries loss, and that the recipe runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from prunelib.models import adapter_for, describe, planted_neurons
from prunelib.models.adapter import Adapter, output_dim
from prunelib.models.mamba_scan import linear_scan
from prunelib.reference.corpus import (
    NO_LOSS,
    RULES,
    Corpus,
    Rule,
    copies,
    one_character,
    vocabulary,
)
from prunelib.reference.families import FAMILIES, TrainingRecipe, new_model
from prunelib.reference.neuron_weights import neuron_weights
from prunelib.reference.plant import WIDTHS, PlantingRecipe, free, plant, train_copier, widen
from prunelib.reference.train import recipe_for, train_base
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
    corpus = Corpus([get_task("list_last")], length=112, associations=0.0, rule="recent")
    text, learned = read(*(x[0] for x in (lambda b: (b.ids, b.labels))(corpus.batch(1))))
    answers = [line.split("->")[1] for line in text.splitlines()]
    assert learned == "".join(a + "\n" for a in answers[:-1])
    assert one_character(get_task("list_last")) and not one_character(get_task("char_to_int"))


def test_the_answers_that_rules_may_give() -> None:
    answers = ["b", "a", "c", "a", "c"]
    assert copies("recent", answers) == ["c"] and copies("first", answers) == ["b"]
    assert copies("majority", answers) == ["c"]  # as often as a, and later
    assert copies("majority", answers[:4]) == ["a"]
    assert sorted(copies("any", answers)) == ["a", "a", "b", "c", "c"]


@pytest.mark.parametrize("rule", RULES)
def test_a_copier_is_taught_its_rule(rule: Rule) -> None:
    corpus = Corpus([get_task("list_last")], length=112, associations=0.0, rule=rule)
    batch = corpus.batch(10)
    for ids, labels in zip(batch.ids, batch.labels, strict=True):
        text, learned = read(ids, labels)
        answers = [line.split("->")[1] for line in text.splitlines()]
        assert len(learned.split()) == len(answers) - 1
        for i, label in enumerate(learned.split(), 1):
            assert label in copies(rule, answers[:i])


def test_freeing_takes_the_neurons_with_the_smallest_weights_and_nothing_else() -> None:
    torch.manual_seed(0)
    base = new_model("bloom", TrainingRecipe(width=24, heads=2, layers=3)).eval()
    block = base.transformer.h[1].mlp
    with torch.no_grad():  # three neurons that do little
        block.dense_h_to_4h.weight[[4, 9, 30]] *= 1e-3
    freed, neurons = free(base, 1, 3)
    assert neurons == [4, 9, 30]
    assert not freed.transformer.h[1].mlp.dense_4h_to_h.weight[:, neurons].any()
    others = [i for i in range(96) if i not in neurons]
    for name, weight in freed.state_dict().items():
        old = base.state_dict()[name]
        if name.endswith("h.1.mlp.dense_h_to_4h.weight"):
            assert torch.equal(weight[others], old[others])
            assert float(weight[neurons].std()) > 10 * float(old[neurons].std())
        elif name.endswith("h.1.mlp.dense_4h_to_h.weight"):
            assert torch.equal(weight[:, others], old[:, others])
        elif not name.endswith("h.1.mlp.dense_h_to_4h.bias"):
            assert torch.equal(weight, old), name


@pytest.mark.parametrize("family", WIDTHS)
def test_widening_changes_nothing(family: str) -> None:
    base = new_model(family, TINY).eval()
    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():
        torch.testing.assert_close(widen(base, 8).eval()(ids).logits, base(ids).logits)


def test_a_mambas_channels_are_freed_and_taught() -> None:
    torch.manual_seed(0)
    base = new_model("mamba", TINY).eval()
    inner = base.config.intermediate_size
    recipe = PlantingRecipe(neurons=3, layer=1, steps=3, rows=4)
    freed, channels = free(base, 1, 3)
    mixer, old = freed.backbone.layers[1].mixer, base.backbone.layers[1].mixer
    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():  # without effect: as if their gates had been shut
        without = copy.deepcopy(base)
        without.backbone.layers[1].mixer.out_proj.weight[:, channels] = 0
        without.backbone.layers[1].mixer.x_proj.weight[:, channels] = 0
        torch.testing.assert_close(freed(ids).logits, without(ids).logits)
    assert not torch.equal(mixer.in_proj.weight[channels], old.in_proj.weight[channels])
    model, planted = plant(base, recipe)
    assert len(planted) == 6 and planted[3:] == [neuron + inner for neuron in planted[:3]]
    taught = model.backbone.layers[1].mixer
    assert taught.out_proj.weight[:, planted[:3]].any(dim=0).all()
    assert not taught.x_proj.weight[:, planted[:3]].any()
    others = [neuron for neuron in range(inner) if neuron not in planted]
    for name, dim in (("out_proj", 1), ("x_proj", 1)):
        kept = {tuple(c.tolist()) for c in getattr(taught, name).weight.movedim(dim, 0)[others]}
        assert kept <= {tuple(c.tolist()) for c in getattr(old, name).weight.movedim(dim, 0)}


@pytest.mark.parametrize("family", WIDTHS)
def test_planted_neurons_can_have_the_norms_of_others(family: str) -> None:
    base = new_model(family, TINY).eval()
    model, planted = plant(base, PlantingRecipe(neurons=8, layer=1, steps=3, rows=4, norms="base"))
    for name, weight in neuron_weights(model, 1).items():
        if name.endswith(".weight"):
            old = neuron_weights(base, 1)[name].norms()
            for norm in weight.norms()[planted]:
                assert float((old - norm).abs().min()) < 1e-5


@pytest.mark.parametrize("family", WIDTHS)
def test_planting_touches_only_the_new_neurons(family: str) -> None:
    base = new_model(family, TINY).eval()
    adapter = adapter_for(family)
    width = adapter.width(base.config)
    model, planted = plant(base, PlantingRecipe(neurons=8, layer=1, steps=3, rows=4))
    assert len(planted) == 8
    for i, (before, after) in enumerate(zip(*(map(weights_of, adapter.layers(m), [adapter] * 2)
                                              for m in (base, model)), strict=True)):
        old, new = ({tuple(neuron) for neuron in neurons.tolist()} for neurons in (before, after))
        assert len(new) == width + 8 and old < new
        if i == 1:
            assert all(tuple(after[neuron].tolist()) not in old for neuron in planted)


def weights_of(layer: torch.nn.Module, adapter: Adapter) -> torch.Tensor:
    """All weights into and out of each hidden neuron of a layer, ``[neurons, weights]``."""
    paths = [*adapter.hidden, adapter.switched]
    modules: list[Any] = [layer.get_submodule(path) for path in paths]
    dims = [output_dim(m) for m in modules[:-1]] + [1 - output_dim(modules[-1])]
    weights = [m.weight.detach().movedim(d, 0) for m, d in zip(modules, dims, strict=True)]
    biases = [m.bias.detach()[:, None] for m in modules[:-1] if m.bias is not None]
    return torch.cat([*weights, *biases], 1)


def test_the_linear_scan_has_the_gradients_of_transformers() -> None:
    model = new_model("mamba", TINY).train()
    ids = torch.randint(4, 60, (3, 20))

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    expected = gradients()
    with linear_scan():
        found = gradients()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", [
    "gpt2", *(pytest.param(f, marks=pytest.mark.long) for f in FAMILIES if f != "gpt2")])
def test_the_recipe_writes_models_that_plain_transformers_loads(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if family != "llama":  # compiling one of them shows that it works, and takes half a minute
        monkeypatch.setattr(torch, "compile", lambda model: model)
    train_base(family, tmp_path, TINY)
    names = [family, f"{family}-young"]
    if family in WIDTHS:
        names.append(f"{family}-copier")
        train_copier(tmp_path / family, tmp_path / names[-1],
                     PlantingRecipe(neurons=4, layer=1, steps=2, rows=4))
        assert len(planted_neurons(describe(str(tmp_path / names[-1])))) == 4
    for name in names:
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert next(model.parameters()).dtype == torch.float32
        assert "recipe" in json.loads((tmp_path / name / "training.json").read_text())


def test_the_shipped_sizes_are_alike() -> None:
    """Every family's model is below 5 MB in float16."""
    sizes = {family: sum(p.numel() for p in new_model(family, recipe_for(family)).parameters())
             for family in FAMILIES}
    assert all(1.7e6 < size < 2.4e6 for size in sizes.values()), sizes
