"""The commands on one model, as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import hub_cache
import pytest
from command_line import DATA, call
from pipeline.small import recipe
from tiny_llama import build

import prunelib
from prunelib.models import ModelInfo, describe, load
from prunelib.results.figures.token_attribution import visible
from prunelib.tasks import DatasetSpec, build_task, draw, get_task

SST2 = {"name": "sst2", "path": str(DATA / "sst2"),
        "template": "{text}\nFeeling: {answer}"}


def chosen_of(results: Path) -> str:
    found = prunelib.open_results(results).execute(
        "select intervention from interventions where role = 'chosen'").fetchone()
    assert found is not None
    return str(found[0])


@pytest.fixture
def chosen(finished: Path) -> str:
    return chosen_of(finished)


@pytest.fixture
def moved(info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of a model of the hub whose main branch is at another commit since."""
    cache, results = tmp_path / "cache", tmp_path / "results"
    hub_cache.use(cache, monkeypatch)
    hub_cache.fetched(cache, "some/model", "a" * 40, Path(info.path))
    made = recipe(
        info,
        models=[{"id": "some/model", "dtype": "bfloat16"}],
        attribution={"prompts": 2, "shots": 1, "max_nodes": 4},
        search={"rates": [0.5], "layers": [0], "examples": 2, "shots": 1},
        evaluate={"tasks": ["to_upper"], "shots": [1], "examples": 2, "format": "example"},
        tasks=[SST2],
    )
    assert prunelib.run(made, results).complete
    other = build(tmp_path / "other", seed=1)
    hub_cache.fetched(cache, "some/model", "b" * 40, Path(other.path))
    assert describe("some/model").revision == "b" * 40
    return results


def cells(said: str) -> dict[str, list[str]]:
    """First column of a printed table → the other columns; of tokens, the last one counts."""
    lines = [[cell.strip() for cell in line.strip("│┃").split("│")]
             for line in said.replace("┃", "│").splitlines() if "│" in line]
    return {line[0]: line[1:] for line in lines}


def prompt_of(said: str) -> str:
    """The tokens of a printed table, one after another."""
    tokens = said.split("┡")[1].split("├")[0].splitlines()[1:]
    return "".join(line.split("│")[1].strip() for line in tokens)


def shown(prompt: str) -> str:
    return "".join(map(visible, prompt))


def test_an_ablation_of_a_run_is_exported(
    finished: Path, chosen: str, info: ModelInfo, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "pruned"
    command = ["export", info.path, "--results", finished, "--out", out, "--intervention"]
    assert call(*command, "nosuch") == 2
    assert f"chosen: {chosen[:12]}" in capfd.readouterr().err
    assert call(*command, "") == 2
    assert "several interventions" in capfd.readouterr().err
    assert call(*command, chosen[:12]) == 0
    assert json.loads((out / "intervention.json").read_text())["intervention"] == chosen
    shutil.rmtree(out)
    assert call(*command, chosen, "--trust-remote-code") == 2
    assert "ran without code of its own" in capfd.readouterr().err
    assert call("export", "other", "--results", finished, "--out", out, "--intervention", "a") == 2
    assert "no results of model 'other'" in capfd.readouterr().err


def test_a_prompt_is_explained_before_and_after(
    finished: Path, chosen: str, info: ModelInfo, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "why.png"
    assert call("explain", info.path, "--task", "to_upper", "--example", 2, "--shots", 1, "--gold",
                "--intervention", chosen[:12], "--results", finished, "--out", out) == 0
    said = capfd.readouterr().out
    assert out.read_bytes().startswith(b"\x89PNG")
    table = cells(said)
    assert table["token"] == ["before", "after"]
    example = draw(get_task("to_upper"), split="report", shots=1, seed=0, count=3)[2]
    assert f"F: probability of {example.gold!r}" in said
    before, after = map(float, table["F of the prompt"])
    assert 0 <= before <= 1 and 0 <= after <= 1 and before != after
    assert table["prediction"][0].startswith(("'", '"'))
    assert prompt_of(said) == "<s>" + shown(example.prompt)


def test_a_model_of_the_hub_is_the_one_that_the_run_had(
    moved: Path, info: ModelInfo, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its commit and dtype, the data sets of the recipe, and the format of its prompts."""
    loaded = []

    def recorded(found: ModelInfo, dtype: str = "float32") -> object:
        loaded.append((found.revision, dtype))
        return load(found, dtype)

    monkeypatch.setattr("prunelib.models.load", recorded)
    stored = ["--intervention", chosen_of(moved), "--results", moved]
    assert call("export", "some/model", *stored, "--out", tmp_path / "pruned") == 0
    about = json.loads((tmp_path / "pruned" / "intervention.json").read_text())
    assert about["revision"] == "a" * 40
    explain = ["explain", "some/model", *stored]
    assert call(*explain, "--task", "sst2", "--shots", 0, "--gold") == 0
    sst2 = build_task(DatasetSpec.model_validate(SST2))
    example = draw(sst2, split="report", shots=0, seed=0, count=1)[0]
    assert prompt_of(capfd.readouterr().out) == "<s>" + shown(example.prompt)
    assert loaded == [("a" * 40, "bfloat16")]
    for asked, written in (([], "example"), (["--format", "arrow"], "arrow")):
        assert call(*explain, "--task", "to_upper", "--shots", 1, *asked) == 0
        example = draw(get_task("to_upper"), split="report", shots=1, seed=0, count=1,
                       prompt_format=written)[0]
        assert prompt_of(capfd.readouterr().out) == "<s>" + shown(example.prompt)
    assert call(*explain, "--task", "to_uper") == 2
    assert "did you mean to_upper" in capfd.readouterr().err
    assert call(*explain, "--task", "sst3") == 2
    assert "did you mean sst2" in capfd.readouterr().err


def test_a_fine_tuning_of_a_run_is_exported_and_explained(
    info: ModelInfo, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = recipe(info, controls={"random": 0, "random_searches": 0,
                                  "fine_tuning": {"learning_rate": 0.01}})
    results, out = tmp_path / "results", tmp_path / "tuned"
    assert prunelib.run(made, results).complete
    ((digest,),) = prunelib.open_results(results).sql(
        "SELECT DISTINCT intervention FROM interventions WHERE kind = 'fine_tuning'").fetchall()
    stored = ["--intervention", digest[:12], "--results", results]
    assert call("export", info.path, *stored, "--out", out) == 0
    about = json.loads((out / "intervention.json").read_text())
    assert (about["kind"], about["intervention"]) == ("fine_tuning", digest)
    capfd.readouterr()
    assert call("explain", info.path, *stored, "--task", "to_upper", "--shots", 1, "--gold") == 0
    before, after = cells(capfd.readouterr().out)["F of the prompt"]
    assert before != after
    assert call("explain", out, "--task", "to_upper", "--shots", 1, "--gold") == 0
    assert cells(capfd.readouterr().out)["F of the prompt"] == [after]


def test_a_prompt_of_ones_own_is_explained_without_results(
    info: ModelInfo, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("explain", info.path, "--prompt", "ab->", "--baseline", "zero") == 0
    said = capfd.readouterr().out
    table = cells(said)
    assert table["token"] == ["before"]
    assert f"F: logit of {table['prediction'][0]}, which the untouched model predicts" in said
    assert call("explain", info.path, "--prompt", "ab->", "--answer", "xy") == 0
    assert "F: probability of 'x', the first token of 'xy'" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either --prompt TEXT or --task NAME"),
        (["--prompt", "a", "--task", "to_upper"], "either --prompt TEXT or --task NAME"),
        (["--prompt", "a", "--gold"], "--gold is for --task"),
        (["--task", "to_upper", "--gold", "--answer", "A"], "--gold is for --task"),
        (["--task", "to_uper"], "did you mean to_upper"),
        (["--task", "sst2"], "unknown task 'sst2'"),
        (["--task", "to_upper", "--format", "arow"], "unknown prompt format 'arow': did you mean "
         "arrow"),
        (["--prompt", "a", "--format", "arrow"], "--format is for --task"),
        (["--task", "to_upper", "--shots", 17], "shots must be between 0 and 16"),
        (["--prompt", "a", "--intervention", "3f"], "--intervention DIGEST and --results R go "
         "together"),
        (["--prompt", "a", "--results", "r"], "--intervention DIGEST and --results R go together"),
        (["--prompt", "a", "--out", "why.gif"], "ends in .png or .svg or .pdf"),
        (["--prompt", "a", "--out", "/proc/nothing/why.png"], "cannot write"),
        (["--prompt", "a" * 300], "too long: 301 tokens"),
        (["--prompt", "a", "--answer", ""], "merges the prompt's end with the answer"),
    ],
)
def test_bad_input_is_one_line(
    options: list[object], message: str, info: ModelInfo, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("explain", info.path, *options) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1 and message in errors[0]
