"""Memory that runs out: batches are halved, then the unit fails as a row, and the run goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline.small import recipe, rows

import prunelib
from prunelib.attribution import integrated_gradients
from prunelib.models import ModelInfo
from prunelib.results.query import open_results

#: The same nodes for every prompt, so many that batches can be halved twice.
EXACT = {"prompts": 6, "shots": 2, "block": 3, "tolerance": 0.02, "max_nodes": 17}


@pytest.fixture(scope="module")
def plenty(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("plenty") / "r"
    prunelib.run(recipe(info, attribution=EXACT), results)
    return results


def small_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Every batch of more than ``most`` rows (α × prompt) is too large."""
    real = integrated_gradients._scaled_pass

    def scaled_pass(loaded, path, texts, batch, objective, alphas, *others):  # type: ignore[no-untyped-def]
        if len(texts) * len(alphas) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(loaded, path, texts, batch, objective, alphas, *others)

    monkeypatch.setattr(integrated_gradients, "_scaled_pass", scaled_pass)


def test_batches_are_halved_until_they_fit(
    info: ModelInfo, plenty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks of 3 prompts: 27 rows at 9 nodes; the batch limit of 100 halves to 50 and to 25.
    small_memory(monkeypatch, 25)
    assert prunelib.run(recipe(info, attribution=EXACT), tmp_path / "r").complete
    found = open_results(tmp_path / "r").execute(
        "select stage, max(batch_halvings) from units group by 1 order by 1").fetchall()
    assert found == [("attribute", 2), ("canary", 0), ("evaluate", 0), ("search", 0)]
    # Only rounding is different.
    scores = [np.array(rows(r)["attributions"]["score"].to_pylist())
              for r in (plenty, tmp_path / "r")]
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-7)


def test_what_never_fits_fails_as_a_row(
    info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, 2)
    report = prunelib.run(recipe(info), tmp_path / "r")
    assert {a.error_kind for a in report.failed} == {"OutOfMemoryError"}
    found = open_results(tmp_path / "r").execute(
        "select distinct error_kind, error_text from failed_units").fetchall()
    assert found == [("OutOfMemoryError", "CUDA out of memory")]
