"""The checks of a GPU: each of them where there is one, else a rehearsal on a bare interpreter."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_check, gpu_correctness
from benchmarks.gpu_correctness import CHECKS, MODELS, TOLERANCE, Figure
from benchmarks.random_llama import SMALL, random_llama

ROOT = Path(__file__).parents[2]
#: What the machine has; everything that these do not ask for is hidden from the rehearsal.
BARE = ("torch", "transformers", "numpy", "pyarrow", "pydantic")
HIDE = """
import importlib.machinery as machinery, os
hidden, real = set(os.environ["HIDDEN"].split(",")), machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = staticmethod(lambda name, path=None, target=None: (
    None if name.partition(".")[0] in hidden else real(name, path, target)))
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("check", CHECKS)
def test_a_gpu_computes_what_a_cpu_computes(check: str, model: str) -> None:
    figures = list(CHECKS[check](model, "cuda"))
    assert figures and not [figure for figure in figures if not figure.passed]


def _name(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def others() -> Iterator[str]:
    """Modules that are installed here and that a bare machine has not."""
    bare: set[str] = set()
    todo = list(BARE)
    while todo:
        package = _name(todo.pop())
        if package not in bare:
            try:
                asked = importlib.metadata.requires(package) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            bare.add(package)
            todo += [re.split(r"[^\w.-]", line)[0] for line in asked if "extra ==" not in line]
    for module, packages in importlib.metadata.packages_distributions().items():
        if not bare & set(map(_name, packages)) and module not in ("prunelib", "cluster", "jobs"):
            yield module


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_rehearsal_runs_where_little_is_installed(tmp_path: Path) -> None:
    hidden = sorted(others())
    assert {"ray", "vllm", "duckdb", "captum"} <= set(hidden)
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    env = os.environ | {"HIDDEN": ",".join(hidden), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    missing = subprocess.run([sys.executable, "-c", "import duckdb"], env=env, check=False,
                             capture_output=True, text=True)
    assert "No module named 'duckdb'" in missing.stderr
    out = tmp_path / "found.json"
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--rehearse", "--out", str(out)],
        env=env, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(out.read_text())
    assert found["rehearsal"] is True and found["environment"]["gpu"] is None
    steps = found["steps"]
    assert {row["check"] for row in steps["correctness"]["rows"]} == set(CHECKS)
    assert steps["correctness"]["failed"] == 0
    for step in ("attribution", "grid"):
        assert {row["layer"] for row in steps[step]["rows"]} == set(range(SMALL.layers))
        assert 0 < steps[step]["share_of_matrix_product"] < 1
        assert steps[step]["extrapolated"] is False


def test_what_differs_or_breaks_is_a_row_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(model: str, device: str) -> Iterator[Figure]:
        yield Figure("near", TOLERANCE / 2, TOLERANCE)
        yield Figure("far", TOLERANCE * 2, TOLERANCE)
        yield Figure("nothing", float("nan"), TOLERANCE)
        yield Figure("few", 0.5, 0.8, agreement=True)
        raise RuntimeError("no kernel")

    monkeypatch.setattr(gpu_correctness, "CHECKS", {"differs": differs})
    *rows, summary = gpu_check.correctness(True)
    assert [row["passed"] for row in rows] == [True, False, False, False, False]
    assert rows[-1]["error"] == "RuntimeError: no kernel"
    assert (summary["passed"], summary["failed"]) == (1, 4)


def test_a_step_that_dies_or_hangs_leaves_what_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(text: str) -> dict[str, Any]:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{text}\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        result: dict[str, Any] = {"steps": {}}
        gpu_check.supervise("grid", True, 2.0, result, tmp_path / "out.json")
        assert json.loads((tmp_path / "out.json").read_text()) == result
        step: dict[str, Any] = result["steps"]["grid"]
        return step

    died = script("""echo '{"layer": 0}'; echo 'Traceback\nout of memory' >&2; exit 3""")
    assert died["rows"] == [{"layer": 0}] and died["error"] == "exit code 3: out of memory"
    hung = script("""echo '{"layer": 0}'; exec sleep 60""")
    assert hung["rows"] == [{"layer": 0}] and hung["error"] == "ended after 2 s"


def test_operations_are_those_of_the_weights() -> None:
    """Two for each weight and token of a forward pass, but the embedding's."""
    model = random_llama(SMALL, "cpu").model
    layer = sum(p.numel() for n, p in model.model.layers[0].named_parameters() if "norm" not in n)
    assert SMALL.linear == 2 * layer
    head = model.lm_head.weight.numel()
    rows, tokens = 3, 1
    for at in range(SMALL.layers):
        below = SMALL.prefix(at, rows, tokens) + SMALL.replayed(at, rows, tokens, backward=False)
        attention = rows * SMALL.layers * SMALL.attention(tokens)
        assert below - attention == 2 * rows * (SMALL.layers * layer + head)
