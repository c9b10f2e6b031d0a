"""The importance study from the recipe to its rows, on a tiny random model with eight heads."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call
from pipeline.small import Watcher, rows
from scipy.stats import spearmanr

import prunelib
from prunelib.components import Component, Site
from prunelib.errors import UnitError, UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import ModelInfo
from prunelib.pipeline.plan import estimate
from prunelib.pipeline.progress import RunProgress, read_progress
from prunelib.pipeline.stages.evaluation import EvaluateJob
from prunelib.pipeline.stages.registry import counts as unit_counts
from prunelib.pipeline.stages.study import exactly
from prunelib.pipeline.units.unit import Unit, Workplace
from prunelib.results.query import query
from prunelib.results.storage.store import Store

TASKS, SHOTS = ("antonyms", "en_fr", "to_upper"), (0, 1)
SETTINGS = tuple(itertools.product(TASKS, SHOTS))
LAYERS, HEADS = 2, 4
#: Fractions, and how many heads and FFNs they are of eight and two.
FRACTIONS = {0.3: (2, 0), 0.6: (4, 1)}


def recipe(info: ModelInfo, **changes: Any) -> prunelib.Recipe:
    return prunelib.Recipe.model_validate({
        "name": "heads", "models": [info.path], "engine": "transformers",
        "importance": {
            "prompts": 4, "oracle": ["head", "ffn"], "examples": 3, "sequences": 1,
            "removal": {"heads": "gradient_gate", "ffns": "gradient_per_token", "joint": True,
                        "fractions": list(FRACTIONS), "random": 1},
        },
        "evaluate": {"tasks": TASKS, "shots": SHOTS, "seeds": [0, 1], "examples": 2},
    } | changes)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """A finished study, with what was seen while it ran."""

    info: ModelInfo
    recipe: prunelib.Recipe
    folder: Path
    seen: list[RunProgress]

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return query(self.folder, sql).to_pylist()

    def scores(self, site: str, name: str) -> dict[tuple[str, int], np.ndarray[Any, Any]]:
        """(task, shots) → flat scores, component by component."""
        found: dict[tuple[str, int], list[float]] = {}
        for row in self.rows(f"FROM component_scores WHERE site = '{site}' AND score = '{name}' "
                             'ORDER BY layer, "index"'):
            found.setdefault((row["task"], row["shots"]), []).append(row["value"])
        return {setting: np.array(values) for setting, values in found.items()}


@pytest.fixture(scope="module")
def study(families: Callable[[str], ModelInfo], tmp_path_factory: pytest.TempPathFactory) -> Study:
    info, folder = families("llama, shared keys"), tmp_path_factory.mktemp("heads") / "results"
    made, watcher = recipe(info), Watcher(folder)
    assert prunelib.run(made, folder, None, watcher).complete
    return Study(info, made, folder, watcher.seen)


def digest(site: str, order: np.ndarray[Any, Any], count: int) -> str:
    return off(site, order, count).digest


def off(site: str, order: np.ndarray[Any, Any], count: int) -> Ablation:
    """The ablation of the first components of an order of flat numbers."""
    layers, indices = np.divmod(order[:count], HEADS if site == "head" else 1)
    kind: Site = "head" if site == "head" else "ffn"
    return Ablation.of(Component(int(layer), kind, int(index))
                       for layer, index in zip(layers, indices, strict=True))


def least_first(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.argsort(scores, kind="stable")


def test_every_table_has_its_rows(study: Study) -> None:
    found = rows(study.folder)
    of_scores = study.rows("SELECT site, score, count(*) AS n, min(prompts) AS low, "
                           "max(prompts) AS high FROM component_scores GROUP BY ALL")
    gradients = {(site, f"gradient_{name}"): (len(SETTINGS) * LAYERS * width, 4, 4)
                 for site, width in (("head", HEADS), ("ffn", 1))
                 for name in ("per_token", "gate", "signed")}
    induction = {("head", name): (LAYERS * HEADS, 1, 1)
                 for name in ("prefix_matching", "copying", "copying_own_value")}
    assert {(r["site"], r["score"]): (r["n"], r["low"], r["high"]) for r in of_scores} == (
        gradients | induction)
    assert [(r["layers"], r["heads"]) for r in study.rows("FROM models")] == [(LAYERS, HEADS)]
    for empty in ("attributions", "prompt_scores", "planted", "likelihoods", "task_vectors"):
        assert len(found[empty]) == 0

    alone = {off(site, np.array([i]), 1).digest
             for site, count in (("head", 8), ("ffn", 2)) for i in range(count)}
    ablations = study.rows("SELECT DISTINCT role, intervention FROM interventions")
    by_role = {role: {r["intervention"] for r in ablations if r["role"] == role}
               for role in ("baseline", "component", "removal")}
    assert by_role["baseline"] == {BASELINE.digest} and by_role["component"] == alone
    removals = study.rows("FROM removals")
    assert by_role["removal"] == {r["intervention"] for r in removals} - {BASELINE.digest}
    canaries = study.rows("SELECT DISTINCT intervention FROM canaries")
    assert {r["intervention"] for r in canaries} == set().union(*by_role.values())

    answers = study.rows("SELECT split, purpose, intervention, task, shots, seed, count(*) AS n "
                         "FROM predictions GROUP BY ALL")
    searched = {(digest, *s, 0) for digest in alone | {BASELINE.digest} for s in SETTINGS}
    reported = {(r["intervention"], *s, seed) for r in removals for s in SETTINGS for seed in (0, 1)
                if r["task"] in (None, s[0]) and r["shots"] in (None, s[1])}
    reported |= {(BASELINE.digest, *s, seed) for s in SETTINGS for seed in (0, 1)}
    for split, wanted, n in (("search", searched, 3), ("report", reported, 2)):
        of_split = [r for r in answers if r["split"] == split]
        assert {r["purpose"] for r in of_split} == {
            "importance" if split == "search" else "report"}
        assert {(r["intervention"], r["task"], r["shots"], r["seed"]) for r in of_split} == wanted
        assert {r["n"] for r in of_split} == {n}
    assert {r["status"] for r in study.rows("FROM units")} == {"done"}


def test_answers_without_a_component_are_those_of_the_model_without_it(study: Study) -> None:
    """Many components change what so random a model says, and a canary checked each of them."""
    said = {(r["intervention"], r["task"], r["shots"]): r["said"] for r in study.rows(
        "SELECT intervention, task, shots, list(prediction ORDER BY example) AS said "
        "FROM predictions WHERE purpose = 'importance' GROUP BY ALL")}
    changed = {ablation for (ablation, *s), some in said.items()
               if some != said[BASELINE.digest, s[0], s[1]]}
    assert len(changed) >= 8


def test_own_and_aggregate_orders_by_hand(study: Study) -> None:
    found = {(r["order"], r["task"], r["shots"], r["ranked_by"], r["heads"], r["ffns"]):
             r["intervention"] for r in study.rows("FROM removals WHERE heads = 0 OR ffns = 0")}
    for place, (site, name) in enumerate((("head", "gradient_gate"),
                                          ("ffn", "gradient_per_token"))):
        scores = study.scores(site, name)
        for fraction, counts in FRACTIONS.items():
            shares = (fraction, 0.0) if site == "head" else (0.0, fraction)
            for task, shots in SETTINGS:
                order = least_first(scores[task, shots])
                assert found["own", task, shots, task, *shares] == digest(
                    site, order, counts[place])
            for shots in SHOTS:
                mean = np.mean([scores[task, shots] for task in TASKS], axis=0)
                assert found["aggregate", None, shots, None, *shares] == digest(
                    site, least_first(mean), counts[place])


def test_closest_and_farthest_orders_by_hand(study: Study) -> None:
    scores = study.scores("head", "gradient_gate")
    used: set[tuple[str, str, str]] = set()
    for task, shots in SETTINGS:
        alike = {other: spearmanr(scores[task, shots], scores[other, shots]).statistic
                 for other in TASKS if other != task}
        for order, by in (("closest", max(alike, key=lambda other: alike[other])),
                          ("farthest", min(alike, key=lambda other: alike[other]))):
            found = study.rows(f"FROM removals WHERE \"order\" = '{order}' AND ffns = 0 AND "
                               f"task = '{task}' AND shots = {shots} ORDER BY heads")
            assert [(r["ranked_by"], r["heads"], r["heads_removed"]) for r in found] == [
                (by, 0.3, 2), (by, 0.6, 4)]
            theirs = least_first(scores[by, shots])
            assert [r["intervention"] for r in found] == [digest("head", theirs, n) for n in (2, 4)]
            used.add((order, task, by))
    assert len({by for _, _, by in used}) > 1


def test_random_orders_are_nested_and_the_same_for_every_task(study: Study) -> None:
    found = study.rows("SELECT DISTINCT heads, intervention, task, shots, content "
                       "FROM removals JOIN interventions USING (intervention) "
                       "WHERE \"order\" = 'random' AND ffns = 0 ORDER BY heads")
    few, many = (set(Ablation.from_content(json.loads(r["content"])).components) for r in found)
    assert len(few) == 2 and len(many) == 4 and few < many
    assert {(r["task"], r["shots"]) for r in found} == {(None, None)}


def test_the_joint_grid_has_every_pair_in_the_tasks_own_order(study: Study) -> None:
    heads, ffns = (study.scores(site, name) for site, name in (
        ("head", "gradient_gate"), ("ffn", "gradient_per_token")))
    found = {(r["task"], r["shots"], r["heads"], r["ffns"]): r
             for r in study.rows("FROM removals WHERE heads > 0 AND ffns > 0")}
    assert found.keys() == {(*s, *pair) for s in SETTINGS
                            for pair in itertools.product(FRACTIONS, FRACTIONS)}
    for (task, shots, of_heads, of_ffns), row in found.items():
        both = Ablation.of(
            off("head", least_first(heads[task, shots]), FRACTIONS[of_heads][0]).components
            + off("ffn", least_first(ffns[task, shots]), FRACTIONS[of_ffns][1]).components)
        assert (row["order"], row["ranked_by"], row["intervention"]) == ("own", task, both.digest)
        assert (row["heads_removed"], row["ffns_removed"]) == (
            FRACTIONS[of_heads][0], FRACTIONS[of_ffns][1])


def test_a_finished_study_does_nothing_again(study: Study) -> None:
    before = {table: found.num_rows for table, found in rows(study.folder).items()}
    again = prunelib.run(study.recipe, study.folder)
    assert again.complete and again.units_done == 0
    assert again.units_reused == sum(
        len(Store.open(study.folder).done(table)) for table in ("canaries", "predictions")) + len(
        study.rows("SELECT DISTINCT unit_id FROM component_scores"))
    assert {table: found.num_rows for table, found in rows(study.folder).items()} == before


def test_plan_and_status_count_the_study(study: Study) -> None:
    expected = unit_counts(study.recipe, LAYERS, HEADS)
    counted = {r["stage"]: r["n"] for r in study.rows(
        "SELECT stage, count(DISTINCT unit_id) AS n FROM units GROUP BY ALL")}
    assert "search" not in expected and expected["attribute"].exact
    assert expected["attribute"].least == counted["attribute"] == 7
    # Rankings of different tasks may begin alike, so these are bounds, but near ones.
    for stage in ("canary", "evaluate"):
        assert expected[stage].least <= counted[stage] <= expected[stage].most
        assert expected[stage].most <= 2 * counted[stage]

    new = {line.stage: line for line in estimate(study.recipe)}
    assert {stage: line.units for stage, line in new.items()} == expected
    assert all(line.teraflop > 0 and line.seconds is None for line in new.values())
    done = {line.stage: line for line in estimate(study.recipe, study.folder)}
    assert {stage: (line.units, line.done) for stage, line in done.items()} == {
        stage: (exactly(units), units) for stage, units in counted.items()}
    again = {line.stage: line for line in estimate(study.recipe, None, [study.folder])}
    assert all(line.seconds for line in again.values())

    first, last = study.seen[0], read_progress(study.folder)
    assert {s.stage: s.total for s in first.stages} == {
        stage: count.most for stage, count in expected.items()}
    for look in study.seen:
        assert all(s.done <= (s.total or 0) and s.exact == (s.stage == "attribute")
                   for s in look.stages)
    assert {s.stage: (s.done, s.total, s.exact) for s in last.stages} == {
        stage: (units, units, True) for stage, units in counted.items()}


@pytest.mark.parametrize(("orders", "canaries", "evaluations"), [
    # Two tasks, two shares; the untouched model: one ablation, two evaluations.
    (["own"], 1 + 4, 2 + 4), (["closest"], 1 + 4, 2 + 4), (["random"], 1 + 2 * 2, 2 + 2 * 2 * 2),
    (["aggregate", "farthest"], 1 + 2 + 4, 2 + 4 + 4),
    (["own", "closest", "farthest"], 1 + 4, 2 + 4 + 4),  # of two tasks one is the other's both
])  # fmt: skip
def test_counts_of_fewer_orders(
    study: Study, orders: list[str], canaries: int, evaluations: int, tmp_path: Path
) -> None:
    """Of heads alone: at most so many, and fewer only where orders begin alike."""
    made = recipe(study.info, importance={
        "prompts": 2, "oracle": [], "sequences": 0,
        "removal": {"ffns": "none", "fractions": [0.3, 0.6], "orders": orders, "random": 2}},
        evaluate={"tasks": TASKS[:2], "shots": [1], "examples": 1})
    assert prunelib.run(made, tmp_path / "r").complete
    counted = {s.stage: s.done for s in read_progress(tmp_path / "r").stages}
    expected = unit_counts(made, LAYERS, HEADS)
    most = {stage: count.most for stage, count in expected.items()}
    assert most == {"attribute": 2, "canary": canaries, "evaluate": evaluations}
    assert counted.keys() == expected.keys() and counted["attribute"] == 2
    assert all(most[stage] / 2 < counted[stage] <= most[stage] for stage in counted)
    assert all(expected[stage].least <= counted[stage] for stage in counted)


def test_a_study_without_removal_and_beside_neurons(study: Study, tmp_path: Path) -> None:
    made = recipe(study.info, importance={"prompts": 2, "examples": 2, "sequences": 0,
                                          "removal": False},
                  attribution={"prompts": 2, "shots": 1, "block": 2, "max_nodes": 4},
                  search={"rates": [0.2], "examples": 4, "shots": 1, "nothing": "excluded"},
                  controls={"random": 1, "random_searches": 1},
                  evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 2})
    assert prunelib.run(made, tmp_path / "r").complete
    roles = query(tmp_path / "r", "SELECT DISTINCT role FROM interventions").to_pylist()
    assert {r["role"] for r in roles} == {"baseline", "grid", "chosen", "control", "component"}
    assert query(tmp_path / "r", "FROM removals").num_rows == 0
    counted = {s.stage: s.done for s in read_progress(tmp_path / "r").stages}
    expected = unit_counts(made, LAYERS, HEADS)
    assert all(count.least <= counted[stage] <= count.most <= counted[stage] + 2
               for stage, count in expected.items())
    assert {line.stage for line in estimate(made)} == set(expected)


def test_a_model_without_heads_is_refused_before_any_work(
    families: Callable[[str], ModelInfo], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"\(mamba\) has no attention heads"):
        prunelib.run(recipe(families("mamba")), tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("section", "message"), [
    ("{removal: {heads: gradient_gat}}", "unknown ranking 'gradient_gat': did you mean "
                                         "gradient_gate"),
    ("{removal: {orders: [own, closets]}}", "unknown order 'closets': did you mean closest"),
    ("{removal: {heads: oracle}}", "removal.heads is oracle, so oracle needs to name 'head'"),
    ("{removal: {heads: none, ffns: none}}", "rank one of them, or use removal: false"),
    ("{oracle: [head]}", "removal.ffns is oracle, so oracle needs to name 'ffn'"),
    ("{oracle: [heads]}", "importance.oracle.0: Input should be 'head' or 'ffn'"),
    ("{removal: {fractions: [0.5, 1.0]}}", "removal.fractions.1: Input should be less than 1"),
    ("{exampels: 3}", "unknown key 'importance.exampels': did you mean 'examples'?"),
    ("{removal: {fraction: [0.1]}}", "did you mean 'fractions'?"),
    ("{}\nevaluate: {tasks: [to_lower], shots: [5]}",
     "task 'to_lower' has 4 pairs for demonstrations in its search split, fewer than shots: 5"),
    ("{}\nevaluate: {tasks: [prev_letter], shots: [0, 5]}",
     "task 'prev_letter' has 3 pairs for demonstrations in its attribute split, fewer"),
])  # fmt: skip
def test_bad_input_ends_in_one_line_before_any_work(
    section: str, message: str, study: Study, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"name: bad\nmodels: [{study.info.path}]\nimportance: {section}\n")
    for command in (["validate", path], ["run", path, "--results", tmp_path / "r"]):
        assert call(*command) == 2
        said = capfd.readouterr()
        assert message in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "r").exists()


def failing_oracle(job: EvaluateJob, worker: Workplace, unit: Unit) -> list[dict[str, Any]]:
    """As the job does, but for one component's oracle evaluation of one task."""
    if job.purpose == "importance" and job.task.name == "en_fr" and job.intervention == FIRST_FFN:
        raise UnitError("boom")
    return REAL(job, worker, unit)


REAL, FIRST_FFN = EvaluateJob.run, Ablation.of([Component(0, "ffn", 0)])


@pytest.mark.parametrize("read", [True, False], ids=["that removal needs", "that is reported only"])
def test_a_failed_oracle_evaluation_is_a_row(
    read: bool, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads it ends with a word, what does not goes on; neurons go on in any case."""
    monkeypatch.setattr(EvaluateJob, "run", failing_oracle)
    made = recipe(
        study.info,
        importance={"prompts": 2, "examples": 2, "sequences": 0, "oracle": ["ffn"], "removal": {
            "heads": "none", "ffns": "oracle" if read else "gradient_gate", "orders": ["own"]}},
        attribution={"prompts": 2, "shots": 1, "block": 2, "max_nodes": 4},
        search={"rates": [0.2], "examples": 4, "shots": 1, "nothing": "excluded"},
        evaluate={"tasks": ["to_upper", "en_fr"], "shots": [1], "examples": 2})
    report = prunelib.run(made, tmp_path / "r")
    assert [a.error_text for a in report.failed] == ["boom"]
    assert query(tmp_path / "r", "select distinct error_text from failed_units").to_pylist() == [
        {"error_text": "boom"}]
    assert query(tmp_path / "r", "select status from runs").to_pylist() == [{"status": "failed"}]
    assert query(tmp_path / "r", "from leaderboard").num_rows == 4
    if not read:
        assert not report.stopped and query(tmp_path / "r", "from removal_means").num_rows
        return
    ((why,),) = report.stopped.values()
    assert why.startswith("importance: 1 of 6 units that the next step needs failed, such as "
                          f"evaluate, en_fr, 1 shots, seed 0, {FIRST_FFN}")
    monkeypatch.undo()
    again = prunelib.run(made, tmp_path / "r")
    assert again.complete and query(tmp_path / "r", "from removal_means").num_rows
