"""The commands on one model, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import call

import prunelib
from prunelib.models import ModelInfo
from prunelib.tasks import draw, get_task


@pytest.fixture
def chosen(finished: Path) -> str:
    found = prunelib.open_results(finished).execute(
        "select ablation from ablations where role = 'chosen'").fetchone()
    assert found is not None
    return str(found[0])


def cells(said: str) -> dict[str, list[str]]:
    """First column of a printed table → the other columns; of tokens, the last one counts."""
    lines = [[cell.strip() for cell in line.strip("│┃").split("│")]
             for line in said.replace("┃", "│").splitlines() if "│" in line]
    return {line[0]: line[1:] for line in lines}


def test_an_ablation_of_a_run_is_exported(
    finished: Path, chosen: str, info: ModelInfo, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "pruned"
    command = ["export", info.path, "--results", finished, "--out", out, "--ablation"]
    assert call(*command, "nosuch") == 2
    assert f"chosen: {chosen[:12]}" in capfd.readouterr().err
    assert call(*command, "") == 2
    assert "several ablations" in capfd.readouterr().err
    assert call(*command, chosen[:12]) == 0
    assert json.loads((out / "ablation.json").read_text())["ablation"] == chosen
    assert call("export", "other", "--results", finished, "--out", out, "--ablation", "a") == 2
    assert "no results of model 'other'" in capfd.readouterr().err


def test_a_prompt_is_explained_before_and_after(
    finished: Path, chosen: str, info: ModelInfo, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "why.png"
    assert call("explain", info.path, "--task", "to_upper", "--example", 2, "--shots", 1, "--gold",
                "--ablation", chosen[:12], "--results", finished, "--out", out) == 0
    said = capfd.readouterr().out
    assert out.read_bytes().startswith(b"\x89PNG")
    table = cells(said)
    assert table["token"] == ["before", "after"]
    example = draw(get_task("to_upper"), split="report", shots=1, seed=0, count=3)[2]
    assert f"F: probability of {example.gold!r}" in said
    before, after = map(float, table["F of the prompt"])
    assert 0 <= before <= 1 and 0 <= after <= 1 and before != after
    assert table["prediction"][0].startswith(("'", '"'))
    tokens = said.split("┡")[1].split("├")[0].splitlines()[1:]
    text = "".join(line.split("│")[1].strip() for line in tokens)
    assert text == "<s>" + example.prompt.replace("\n", "↵")


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
        (["--task", "to_upper", "--shots", 17], "shots must be between 0 and 16"),
        (["--prompt", "a", "--ablation", "3f"], "--ablation DIGEST and --results R go together"),
        (["--prompt", "a", "--results", "r"], "--ablation DIGEST and --results R go together"),
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
