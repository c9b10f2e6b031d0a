"""Interventions of a user's own, and plain evaluations: from the recipe to the views."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from command_line import call
from safetensors.torch import save_file
from small import ask, done_and_resumed, recipe

import prunelib
from prunelib.components import Component
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.export import export
from prunelib.interventions.files import write_file
from prunelib.interventions.steering import Edit, Steering, packed
from prunelib.models import ModelInfo, describe
from prunelib.pipeline.plan import estimate
from prunelib.recipe.load import parse_recipe
from prunelib.recipe.recipe import Recipe

#: Components of two layers, and of one.
TWO = [[0, "mlp_hidden", 3], {"layer": 1, "site": "mlp_hidden", "index": 2}, [1, "mlp_hidden", 0]]
ONE = [[1, "mlp_hidden", 5], [1, "mlp_hidden", 7]]
#: A quarter of the neurons of two layers: enough that a model that copies answers otherwise.
MANY = [[layer, "mlp_hidden", index] for layer in (0, 1) for index in range(0, 576, 4)]


def ablation(components: list[Any]) -> Ablation:
    return Ablation.of(Component(*(c.values() if isinstance(c, dict) else c)) for c in components)


def own(info: ModelInfo, **changes: Any) -> Recipe:
    """The small recipe without a search."""
    content = recipe(info).model_dump(mode="json", exclude={"attribution"}) | changes
    return Recipe.model_validate(content)


def plain(model: str, **changes: Any) -> Recipe:
    """No search: a reference model that answers, or any other."""
    return Recipe.model_validate({
        "name": "plain", "models": [model], "engine": "transformers", "controls": {"random": 2},
        "evaluate": {"tasks": ["vowel_counting"], "shots": [2], "examples": 20}} | changes)


def said(results: Path, digest: str) -> list[tuple[Any, ...]]:
    return ask(results, "select task, shots, seed, example, prediction from predictions where "
                        f"intervention = '{digest}' and purpose = 'report' order by all")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with many neurons of a model that answers switched off."""
    results = tmp_path_factory.mktemp("given") / "results"
    made = plain("reference/llama-copier", interventions={"name": "many", "components": MANY})
    assert prunelib.run(made, results).complete
    return results


def test_own_components_are_run_resumed_counted_and_compared(info: ModelInfo, tmp_path: Path
                                                             ) -> None:
    made = own(info, controls={"random": 2}, interventions=[
        {"name": "two", "components": TWO}, {"name": "one", "components": ONE}])
    assert made.attribution == ()
    (canary, evaluate) = estimate(made)
    assert (canary.units.least, canary.units.most) == (3, 7)
    assert (evaluate.units.least, evaluate.units.most) == (3 * 4, 7 * 4)
    found = done_and_resumed(made, tmp_path / "r")
    assert found == {"canary": 7, "evaluate": 28}
    rows = ask(tmp_path / "r", "select method, role, layer, site, count, seed, rate, intervention "
                               "from interventions order by all")
    assert Counter(row[:2] for row in rows) == {
        ("none", "baseline"): 1, ("two", "chosen"): 1, ("one", "chosen"): 1,
        ("random", "control"): 4}
    (two,) = (row for row in rows if row[0] == "two")
    (one,) = (row for row in rows if row[0] == "one")
    assert two[2:6] == (None, "mlp_hidden", 3, None) and two[7] == ablation(TWO).digest
    assert one[2:6] == (1, "mlp_hidden", 2, None) and one[7] == ablation(ONE).digest
    assert two[6] == pytest.approx(3 / (2 * info.width))
    places = {row[0]: Counter(ask(tmp_path / "r", "select layer, site from components where "
                                                  f"intervention = '{row[0]}'"))
              for row in ask(tmp_path / "r", "select distinct intervention from interventions "
                                             "where role = 'control'")}
    expected = [Counter((c.layer, c.site) for c in ablation(some).components)
                for some in (TWO, ONE)]
    assert all(place in expected for place in places.values())
    assert sum(place == expected[0] for place in places.values()) == 2


def test_the_views_pair_own_interventions_with_the_baseline_and_their_sets(
    info: ModelInfo, tmp_path: Path
) -> None:
    made = own(info, controls={"random": 3}, interventions=[
        {"name": "two", "components": TWO}, {"name": "other", "components": [
            [0, "mlp_hidden", 9], [0, "mlp_hidden", 8], [1, "mlp_hidden", 7]]}])
    assert prunelib.run(made, tmp_path / "r").complete
    board = {(row[0], row[1]): row[2:] for row in ask(
        tmp_path / "r", "select method, matched_to, random_sets, interventions, "
        "difference is not null, difference_to_random is not null, random_searches "
        "from leaderboard")}
    # As many components, but of other layers: neither has the other's random sets.
    assert board == {
        ("none", None): (None, 1, False, False, None),
        ("two", None): (3, 1, True, True, None), ("other", None): (3, 1, True, True, None),
        ("random", "two"): (None, 3, True, False, None),
        ("random", "other"): (None, 3, True, False, None)}
    assert set(ask(tmp_path / "r", "select method, reference, sets from comparisons "
                                   "where role = 'chosen'")) == {
        (name, reference, sets) for name in ("two", "other")
        for reference, sets in (("baseline", None), ("random", 3))}


def test_random_sets_of_all_there_is_are_the_same_set(info: ModelInfo, tmp_path: Path) -> None:
    """There is no control of all heads of a layer, and the count is a range."""
    heads = [[1, "head", index] for index in range(info.heads)]
    made = own(info, controls={"random": 2}, interventions={"name": "heads", "components": heads})
    assert done_and_resumed(made, tmp_path / "r") == {"canary": 2, "evaluate": 8}
    assert [line.units_text for line in estimate(made)] == ["2 to 4", "8 to 16"]


def test_a_recipe_may_have_attributions_too(info: ModelInfo, tmp_path: Path) -> None:
    made = recipe(info, attribution={"method": "weight", "prompts": 4, "shots": 2},
                  interventions=[{"name": "two", "components": TWO}])
    done_and_resumed(made, tmp_path / "r")
    board = {row[0]: row[1:] for row in ask(
        tmp_path / "r", "select method, random_sets, random_searches from leaderboard "
                        "where matched_to is null")}
    assert board["two"] == (1, None)  # it was not searched for
    assert board["weight"] == (1, 1)
    with pytest.raises(UserError, match="'weight' is the name of two, or of an attribution"):
        prunelib.recipe.checks.check_recipe(recipe(
            info, attribution="weight", interventions=[{"name": "weight", "components": TWO}]))


def test_answers_are_those_of_a_checkpoint_with_zeros_in_its_weights(given: Path, tmp_path: Path
                                                                     ) -> None:
    """The oracle is plain transformers on changed weights: nothing is live there."""
    zeros = export(describe("reference/llama-copier"), ablation(MANY), tmp_path / "zeros")
    assert prunelib.run(plain(str(zeros), attribution="none"), tmp_path / "r").complete
    under = said(given, ablation(MANY).digest)
    assert under == said(tmp_path / "r", BASELINE.digest)
    assert under != said(given, BASELINE.digest) and len(under) == 20


def test_every_form_of_one_intervention_is_the_same_work(given: Path, tmp_path: Path,
                                                         capfd: pytest.CaptureFixture[str]) -> None:
    digest = ablation(MANY).digest
    assert call("export", "reference/llama-copier", "--intervention", digest[:8], "--results",
                given, "--out", tmp_path / "many.json") == 0
    rows = [dict(zip(("layer", "site", "index"), row, strict=True)) for row in MANY]
    pq.write_table(pa.Table.from_pylist([row | {"score": 0.5} for row in rows]),
                   tmp_path / "many.parquet")
    (tmp_path / "many.csv").write_text("site,index,layer\n" + "".join(
        f"{r['site']},{r['index']},{r['layer']}\n" for r in reversed(rows)))
    forms = [{"name": ending, "file": str(tmp_path / f"many.{ending}")}
             for ending in ("csv", "parquet", "json")]
    forms.append({"name": "run", "results": str(given), "digest": digest[:10]})
    made = plain("reference/llama-copier", interventions=forms, controls={"random": 0})
    found = done_and_resumed(made, tmp_path / "r")
    assert found == {"canary": 2, "evaluate": 2}
    assert set(ask(tmp_path / "r", "select method, intervention from interventions")) == {
        ("none", BASELINE.digest), *((form["name"], digest) for form in forms)}
    assert said(tmp_path / "r", digest) == said(given, digest)
    assert call("export", "reference/llama-copier", "--intervention", digest, "--results",
                given, "--out", tmp_path / "many.json") == 2
    assert "exists" in capfd.readouterr().err


def test_a_fine_tuning_of_another_run_is_a_control(info: ModelInfo, tmp_path: Path) -> None:
    first = recipe(info, attribution={"method": "random", "name": "r", "prompts": 4, "shots": 2},
                   controls={"random": 0, "fine_tuning": {"epochs": 1}})
    assert prunelib.run(first, tmp_path / "a").complete
    [(digest,)] = ask(tmp_path / "a", "select intervention from interventions "
                                      "where kind = 'fine_tuning'")
    done_and_resumed(own(info, interventions=[
        {"name": "tuned", "results": str(tmp_path / "a"), "digest": digest}]), tmp_path / "b")
    assert ask(tmp_path / "b", "select role from interventions where method = 'tuned'") == [
        ("control",)]
    assert said(tmp_path / "b", digest) == said(tmp_path / "a", digest)
    assert ("tuned", True) in ask(tmp_path / "b", "select method, difference is not null "
                                                  "from leaderboard")


def test_a_vector_is_a_steering_with_its_strength(info: ModelInfo, tmp_path: Path) -> None:
    vector = torch.linspace(-1, 1, info.stream)
    save_file({"caa": vector.bfloat16(), "other": vector}, tmp_path / "v.safetensors")
    given = {"file": str(tmp_path / "v.safetensors"), "layer": 1, "strength": 40.0}
    with pytest.raises(UserError, match="'ca': did you mean caa"):
        done_and_resumed(own(info, interventions={"name": "v", "vector": given | {"tensor": "ca"}}),
                         tmp_path / "no")
    made = own(info, interventions={"name": "v", "vector": given | {"tensor": "caa"}})
    assert done_and_resumed(made, tmp_path / "r") == {"canary": 3, "evaluate": 12}
    expected = Steering.of([Edit(1, "stream", shift=packed(
        (40 * vector.bfloat16().double()).tolist()))])
    assert ask(tmp_path / "r", "select role, kind, layer, strength, count, intervention from "
                               "interventions where method = 'v'") == [
        ("chosen", "steering", 1, 40.0, info.stream, expected.digest)]
    assert said(tmp_path / "r", expected.digest) != said(tmp_path / "r", BASELINE.digest)
    assert ("v", "baseline") in ask(tmp_path / "r", "select method, reference from comparisons")


def test_a_vector_is_compared_with_random_directions_of_its_length(
    info: ModelInfo, tmp_path: Path
) -> None:
    first, second = torch.linspace(-1, 1, info.stream), torch.linspace(0, 2, info.stream)
    save_file({"a": first, "b": second, "again": -first}, tmp_path / "v.safetensors")
    place = {"file": str(tmp_path / "v.safetensors"), "layer": 1, "strength": 3.0}
    made = own(info, controls={"random": 2}, interventions=[
        {"name": name, "vector": place | {"tensor": name}} for name in ("a", "b", "again")] + [
        {"name": "elsewhere", "vector": place | {"tensor": "a", "place": "mlp_out"}},
        {"name": "two", "components": TWO}])
    assert prunelib.run(made, tmp_path / "r").complete
    contents = {name: [Steering.from_content(json.loads(content)) for (content,) in ask(
        tmp_path / "r", "select distinct content from interventions where kind = 'steering' and "
                        f"{where}")] for name, where in (
        ("random", "method = 'random'"), ("own", "role = 'chosen'"))}
    lengths = {name: Counter((edit.place, round(float(np.linalg.norm(edit.shifts)), 3))
                             for steering in found for edit in steering.edits)
               for name, found in contents.items()}
    # Those of a vector and of its opposite are the same, as it is as long and at the same place.
    assert lengths["own"] == {("stream", round(3 * float(first.norm()), 3)): 2,
                              ("stream", round(3 * float(second.norm()), 3)): 1,
                              ("mlp_out", round(3 * float(first.norm()), 3)): 1}
    assert lengths["random"] == dict.fromkeys(lengths["own"], 2)
    board = {(row[0], row[1]): row[2:] for row in ask(
        tmp_path / "r", "select method, matched_to, random_sets, interventions, "
        "difference is not null, difference_to_random is not null from leaderboard")}
    names = {"a": "a, again", "again": "a, again", "b": "b", "elsewhere": "elsewhere", "two": "two"}
    assert board == {("none", None): (None, 1, False, False)} | {
        (name, None): (2, 1, True, True) for name in names} | {
        ("random", matched): (None, 2, True, False) for matched in names.values()}
    assert set(ask(tmp_path / "r", "select method, reference, sets from comparisons "
                                   "where role = 'chosen'")) == {
        (name, *reference) for name in names for reference in (("baseline", None), ("random", 2))}


def test_what_only_scales_has_no_random_directions(info: ModelInfo, tmp_path: Path) -> None:
    write_file(info, Steering.of([Edit(1, "stream", (0, 3), factor=2.0)]), tmp_path / "s.json")
    made = own(info, interventions={"name": "scaled", "file": str(tmp_path / "s.json")})
    assert done_and_resumed(made, tmp_path / "r") == {"canary": 2, "evaluate": 8}


@pytest.mark.parametrize("none", ["none", "null", "[]", '"none"', "~"])
def test_without_attribution_models_are_evaluated_as_they_are(none: str) -> None:
    made = parse_recipe(f"name: a\nmodels: [reference/llama, reference/gpt2]\nattribution: {none}\n"
                        "evaluate: {tasks: [to_upper, vowel_counting], shots: [1, 2], "
                        "seeds: [0, 1]}\nengine: transformers")
    assert made.attribution == () and [study.section for study in made.studies()] == [
        "interventions"]
    assert {(line.model, line.stage, line.units_text) for line in estimate(made)} == {
        (model, stage, count) for model in ("reference/llama", "reference/gpt2")
        for stage, count in (("canary", "1"), ("evaluate", "8"))}


def test_many_models_on_many_tasks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = plain("reference/llama", models=["reference/llama", "reference/gpt2"],
                 attribution=None, evaluate={"tasks": ["to_upper", "vowel_counting"],
                                             "shots": [1, 2], "examples": 4,
                                             "capability": {"examples": 4}})
    done_and_resumed(made, tmp_path / "r")
    assert ask(tmp_path / "r", "select model, method, tasks, n from leaderboard order by all") == [
        ("reference/gpt2", "none", 2, 16), ("reference/llama", "none", 2, 16)]
    assert call("show", tmp_path / "r") == 0
    assert "baseline" in capfd.readouterr().out


def test_the_key_changes_the_run_only_where_it_is_used() -> None:
    """The name of a run from before there was such a key."""
    before = Recipe.model_validate({"name": "a", "models": ["reference/llama"]})
    assert before.run_id == "a-44ee9598"
    assert before.run_id != Recipe.model_validate({
        "name": "a", "models": ["reference/llama"], "attribution": {},
        "interventions": {"name": "two", "components": TWO}}).run_id


@pytest.mark.parametrize(("name", "text", "why"), [
    ("a.csv", "layer,site\n0,mlp_hidden\n", "has no column 'index': its columns are layer, site"),
    ("a.csv", "layer,site,index\n", "has no components"),
    ("a.csv", "layer,site,index\n0,mlp_hiden,1\n", "component 1: unknown site 'mlp_hiden': did you "
                                                   "mean mlp_hidden"),
    ("a.csv", "layer,site,index\n0,mlp_hidden,1\n0,mlp_hidden,x\n", "component 2: index: "),
    ("a.csv", "layer,site,index\n0,mlp_hidden,-1\n", "component 1: index: "),
    ("a.csv", "layer,site,index\n0,mlp_hidden\n", "line 2: 2 fields, where the first line has 3"),
    ("a.parquet", "no parquet", "cannot be read: "),
    ("a.json", "{", "cannot be read: "),
    ("a.json", "[]", "is not what prunelib export writes"),
    ("a.json", '{"kind": "ablation", "content": {"layers": [0], "sites": ["mlp_hidden"], '
               '"indices": [1]}, "intervention": "00"}', "was changed"),
    ("a.json", '{"kind": "spell", "content": {}, "intervention": "00"}', "of kind 'spell'"),
    ("a.txt", "", "such a file ends in .csv, .parquet, .json"),
    ("a.csv", None, "does not exist"),
])  # fmt: skip
def test_a_bad_file_is_one_line(name: str, text: str | None, why: str, tmp_path: Path,
                                capfd: pytest.CaptureFixture[str]) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    refused(tmp_path, capfd, why, {"name": "mine", "file": str(tmp_path / name)})


@pytest.mark.parametrize(("given", "why"), [
    ({"components": [[9, "mlp_hidden", 1]]}, "intervention 'mine': component 9.mlp_hidden.1 is not "
                                             "in a model of"),
    ({"components": [[0, "mlp_row", 1]]}, "component 0.mlp_row.1 is not in a model of"),
    ({"components": [[0, "heads", 1]]}, "unknown site 'heads': did you mean head"),
    ({"components": [[0, "head"]]}, "a component is {layer: 0"),
    ({"components": []}, "changes nothing"),
    ({}, "needs one of components, file, vector, or results with digest; it has none"),
    ({"components": ONE, "file": "a.csv"}, "it has components and file"),
    ({"vector": {"file": "no.safetensors", "layer": 0}}, "vector 'no.safetensors' does not exist"),
    ({"vector": {"file": __file__, "layer": 0}}, "cannot be read: "),
    ({"digest": "00ff"}, "results and digest go together"),
    ({"results": "nowhere", "digest": "00ff"}, "nowhere"),
    ({"component": ONE}, "unknown key 'interventions.0.component': did you mean 'components'?"),
    ({"name": "random", "components": ONE}, "'random' is what the tables call a reference"),
])  # fmt: skip
def test_a_bad_entry_is_one_line(given: dict[str, Any], why: str, tmp_path: Path,
                                 capfd: pytest.CaptureFixture[str]) -> None:
    refused(tmp_path, capfd, why, {"name": "mine"} | given)


def refused(folder: Path, capfd: pytest.CaptureFixture[str], why: str, entry: dict[str, Any]
            ) -> None:
    made = folder / "r.yaml"
    made.write_text(yaml.safe_dump({
        "name": "r", "models": ["reference/llama"], "engine": "transformers",
        "interventions": [entry], "evaluate": {"tasks": ["to_upper"], "examples": 4}}))
    assert call("validate", made) == 2
    out, err = capfd.readouterr()
    assert not out and why in err and len(err.splitlines()) == 1, err


def test_no_such_digest_is_said(given: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
                                ) -> None:
    refused(tmp_path, capfd, "no intervention begins with '00000000'",
            {"name": "mine", "results": str(given), "digest": "00000000"})
