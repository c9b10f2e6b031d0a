"""``prunelib plan`` as a user types it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from command_line import call
from large_models import LLAMA_70B, OPT_66B, config_only

from prunelib.models import ModelInfo
from prunelib.results.storage.store import Store


def test_plan_counts_what_is_done(good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
                                  ) -> None:
    assert call("plan", good) == 0
    assert re.search(r"\d+ to \d+", capfd.readouterr().out)
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


def test_plan_learns_nothing_from_a_recipe_of_another_version(
    good: Path, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = Path(shutil.copytree(finished, tmp_path / "earlier"))
    store = Store.open(results)
    (run,) = store.read("runs").to_pylist()
    for file in (results / "runs").glob("*.parquet"):
        file.unlink()
    store.write("runs", "run-other", [run | {"resolved": '{"name": "x", "a_study_to_come": {}}'}])
    assert call("plan", good, "--earlier", results) == 0
    assert "hours" not in capfd.readouterr().out


def test_plan_says_how_many_gpus_a_model_needs_by_its_config_alone(
    good: Path, info: ModelInfo, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [config_only(tmp_path / "opt", OPT_66B), config_only(tmp_path / "llama", LLAMA_70B)]
    models = [f"{{id: {path}, dtype: bfloat16}}" for path in paths]
    models.append(f"{{id: {paths[1]}, tensor_parallel: 8}}")
    good.write_text(good.read_text().replace(info.path, ", ".join(models)))
    assert call("plan", good, "--gpu-memory", 80) == 0
    rows = [[cell.strip() for cell in line.split("│")[2:-1]]
            for line in capfd.readouterr().out.splitlines() if "float" in line]
    assert rows == [["bfloat16", "122.4", "2", "201.8", "3"],
                    ["bfloat16", "131.4", "2", "214.2", "3"],
                    ["float32", "262.8", "8", "416.1", "8"]]
