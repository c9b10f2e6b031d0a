"""What is wrong with a recipe is said in one line, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import DATA, call

import prunelib
from prunelib.models import ModelInfo

COPA = (f"name: copa, path: {DATA / 'balanced_copa'}, "
        "template: '{premise} {answer}', "
        "splits: {attribute: train, search: train, report: test}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("models: [reference/lama]", "unknown model 'reference/lama'"),
        ("models: [/no/such/folder]", "does not exist"),
        ("models: []", "models"),
        ("evaluate: {tasks: [to_uper]}", "did you mean to_upper"),
        ("evaluate: {tasks: 3}", "evaluate.tasks: Input should be a valid string (got 3)"),
        ("evaluate: {tasks: [[to_upper]]}", "evaluate.tasks.0: Input should be a valid string"),
        ("importance: 3", "importance: Input should be a valid dictionary"),
        ("norms: [1]", "unknown key 'norms': known keys are name, models"),
        ("importance: {removal: {fraction: [0.1]}}",
         "unknown key 'importance.removal.fraction': did you mean 'fractions'?"),
        ("attribution: {method: integrated_gradient}", "did you mean integrated_gradients"),
        ("attribution: {objective: copyshift}", "did you mean copy_shift"),
        ("attribution: {proxy: vowels}", "did you mean vowel_counting"),
        ("attribution: {promts: 3}", "unknown key 'attribution.promts': did you mean 'prompts'?"),
        ("serch: {}", "unknown key 'serch': did you mean 'search'?"),
        ("search: {rates: [0.1, 1.5]}", "search.rates.1: Input should be less than 1"),
        ("search: {rates: [0]}", "search.rates.0: Input should be greater than 0"),
        ("search: {layers: [0, 9]}", "layers 0 to 1, not 9"),
        ("evaluate: {tasks: [to_upper], shots: [14]}", "fewer than shots: 14"),
        ("evaluate: {format: arow}", "did you mean arrow"),
        ("attribution: [", "line"),
        ("search: {strategy: succesive_halving}", "did you mean successive_halving"),
        ("attribution: [{method: wnda}]", "unknown method 'wnda': did you mean wanda"),
        ("attribution: {proxy: each_tasks}", "did you mean each_task"),
        ("attribution: {objective: {name: max_logit, space: logit}}",
         "objective 'max_logit' has no switches"),
        ("attribution: {objective: {agregate: sum}}", "did you mean 'aggregate'?"),
        ("attribution: [{}, {path: joint}]", "two are called 'integrated_gradients'"),
        ("attribution: [{name: random}]", "'random' is what the tables call a reference"),
        ("attribution: {method: random}", "give method random a name"),
        ("attribution: {method: wanda, path: joint}", "path is for method integrated_gradients"),
        ("attribution: {method: wanda, variant: released}",
         "variant is for method integrated_gradients, not for wanda"),
        ("attribution: {method: iterated_path, projection: up}", "not for iterated_path"),
        ("attribution: {method: iterated_path, objective: {tokens: all}}",
         "objective.tokens is for method integrated_gradients or "),
        ("attribution: {path: single, variant: released}", "path single has no gradients"),
        ("attribution: {shots: 0}", "shots is 0: use gold_only or max_logit"),
        (f"attribution: {{proxy: copa, shots: 0}}\ntasks: [{{{COPA}, unlabelled: [attribute]}}]",
         "no labels in its attribute split; objective max_logit and choose: random need none"),
        ("attribution: {proxy: copa, shots: 0, objective: max_logit, choose: wrong}\n"
         f"tasks: [{{{COPA}, unlabelled: [attribute]}}]", "no labels in its attribute split"),
        (f"attribution: {{proxy: copa, prompts: 50}}\ntasks: [{{{COPA}}}]",
         "3 samples in its attribute split, fewer than asked for: 50"),
        (f"evaluate: {{tasks: [copa], shots: [0], examples: 1}}\ntasks: "
         f"[{{{COPA}, unlabelled: [report]}}]", "no labels in its report split"),
        (f"tasks: [{{{COPA.replace(' {answer}', '')}}}]", "a template ends with {answer}"),
        (f"evaluate: {{tasks: [copa]}}\ntasks: [{{{COPA.replace('{premise', '{premis')}}}]",
         "did you mean premise?"),
        ("tasks: [sst]", "unknown data set 'sst': did you mean sst"),
        ("evaluate: {capability: {text: prosa}}", "unknown text 'prosa': did you mean prose"),
        ("evaluate: {capability: {txt: prose}}", "did you mean 'text'?"),
        ("evaluate: {capability: {text: /}}", "cannot read text '/'"),
        ("evaluate: {capability: {tasks: [to_upper]}}", "has no options to choose among"),
        ("evaluate: {capability: {examples: 500}}", "157 questions, fewer than examples: 500"),
        ("evaluate: {shots: []}", "evaluate.shots: Value should have at least 1 item"),
        ("evaluate: {seeds: []}", "evaluate.seeds: Value should have at least 1 item"),
        ("search: {layers: []}", "search.layers: give at least one layer by its number, or all"),
        ("search: {layers: some}", "search.layers: give at least one layer by its number, or all"),
        ("search: {layers: [1, -1]}", "layers are counted from 0, so there is no layer -1"),
        ("search: {rates: 1.5}", "Input should be less than 1"),
        ("search: {proxy: each_task}", "search.proxy is one task; without it"),
        ("attribution: {proxy: icl18}",
         "'icl18' stands for several tasks; this key takes one task"),
        ("evaluate: {tasks: [each_task]}", "evaluate.tasks: each_task is a proxy of attribution"),
        ("evaluate: {transfer: true}", "unless an attribution has proxy: each_task"),
        ("attribution: integrated_gradient", "did you mean integrated_gradients"),
        ("attribution: [wanda, wanda]", "two are called 'wanda'"),
        *((f"tasks: [{{{COPA.replace('copa', name, 1)}}}]", f"'{name}' is reserved")
          for name in ("icl18", "ood", "classification", "each_task")),
        ("models: [{id: reference/llama, revision: v2}]", "leave out revision: v2"),
    ],
)
def test_bad_recipes_end_in_one_line_and_exit_code_2(
    line: str, message: str, info: ModelInfo, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    base = {"name": "name: bad", "models": f"models: [{info.path}]"}
    base[line.split(":")[0]] = line
    path.write_text("\n".join(base.values()))
    for command in (["validate", path], ["run", path, "--results", tmp_path / "r"]):
        assert call(*command) == 2
        said = capfd.readouterr()
        assert message in said.err and said.err.count("\n") == 1
        assert "Traceback" not in said.err
    assert not (tmp_path / "r").exists()


SEVERAL = """\
name: bad name
models: [reference/llama, {id: reference/lama}]
attribution: {promts: 3, shots: no way, shots: 3}
search: {rates: [0.1, 1.5, .nan], layers: x, strategy: exhaustiv}
importance: {removal: {fraction: 3}}
deadline: 2026-13-45
tasks:
"""


def test_all_mistakes_are_said_at_once_with_their_places(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(SEVERAL)
    assert call("validate", path) == 2
    said = [line.removeprefix(f"error: {path}: line ") for line in
            capfd.readouterr().err.splitlines()]
    assert [line.partition(": ")[0] for line in said] == [
        "1, column 7", "2, column 27", "3, column 15", "3, column 41", "4, column 23",
        "4, column 28", "4, column 43", "4, column 56", "5, column 24", "6, column 11",
        "7, column 7"]
    for line, message in zip(said, (
            "name: String should match", "unknown model 'reference/lama'", "did you mean 'prompts'",
            "key 'shots' is here twice, first in line 3, column 26", "less than 1 (got 1.5)",
            "finite number (got nan)", "give at least one layer", "did you mean exhaustive",
            "did you mean 'fractions'", "'2026-13-45' is no timestamp", "(got nothing)"),
            strict=True):
        assert message in line


@pytest.mark.parametrize(("text", "message"), [
    ("name: b", "line 3, column 1: key 'name' is here twice, first in line 1, column 1"),
    ("search: {seed: 1, seed: 1}", "key 'seed' is here twice, first in line 3, column 10"),
    ("tasks: [{name: t, path: p, template: '{a} {answer}', answers: {1: x, '1': y}}]",
     "key '1' is here twice"),
    ("tasks: [{name: t, path: p, template: '{a} {answer}', answers: {true: x, yes: y}}]",
     "key 'True' is here twice"),
    ("attribution: [&a {shots: 1}, &b {shots: 2}, {<<: [*a, *b]}]",
     "two of what << takes here give 'shots' different values"),
    ("search: &s {<<: *s}", "an anchor that holds itself"),
])
def test_what_is_said_twice_is_refused_with_both_places(
    text: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(f"name: a\nmodels: [reference/llama]\n{text}\n")
    assert call("validate", path) == 2
    assert message in capfd.readouterr().err


def test_what_replaces_a_merged_key_says_nothing_twice() -> None:
    made = prunelib.parse_recipe("""
        name: x
        models: [x]
        attribution: [&a {method: wanda, shots: 2}, {<<: *a, method: weight}]
        """)
    assert [(spec.method, spec.shots) for spec in made.attribution] == [("wanda", 2), ("weight", 2)]


def test_a_single_value_is_a_list_of_one_and_true_is_a_section() -> None:
    short, long = (prunelib.parse_recipe(text) for text in (
        """
        name: x
        models: reference/llama
        attribution: integrated_gradients
        search: {rates: 0.1, layers: 1}
        controls: {fine_tuning: true}
        evaluate: {shots: 2, seeds: 3, tasks: to_upper, task_vectors: true}
        """,
        """
        name: x
        models: [{id: reference/llama}]
        attribution: [{method: integrated_gradients}]
        search: {rates: [0.1, 0.1], layers: [1, 1]}
        controls: {fine_tuning: {}}
        evaluate: {shots: [2, 2], seeds: [3, 3], tasks: [to_upper, to_upper], task_vectors: {}}
        """))
    assert short == long and short.run_id == long.run_id
    assert short.evaluate.shots == (2,) and short.search.layers == (1,)
    two = prunelib.parse_recipe("name: x\nmodels: x\nattribution: [wanda, {method: weight}]\n"
                                "controls: {fine_tuning: false}\nevaluate: {task_vectors: false}")
    assert [spec.method for spec in two.attribution] == ["wanda", "weight"]
    assert two.controls.fine_tuning is None and two.evaluate.task_vectors is None
