"""Rules of choice judged by maps: of a real tiny model, and of one whose best cell is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.cell_map import RATES, layer_rows, prompts_of
from benchmarks.choice_transfer import Map, best_cells, compare, draw, read, table
from prunelib.models import ModelInfo

RNG = np.random.default_rng(0)


def written(path: Path, gains: dict[tuple[int, float], dict[str, float]], tasks: list[str]) -> Map:
    """A map of a model that is half right, and of cells that gain such shares of answers."""
    rows: list[dict[str, Any]] = []
    for (layer, rate), by_task in {(-1, 0.0): {}, **gains}.items():
        for task in tasks:
            correct = np.arange(60) % 2 == 0
            gain = by_task.get(task, 0.0)
            free = np.flatnonzero(correct == (gain < 0))
            correct[RNG.permutation(free)[: round(abs(gain) * 60)]] = gain > 0
            rows.append({"layer": layer, "rate": rate, "task": task,
                         "intervention": f"{layer}-{rate}",
                         "queries": [f"q{i}" for i in range(60)], "example": list(range(60)),
                         "correct": correct.tolist(), "copied": (~correct).tolist(),
                         "margin": [0.0] * 60})
    content = pa.Table.from_pylist(rows).replace_schema_metadata(
        {"map": json.dumps({"scores": "s"})})
    pq.write_table(content, path)
    return read(path)


def test_the_rule_that_proxies_share_finds_what_repairs_other_tasks(tmp_path: Path) -> None:
    """Layer 1 repairs the paper's proxy alone and harms others; layer 2 repairs all a little."""
    proxies = written(tmp_path / "p.parquet", {
        (1, 0.01): {"vowel_counting": 0.4, "a": -0.1}, (2, 0.01): {
            "vowel_counting": 0.2, "a": 0.2, "b": 0.25}}, ["vowel_counting", "a", "b"])
    tasks = written(tmp_path / "t.parquet", {
        (1, 0.01): {"x": -0.1, "y": 0.0}, (2, 0.01): {"x": 0.2, "y": 0.3}}, ["x", "y"])
    rows = {row["rule"]: row for row in compare("m", proxies, tasks)}
    assert rows["best, vowel counting (the paper's)"]["cell"] == "layer 1, 1%"
    assert rows["best, vowel counting (the paper's)"]["gain"] == pytest.approx(-0.05)
    assert rows["shared"]["cell"] == "layer 2, 1%"
    assert rows["shared"]["gain"] == pytest.approx(0.25)
    assert rows["shared"]["low"] < 0.25 < rows["shared"]["high"]
    best, gain = best_cells(tasks)
    assert {tasks.cells[i][0] for i in best} == {2} and gain == pytest.approx(0.25, abs=0.05)
    assert "| m | shared | layer 2, 1% | +25.0" in table(list(rows.values()))
    draw({"m": (proxies, tasks)}, tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 10_000


def test_a_map_has_every_rate_of_a_layer_and_the_untouched_model(info: ModelInfo, tmp_path: Path
                                                                 ) -> None:
    asked = [prompts_of(name, "report", 4, 0) for name in ("to_upper", "list_first")]
    order = list(range(info.width))
    rows = layer_rows(info.path, 1, order, asked, str(tmp_path))
    untouched = layer_rows(info.path, -1, [], asked, str(tmp_path))
    assert {(row["rate"], row["task"]) for row in rows} == {
        (rate, task.task.name) for rate in RATES for task in asked}
    assert [(row["layer"], row["rate"], row["task"]) for row in untouched] == [
        (-1, 0.0, "to_upper"), (-1, 0.0, "list_first")]
    assert all(len(row[name]) == 4 for row in rows for name in ("correct", "copied", "margin"))
