"""A model that cannot be used fails alone: a hub without weights in safetensors, or without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from hub_server import OWNER, serving
from pipeline.small import recipe
from tiny_llama import build

import prunelib
from prunelib.models import ModelInfo
from prunelib.results.query import query


def rows(place: Path, sql: str) -> list[dict[str, Any]]:
    return query(place, sql).to_pylist()


def test_models_that_cannot_be_had_fail_alone(info: ModelInfo, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    for name, change in (("pickled", "*.safetensors"), ("odd", "config.json")):
        shutil.copytree(info.path, hub / name)
        for file in (hub / name).glob(change):
            file.unlink()
    (hub / "odd" / "config.json").write_text('{"model_type": "no_such_type"}')
    (hub / "pickled" / "pytorch_model.bin").write_bytes(b"not read")
    names = [f"{OWNER}/{name}" for name in ("pickled", "odd", "missing")]
    made = recipe(info, models=[names[0], info.path, *names[1:]], attribution="wanda")
    file, results = tmp_path / "r.yaml", tmp_path / "r"
    file.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_unset=True)))
    code = ("import sys; from pathlib import Path; from rich.console import Console; "
            "from jobs.overnight import run_recipe; sys.exit(run_recipe("
            f"Path({str(file)!r}), {str(results)!r}, Console(), inline=True))")
    with serving(hub) as (address, _):
        env = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": address,
                            "HF_HUB_OFFLINE": "0"}
        said = subprocess.run([sys.executable, "-c", code], text=True, env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        checked = subprocess.run([sys.executable, "-m", "jobs.cli", "validate", str(file)],
                                 text=True, env=env, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
    assert said.returncode == 1, said.stdout
    assert checked.returncode == 2 and all(name in checked.stdout for name in names)
    failed = {r["model"]: r for r in rows(results, "from failed_units")}
    assert failed.keys() == set(names)
    assert "no .safetensors weights" in failed[names[0]]["error_text"]
    assert all(r["stage"] == "model" for r in failed.values())
    assert {r["model"] for r in rows(results, "from evaluations")} == {info.path}
    assert {r["status"] for r in rows(results, "from runs")} == {"failed"}


def test_a_model_that_is_there_at_last_is_no_failure(info: ModelInfo, tmp_path: Path) -> None:
    other = tmp_path / "other"
    made = recipe(info, models=[info.path, str(other)], attribution="wanda")
    assert not prunelib.run(made, tmp_path / "r").complete
    assert [r["model"] for r in rows(tmp_path / "r", "from failed_units")] == [str(other)]
    build(other, 1)
    assert prunelib.run(made, tmp_path / "r").complete
    assert rows(tmp_path / "r", "from failed_units") == []
