"""The study of steering in a run, beside pruning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pipeline.small import Watcher, ask, done_and_resumed, recipe, rows

import prunelib
import prunelib.plot
from prunelib.engines.base import Prompt
from prunelib.engines.transformers import TransformersEngine
from prunelib.errors import UserError
from prunelib.interventions.registry import intervention_of
from prunelib.models import ModelInfo, describe, load
from prunelib.pipeline.stages.steering import grid_shape
from prunelib.pipeline.units.executor import InlineExecutor
from prunelib.pipeline.units.prompts import tokenized
from prunelib.pipeline.units.worker import Worker
from prunelib.recipe.checks import check_recipe
from prunelib.recipe.steering import SteeringMethodSpec
from prunelib.results.report.html import build
from prunelib.results.report.run import find_run
from prunelib.results.storage.store import Store
from prunelib.scoring.correctness import first_line
from prunelib.tasks import draw, get_task

METHODS = ("iti", "caa", "sadi_hidden", "sadi_neuron", "sadi_head")
STEERING: dict[str, Any] = {"prompts": 8, "shots": 2, "block": 3, "methods": [
    {"method": "iti", "sizes": [1, 2]}, "caa", *METHODS[2:]]}


def steered(info: ModelInfo, **changes: Any) -> prunelib.Recipe:
    return recipe(info, **{"steering": STEERING} | changes)


@pytest.fixture(scope="module")
def finished(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steered") / "r"
    report = prunelib.run(steered(info), folder)
    assert report.complete, [a.error_text for a in report.failed] or report.stopped
    return folder


def test_every_method_is_searched_as_much_as_pruning(finished: Path) -> None:
    found = ask(finished, "select distinct method, candidates, searched from methods "
                          "where method <> 'none'")
    assert {method for method, *_ in found} == {*METHODS, "integrated_gradients", "random_search"}
    # Two layers × two rates, on twelve examples; steerings of different settings may be the same.
    assert all(candidates <= 4 and searched == 12 for _, candidates, searched in found)
    assert ("caa", 4.0, 12) in found and ("integrated_gradients", 4.0, 12) in found


def test_figures_show_searches_over_layers_and_shares_alone(finished: Path) -> None:
    """Steering has settings of its own, which are no cells of a map."""
    with prunelib.open_results(finished) as results:
        row = find_run(results, finished, None)
        report = build(results, row, "figures")
        titles = [panel.get_title() for panel in prunelib.plot.grid(results).axes]
    (search,) = [one for name, one in report.drawings.items() if name.endswith("search")]
    maps = {panel.get_title().partition("\n")[0] for panel in search.figure.axes}
    assert maps - {""} == {"integrated_gradients", "control: random search, seed 0"}
    assert not [title for title in titles if "caa" in title]


def test_methods_have_a_line_for_every_task_with_what_they_took(finished: Path) -> None:
    lines = ask(finished, "select task, method, n, samples, seconds_to_choose, seconds, "
                          "peak_memory_mb, difference, q_value from methods")
    assert len(lines) == 2 * (3 + len(METHODS))
    for _, method, n, samples, to_choose, seconds, memory, difference, q in lines:
        assert n == 12 and seconds > 0 and memory > 50
        assert samples == {"none": None, "random_search": 0, "integrated_gradients": 6}.get(
            method, 8)
        assert (to_choose > 0) == (method != "none") == (difference is not None)
        assert (q is None) == (method in ("none", "random_search"))


def test_answers_are_those_of_the_stored_steering(info: ModelInfo, finished: Path) -> None:
    loaded = load(info)
    engine = TransformersEngine(loaded)
    examples = draw(get_task("to_upper"), split="report", shots=2, seed=0, count=6)
    prompts = tokenized(get_task("to_upper"), examples, loaded.tokenizer)
    chosen = ask(finished, "select distinct method, intervention, content from interventions "
                           "where kind = 'steering' and role = 'chosen'")
    assert {method for method, *_ in chosen} == set(METHODS)
    for method, digest, content in chosen:
        steering = intervention_of("steering", json.loads(content))
        assert steering.digest == digest
        engine.switch(steering)
        said = [first_line(c.text, "\n") for c in engine.generate(
            [Prompt(p.token_ids, p.max_tokens) for p in prompts])]
        found = ask(finished, "select prediction from _answers where task = 'to_upper' and shots = "
                              f"2 and purpose = 'report' and method = '{method}' order by example")
        assert [row[0] for row in found] == said, method
    engine.close()


class Backwards(InlineExecutor):
    """As if many workers raced: the last unit first, each by a worker of its own."""

    def __init__(self, store: Store) -> None:
        super().__init__(lambda: Worker(store))
        self._store = store

    def wait(self, timeout: float | None = None) -> Any:
        self._worker = Worker(self._store)
        self._queue.rotate(1)
        return super().wait(timeout)


def test_the_order_and_number_of_workers_change_no_bit(
    info: ModelInfo, finished: Path, tmp_path: Path
) -> None:
    other = tmp_path / "r"
    assert prunelib.run(steered(info), other, Backwards(Store.open(other))).complete
    ours, theirs = rows(finished), rows(other)
    assert ours["contrasts"].num_rows == 3 * 4 * 2 + 2
    for table, found in ours.items():
        assert found.equals(theirs[table]), table


def test_alone_resumed_and_planned(info: ModelInfo, tmp_path: Path) -> None:
    alone = steered(info, attribution=[], steering=STEERING | {
        "methods": ["caa"], "proxy": "each_task", "against": "copied"})
    units = done_and_resumed(alone, tmp_path / "r")
    assert units["evaluate"] == (1 + 1) * 2 * 2
    found = ask(tmp_path / "r", "select task, method, samples <= 8 from methods order by all")
    assert found == [("en_fr", "caa", True), ("en_fr", "none", None),
                     ("to_upper", "caa", True), ("to_upper", "none", None)]


def test_choosing_by_what_is_reported_is_named_and_warned_of(
    info: ModelInfo, tmp_path: Path
) -> None:
    notes = []

    class Listening(Watcher):
        def note(self, text: str) -> None:
            notes.append(text)

    (tmp_path / "r").mkdir()
    spec = STEERING | {"methods": [{"method": "sadi_head", "shuffled": True}],
                       "proxy": "to_upper", "choose_on": "report"}
    made = steered(info, attribution=[], steering=spec)
    Store.open(tmp_path / "r")
    assert prunelib.run(made, tmp_path / "r", reporter=Listening(tmp_path / "r")).complete
    assert any("chosen by the prompts that are reported" in note for note in notes)
    assert ask(tmp_path / "r", "select distinct method from methods where method <> 'none'") == [
        ("sadi_head_shuffled_chosen_on_report",)]
    assert ask(tmp_path / "r", "select distinct split from predictions where purpose = 'search'"
               ) == [("report",)]


def test_a_search_may_answer_that_nothing_is_steered(info: ModelInfo, tmp_path: Path) -> None:
    plan = steered(info, attribution=[], steering=STEERING | {"methods": ["caa"]},
                   search={"rates": [0.1], "examples": 6, "nothing": "candidate"})
    assert prunelib.run(plan, tmp_path / "r").complete
    assert ask(tmp_path / "r", 'select "count", difference, p_value from chosen join methods '
                               "using (run, model, method)") == [(0, 0.0, 1.0)] * 2


@pytest.mark.parametrize(("method", "layers", "rates", "expected"), [
    ({"method": "caa"}, 4, 7, ([0, 1, 2, 3], 7)),
    ({"method": "iti"}, 4, 7, ([4, 16], 14)),  # 24 heads: 4, 8 and 16, of which two divide 28
    ({"method": "sadi_head"}, 4, 7, ([1, 4, 6, 10], 7)),
    ({"method": "sadi_neuron"}, 4, 3, ([3, 10, 50, 100, 300, 500], 2)),
    ({"method": "sadi_hidden", "sizes": [5, 5, 2]}, 1, 7, ([2], 7)),
    ({"method": "iti", "sizes": 99}, 2, 2, ([12], 4)),
])
def test_every_grid_has_as_many_cells(
    method: dict[str, Any], layers: int, rates: int, expected: tuple[list[int], int]
) -> None:
    info = describe("reference/llama")
    sizes, steps = grid_shape(SteeringMethodSpec.model_validate(method), tuple(range(layers)),
                              rates, info)
    assert (sizes, steps) == expected and len(sizes) * steps == layers * rates


def test_mistakes_are_found_before_any_work(
    info: ModelInfo, families: Callable[[str], ModelInfo], tmp_path: Path
) -> None:
    for section, said in (
        ({"methods": ["sady_head"]}, "unknown steering method 'sady_head'"),
        ({"methods": [{"method": "caa", "sizes": [3]}]}, "caa has none"),
        ({"methods": ["caa", "caa"]}, "two are called 'caa'"),
        ({"against": "copied", "shots": 0}, "use against: wrong"),
        ({"methods": [{"method": "caa", "name": "integrated_gradients"}]}, "too"),
        ({"methods": [{"method": "caa", "name": "random"}]}, "reference"),
        ({"demonstrations": "report"}, "reported"),
    ):
        with pytest.raises(UserError, match=said):
            check_recipe(steered(info, steering=STEERING | section))
    with pytest.raises(UserError, match=r"steering: iti: .* has no head"):
        prunelib.run(steered(families("mamba")), tmp_path / "r")


def test_own_choices_and_options_are_steered_too(info: ModelInfo, tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(json.dumps(
            {"q": f"{a}->{b}, {c}->", "options": [c.upper(), c, a][: 2 + i % 2], "label": i % 2})
            for i, (a, b, c) in enumerate(zip("abcdefgh", "ABCDEFGH", "klmnopqr", strict=True))))
    own = {"name": "quiz", "path": str(tmp_path), "template": "{q}{answer}", "choices": "options",
           "scoring": "likelihood"}
    few = {"name": "few", "path": str(tmp_path), "template": "{q}{answer}",
           "answers": {0: "low", 1: "upper"}}
    for task, scoring in ((own, "likelihood"), (few, "options")):
        plan = steered(
            info, tasks=[task], attribution=[], search={"rates": [0.1, 0.5], "examples": 6,
                                                        "shots": 0},
            steering={"methods": ["caa", "sadi_head"], "proxy": task["name"], "prompts": 6,
                      "shots": 0},
            evaluate={"tasks": [task["name"]], "shots": [0], "examples": 6, "scoring": "options"})
        results = tmp_path / f"results-{scoring}"
        report = prunelib.run(plan, results)
        assert report.complete, [a.error_text for a in report.failed] or report.stopped
        assert ask(results, "select distinct scoring from predictions") == [(scoring,)]
        assert ask(results, "select count(*) > 0 from predictions where purpose = 'search' and "
                            "(margin is null or error is not null)") == [(False,)]


