"""The command line as a user types it: what works, and what bad input gets."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import call

import prunelib
from jobs import cli
from prunelib.models import ModelInfo
from prunelib.tasks import KNOWN
from prunelib.tasks.datasets import template_columns

GOOD = """
name: try
models: [{model}]
engine: transformers
attribution: {{prompts: 4, shots: 2, block: 2, max_nodes: 9}}
search: {{rates: [0.2], examples: 6, shots: 2}}
evaluate: {{tasks: [to_upper], shots: [1], examples: 4}}
"""

COPA = (f"name: copa, path: {Path(__file__).parent.parent / 'data' / 'balanced_copa'}, "
        "template: '{premise} {answer}', "
        "splits: {attribute: train, search: train, report: test}")


@pytest.fixture
def good(info: ModelInfo, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD.format(model=info.path))
    return path


def test_a_run_ends_with_a_table_and_what_to_type_next(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("run", good, "--results", tmp_path / "r", "--inline") == 0
    said = capfd.readouterr().out
    for word in ("attribute", "search", "evaluate", "integrated_gra", "prunelib query"):
        assert word in said
    assert call("run", good, "--results", tmp_path / "r", "--inline") == 0
    assert "0 units done" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("models: [reference/lama]", "unknown model 'reference/lama'"),
        ("models: [/no/such/folder]", "does not exist"),
        ("models: []", "models"),
        ("evaluate: {tasks: [to_uper]}", "did you mean to_upper"),
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
        ("attribution: {proxy: icl18}", "'icl18' stands for several tasks, and here is room for "),
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


@pytest.mark.parametrize(("name", "content", "message"), [
    ("config.json", "[]", "no readable config.json"),
    ("config.json", {"num_hidden_layers": "four"}, "cannot read its config.json"),
    ("config.json", {"num_hidden_layers": 0}, "has no layers"),
    ("config.json", {"num_hidden_layers": 5}, "incomplete"),
    ("tokenizer.json", None, "no tokenizer"),
    ("tokenizer.json", "[]", "no readable tokenizer"),
    ("model.safetensors", "", "not a whole .safetensors file"),
])
def test_a_bad_checkpoint_ends_in_one_line_and_exit_code_2(
    name: str, content: str | dict[str, object] | None, message: str, info: ModelInfo, good: Path,
    tmp_path: Path, capfd: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(info.path, tmp_path / "model"))
    if content is None:
        (folder / name).unlink()
    elif isinstance(content, dict):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | content))
    else:
        (folder / name).write_text(content)
    good.write_text(GOOD.format(model=folder))
    for command in (["validate", good], ["run", good, "--results", tmp_path / "r", "--inline"]):
        assert call(*command) == 2
        said = capfd.readouterr().err
        assert message in said and said.count("\n") == 1 and "Traceback" not in said
    assert not (tmp_path / "r").exists()


def test_engine_vllm_is_refused_before_any_work_where_it_cannot_run(
    families: Callable[[str], ModelInfo], info: ModelInfo, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:
    """What vLLM runs nowhere, everywhere; what it cannot run here, where the recipe runs."""
    path = tmp_path / "recipe.yaml"

    def ends(command: str, model: ModelInfo, *, installed: bool) -> tuple[int, str]:
        spec = importlib.util.find_spec("json") if installed else None
        monkeypatch.setattr("prunelib.engines.registry.importlib.util.find_spec", lambda _: spec)
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        path.write_text(GOOD.format(model=model.path).replace("transformers", "vllm"))
        options = ["--results", tmp_path / "r", "--inline"] if command == "run" else []
        capfd.readouterr()
        code = call(command, path, *options)
        monkeypatch.undo()
        return code, capfd.readouterr().err

    for name in ("bloom", "gpt_neox"):
        for installed in (True, False):
            code, said = ends("validate", families(name), installed=installed)
            assert code == 2 and "engine 'vllm' cannot run" in said and said.count("\n") == 1
    mamba = families("mamba")
    code, said = ends("validate", mamba, installed=True)
    assert code == 2 and "no CPU kernels" in said
    assert ends("validate", mamba, installed=False)[0] == 0  # it is for another machine
    assert ends("validate", info, installed=False)[0] == 0
    code, said = ends("run", info, installed=False)
    assert code == 2 and "vllm is not installed" in said
    assert not (tmp_path / "r").exists()


def test_a_missing_recipe_and_a_folder_that_cannot_be_written(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("validate", tmp_path / "none.yaml") == 2
    assert "cannot read recipe" in capfd.readouterr().err
    assert call("run", good, "--results", "/proc/nothing") == 2
    assert call("run", good, "--results", good) == 2
    assert capfd.readouterr().err.count("\n") == 2


def test_a_folder_of_another_schema_version(
    good: Path, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import shutil

    other = Path(shutil.copytree(finished, tmp_path / "other"))
    marker = other / "prunelib-results.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"schema_version": 999}))
    assert call("run", good, "--results", other) == 2
    assert call("query", "select 1", "--results", other) == 2
    assert "999" in capfd.readouterr().err


def test_queries_in_every_format(finished: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sql = "select model, method, n, accuracy from leaderboard order by method"
    said = {}
    for output in ("table", "csv", "json", "parquet"):
        assert call("query", sql, "--results", finished, "--format", output) == 0
        said[output] = capfdbinary.readouterr().out
    lines = said["json"].decode().splitlines()
    assert [json.loads(line)["method"] for line in lines] == [
        "integrated_gradients", "none", "random", "random_search"]
    assert said["csv"].decode().splitlines()[0] == '"model","method","n","accuracy"'
    assert b"random_search" in said["table"]
    assert said["parquet"].startswith(b"PAR1") and said["parquet"].endswith(b"PAR1")


def test_sql_from_stdin(finished: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "query", "-", "--results", str(finished), "-f", "csv"],
        input="select count(*) as n from runs", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ['"n"', "1"]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select * from leaderbord", "leaderboard"),
        ("selec 1", "syntax error"),
        ("copy (select 1) to '/tmp/x.csv'", "read-only"),
        ("select * from read_csv('/etc/passwd')", "disabled"),
    ],
)
def test_bad_sql_is_one_line(
    sql: str, message: str, finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("query", sql, "--results", finished) == 2
    said = capfd.readouterr().err
    assert message in said and said.count("\n") == 1


def test_a_query_against_an_empty_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]
                                         ) -> None:
    assert call("query", "select 1", "--results", tmp_path) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_plan_counts_what_is_done(good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
                                  ) -> None:
    assert call("plan", good) == 0
    assert "at least 4" in capfd.readouterr().out
    call("run", good, "--results", tmp_path / "r", "--inline")
    capfd.readouterr()
    before = set((tmp_path / "r").rglob("*"))
    assert call("plan", good, "--results", tmp_path / "r") == 0
    assert set((tmp_path / "r").rglob("*")) == before
    lines = [line.split("│") for line in capfd.readouterr().out.splitlines() if "│" in line]
    done = {line[2].strip(): (line[3].strip(), line[4].strip()) for line in lines}
    assert all(units == there for units, there in done.values())


def test_plan_learns_hours_from_earlier_results(
    good: Path, finished: Path, info: ModelInfo, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def hours(*options: object) -> float:
        assert call("plan", good, *options) == 0
        said = capfd.readouterr().out
        return float(re.findall(r"in all some (\S+) hours", said)[0])

    alone = hours("--earlier", finished)
    assert 0 < alone < 1
    assert hours("--earlier", finished, "--workers", 4) == pytest.approx(alone / 4, rel=0.1)
    other = shutil.copytree(info.path, tmp_path / "other")
    good.write_text(good.read_text().replace(info.path, str(other)))
    assert call("plan", good, "--earlier", finished) == 0
    assert "~" in capfd.readouterr().out  # another model was measured


def test_what_is_available(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("tasks") == 0
    said = capfd.readouterr().out
    assert "vowel_counting" in said and "suite capability" in said
    for name in ("xnli_sw", "sst5", "cais/mmlu", "xcopa_zh"):
        assert name in said
    assert call("models") == 0
    assert "reference/llama-copier" in capfd.readouterr().out
    assert call("tables", "--results", finished) == 0
    said = capfd.readouterr().out
    assert "leaderboard (view" in said and "copying_error" in said
    assert call("tables", "leaderbord") == 2
    assert "did you mean leaderboard" in capfd.readouterr().err


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = ("import sys; import prunelib, jobs.cli; "
            "heavy = {'torch', 'ray', 'vllm', 'transformers', 'pandas'} & set(sys.modules); "
            "sys.exit(str(heavy) if heavy else 0)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_command_has_help_with_an_example() -> None:
    for command in cli.app.registered_commands:
        assert command.callback is not None
        assert "Example" in (command.callback.__doc__ or ""), command.callback.__name__


RECIPES = sorted((Path(cli.__file__).parent / "recipes").glob("*.yaml"))


def made_up(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same data set with rows that have the columns its template names, and its labels."""
    spec = KNOWN.get(spec["name"], {}) | spec
    columns = [c for c in template_columns(spec["template"]) if c not in ("choices", "endings")]
    lists = {"endings": list("abcd")} if "endings[" in spec["template"] else {}
    lists |= {"choices": {"text": list("abcd")}} if "choices[text]" in spec["template"] else {}
    labels = list(spec["answers"])
    if len({type(label) for label in labels}) > 1:  # in a file they are all strings
        labels = list(map(str, labels))
    for split in set(spec["splits"].values()):
        rows = [dict.fromkeys(columns, f"text {i}") | lists | {spec.get("label", "label"): label}
                for i, label in enumerate(labels * 9)]
        place = folder / spec["name"] / spec["config"]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {k: v for k, v in spec.items() if k != "revision"} | {"path": str(place.parent)}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_are_fine(
    path: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Those for hub models are read with small data sets of the same layouts, and one model."""
    content = yaml.safe_load(path.read_text())
    if "reference/" not in str(content["models"]):
        data = Path(__file__).parent.parent / "data"
        content["models"] = ["reference/llama"]
        content["tasks"] = [
            made_up(spec, tmp_path) if isinstance(spec, dict) and "in_context_heads" not in content
            else {"name": spec["name"], "path": str(data / "sst2"), "template": "{text} : {answer}",
                  "answers": {"0": "negative", "1": "positive"}} if isinstance(spec, dict) else
            {"name": spec, "path": str(data / spec.split("_")[0]).replace("balanced", spec)}
            | ({"config": "sw"} if "xcopa" in spec else {}) for spec in content["tasks"]
        ]
        if "in_context_heads" in content:
            content["in_context_heads"] |= {"each": 1, "orders": 2}
            content |= {"attribution": [], "search": {}, "evaluate": {}}
        attributions = content.get("attribution", [])
        for part in attributions if isinstance(attributions, list) else [attributions]:
            part["prompts"] = 1
        content["evaluate"]["examples"] = 1
        if "task_vectors" in content["evaluate"]:
            content["evaluate"]["task_vectors"] = {"examples": 1, "shots": 1}
        if "search" in content:
            content["search"]["examples"] = 1
        if "importance" in content:  # BoolQ is small there
            content["importance"] |= {"prompts": 1, "examples": 1}
            content["evaluate"]["shots"] = [0]
    (tmp_path / path.name).write_text(yaml.safe_dump(content))
    assert call("validate", tmp_path / path.name) == 0
    assert f"Run {content['name']}-" in capfd.readouterr().out


def test_a_report_is_one_picture_per_run_and_model(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("report", "--results", finished, "--out", tmp_path / "figures") == 0
    (picture,) = (tmp_path / "figures").iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000
    assert picture.name in capfd.readouterr().out


def test_a_report_of_nothing_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("report", "--results", tmp_path, "--out", tmp_path / "figures") == 2
    assert not (tmp_path / "figures").exists()
    assert capfd.readouterr().err.count("\n") == 1


def test_the_readme_shows_the_demo_recipe_and_commands_that_exist() -> None:
    readme = (Path(cli.__file__).parent.parent / "README.md").read_text()
    shown = readme.split("```yaml\n")[1].split("```")[0]
    recipe = prunelib.load_recipe(Path(cli.__file__).parent / "recipes" / "demo.yaml")
    assert prunelib.parse_recipe(shown) == recipe
    commands = {c.callback.__name__ for c in cli.app.registered_commands if c.callback}
    for line in "\n".join(readme.split("```")[1::2]).splitlines():
        if line.startswith("prunelib "):
            assert line.split()[1] in commands | {"reference"}, line
    for command in commands:
        assert f"prunelib {command}" in readme, command


def test_a_large_run_ends_with_its_files_merged(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.overnight.COMPACT_FROM", 1)
    assert call("run", good, "--results", tmp_path / "r", "--inline") == 0
    assert "Merging the files" in capfd.readouterr().out
    assert list((tmp_path / "r" / "predictions" / "merged").glob("*.parquet"))
    assert call("run", good, "--results", tmp_path / "r", "--inline") == 0
    assert "0 units done" in capfd.readouterr().out
