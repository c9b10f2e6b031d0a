"""Figures in one call: what they draw is what the views say, in every file format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from results_folder import Folder

import prunelib
from prunelib.errors import UserError
from prunelib.results.query import query


@pytest.fixture
def searched(tmp_path: Path) -> Folder:
    """A search of two layers and rates, and a choice."""
    folder = Folder(tmp_path / "results")
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "1000", purpose="search")
    for layer in (0, 1):
        for rate, marks in ((0.1, "1100"), (0.5, "111c")):
            name = f"g{layer}{int(10 * rate)}"
            folder.intervention(name, "integrated_gradients", "grid", layer=layer, rate=rate)
            folder.answers(name, marks, purpose="search", unit_id=f"search-{name}")
    folder.intervention("g15", "integrated_gradients", "chosen", layer=1, rate=0.5)
    for index, score in enumerate((0.5, -0.25, 1.0)):
        folder.add("attributions", {
            "model": "m", "method": "integrated_gradients", "objective": "copy_shift", "proxy": "t",
            "seed": 0, "layer": 1, "site": "mlp_hidden", "index": index, "score": score,
            "rank": (2, 3, 1)[index], "shots": 2, "format": "arrow", "prompts": 8, "nodes": 4,
            "error_estimate": 0.1, "completeness_error": 0.1, "overlap": 0.8,
            "unit_id": "scores"})
    folder.write()
    return folder


def test_the_grid_and_its_choice(searched: Folder, tmp_path: Path) -> None:
    figure = prunelib.plot.grid(prunelib.open_results(searched.root))
    panel = figure.axes[0]
    cells = panel.images[0].get_array()
    assert cells is not None and cells.tolist() == [[0.5, 0.75], [0.5, 0.75]]
    assert "untouched model: 25%" in panel.get_title()
    assert [patch.get_xy() for patch in panel.patches] == [(0.5, 0.5)]
    assert figure.axes[1].get_ylabel() == "accuracy in the search (%)"
    for kind in ("pdf", "svg", "png"):
        figure.savefig(tmp_path / f"grid.{kind}")
        assert (tmp_path / f"grid.{kind}").stat().st_size > 1000


def test_scores_by_layer(searched: Folder) -> None:
    panel = prunelib.plot.scores(prunelib.open_results(searched.root)).axes[0]
    assert panel.get_title() == "integrated gradients"
    found = panel.collections[0].get_offsets()
    assert [y for _, y in found] == [0.5, -0.25, 1.0]
    assert {round(x) for x, _ in found} == {1}


def test_removal_with_the_untouched_model_and_the_control(studied: Path) -> None:
    con = prunelib.open_results(studied)
    figure = prunelib.plot.removal(con)
    rows = query(studied, """select shots, "order", heads, accuracy from removal_means
                             where ffns = 0 order by heads""").to_pylist()
    panel = next(axes for axes in figure.axes if axes.get_title() == "attention heads, 2 shots")
    lines = {str(line.get_label()): line for line in panel.lines}
    for order in ("own", "random"):
        wanted = [100 * row["accuracy"] for row in rows
                  if (row["shots"], row["order"]) == (2, order)]
        assert np.asarray(lines[order].get_ydata()).tolist() == wanted
    untouched = 100 * next(row["accuracy"] for row in rows if row["shots"] == 2
                           and row["heads"] == 0)
    assert set(np.asarray(lines["untouched model"].get_ydata()).tolist()) == {untouched}
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "at random (control)" in said and "untouched model" in said
    assert len(prunelib.plot.removal(con, by_task=True).axes) == 3 * len(figure.axes)


def test_methods_of_each_task(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "integrated_gradients", "chosen")
    for task in ("t", "u"):
        folder.answers("base", "1c0c", task=task)
        folder.answers("ig", "110c", task=task)
    folder.write()
    figure = prunelib.plot.methods(prunelib.open_results(folder.root))
    assert [axes.get_title() for axes in figure.axes] == ["t", "u"]
    panel = figure.axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "untouched", "integrated gradients"]
    points = [(float(np.asarray(line.get_xdata())[0]), line.get_marker()) for line in panel.lines
              if line.get_marker() in ("o", "x")]
    assert points == [(25.0, "o"), (50.0, "x"), (50.0, "o"), (25.0, "x")]


def test_heads_are_maps(studied: Path) -> None:
    figure = prunelib.plot.scores(prunelib.open_results(studied))
    assert any("gradient gate" in axes.get_title() for axes in figure.axes)
    assert any("prefix matching" in axes.get_title() for axes in figure.axes)


@pytest.mark.parametrize("name", ["grid", "scores", "removal", "methods"])
def test_nothing_to_draw_is_said(folder: Folder, name: str) -> None:
    folder.add("planted", {"model": "m", "site": "mlp_hidden", "layer": 0, "index": 1,
                           "unit_id": "planted"})
    folder.write()
    with pytest.raises(UserError, match="nothing to draw"):
        getattr(prunelib.plot, name)(prunelib.open_results(folder.root))
