"""Figures of the importance study: what is in them, read back from matplotlib and the files."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from results_folder import RUN, Folder

from prunelib.results.figures import head_importance as head_figures
from prunelib.results.figures import removal_curves as removal_figures
from prunelib.results.figures.drawing import Drawing
from prunelib.results.figures.head_importance import draw_heads
from prunelib.results.query import open_results

TASKS = [f"a_task_{i:02d}" for i in range(16)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 layers of 72 heads, 16 tasks: the size of OPT-66B, one score."""
    folder, rng = Folder(tmp_path_factory.mktemp("large") / "out"), np.random.default_rng(0)
    for task, site in itertools.product(TASKS, ("head", "ffn")):
        for layer, index in np.ndindex(64, 72 if site == "head" else 1):
            folder.add("component_scores", {
                "model": "m", "site": site, "layer": layer, "index": index,
                "score": "gradient_gate", "task": task, "shots": 0, "value": rng.gamma(1.0),
                "prompts": 5, "unit_id": f"scores-{site}"})  # fmt: skip
    folder.write()
    return folder.root


def names(drawings: Iterable[Drawing]) -> set[str]:
    return {one.name.partition("-llama-")[2] for one in drawings}


def test_a_study_without_a_choice_is_drawn(studied: Path) -> None:
    connection, run, _ = study(studied)
    drawings = list(draw_heads(connection, run))
    assert {one.section for one in drawings} == {"heads", "removal", "correlations"}
    curves = {f"removal-{what}-{k}-shots" for what in ("heads", "ffns") for k in (0, 2)}
    assert names(drawings) == curves | {
        "heads", "ffns", "scores", "agreement-heads", "agreement-ffns", "joint", "retention"}
    for one in drawings:
        picture = imread(io.BytesIO(one.written("png")))
        assert min(picture.shape[:2]) > 300 and np.ptp(picture[..., :3]) > 0.5, one.name


def test_results_without_a_study_have_no_figure_of_one(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    folder.write()
    assert list(draw_heads(open_results(folder.root), RUN)) == []


def panels(figure: Any) -> dict[str, Any]:
    """Title → axes."""
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def study(place: Path) -> tuple[Any, str, str]:
    connection = open_results(place)
    ((run, model),) = connection.sql("SELECT DISTINCT run, model FROM component_importance"
                                     ).fetchall()
    return connection, run, model


def test_heat_maps_hold_the_means_over_tasks(studied: Path) -> None:
    connection, run, model = study(studied)
    found = panels(head_figures._head_maps(connection, run, model))
    assert list(found) == [
        *(f"{score}, {shots} shots" for shots in (0, 2)
          for score in ("oracle", "gradient_gate", "gradient_per_token", "gradient_signed")),
        "prefix_matching", "copying", "copying_own_value"]
    for title, score in (("gradient_gate, 2 shots", "gradient_gate"), ("copying", "copying")):
        values: dict[tuple[int, int], list[float]] = {}
        for layer, index, value in connection.sql(
                'SELECT layer, "index", "value" FROM component_scores WHERE site = \'head\' '
                f"AND score = '{score}' AND coalesce(shots, 2) = 2").fetchall():
            values.setdefault((layer, index), []).append(value)
        (image,) = found[title].get_images()
        cells = image.get_array()
        assert cells.shape == (4, 6)
        for place, some in values.items():
            assert cells[place] == pytest.approx(np.mean(some))
    # Signed scores have white at 0; the others begin there.
    low, high = found["gradient_signed, 0 shots"].get_images()[0].get_clim()
    assert low == -high < 0
    assert found["gradient_gate, 0 shots"].get_images()[0].get_clim()[0] == 0


def test_bars_of_ffns_are_means_and_dots_are_tasks(studied: Path) -> None:
    connection, run, model = study(studied)
    axes = panels(head_figures._ffn_bars(connection, run, model))["oracle, 2 shots"]
    dots = axes.get_lines()[0].get_xydata()
    assert len(dots) == 4 * 3
    for bar in axes.patches:
        layer = round(bar.get_x() + bar.get_width() / 2)
        assert bar.get_height() == pytest.approx(np.mean([y for x, y in dots if x == layer]))


def test_matrices_are_symmetric_and_hold_the_view(studied: Path) -> None:
    connection, run, model = study(studied)
    rows = connection.sql(head_figures._PAIRS, params=[run, model]).fetchall()
    pairs = [head_figures._Pair(*row) for row in rows if row[0] == "head"]
    found = panels(head_figures._between_tasks(pairs, "heads"))
    axes = found["gradient_gate, 2 shots"]
    cells = axes.get_images()[0].get_array().filled(np.nan)
    tasks = [label.get_text() for label in axes.get_xticklabels()]
    assert tasks == ["antonyms_reference", "country_capital_reference", "to_upper"]
    assert np.isnan(np.diag(cells)).all() and np.array_equal(cells, cells.T, equal_nan=True)
    ((expected,),) = connection.sql(
        "SELECT spearman FROM importance_agreement WHERE site = 'head' AND score = 'gradient_gate' "
        "AND other_score = 'gradient_gate' AND task = 'antonyms_reference' "
        "AND other_task = 'to_upper' AND shots = 2").fetchall()
    assert cells[0, 2] == pytest.approx(expected)
    across = found["gradient_gate, across shots"].get_images()[0].get_array()
    ((expected,),) = connection.sql(
        "SELECT avg(spearman) FROM importance_agreement WHERE site = 'head' "
        "AND score = 'gradient_gate' AND other_score = score AND shots <> other_shots").fetchall()
    assert across[0, 1] == pytest.approx(expected)
    assert f"{cells[0, 2]:.2f}".replace("0.", ".") in [text.get_text() for text in axes.texts]


def test_curves_hold_the_views(studied: Path) -> None:
    connection, run, model = study(studied)
    figures = removal_figures.draw_removals(connection, run, model)
    found = panels(figures["removal-heads-2-shots"])
    assert list(found) == ["mean over 3 tasks", "antonyms_reference", "country_capital_reference",
                           "to_upper"]
    for title, sql in (
        ("mean over 3 tasks", "FROM removal_means WHERE ffns = 0 AND shots = 2"),
        ("to_upper", "FROM removal_curves WHERE ffns = 0 AND shots = 2 AND task = 'to_upper'"),
    ):
        lines = {line.get_label(): line.get_xydata() for line in found[title].get_lines()}
        assert set(lines) == {"own", "aggregate", "closest", "farthest", "random"}
        for order, points in lines.items():
            expected = connection.sql(
                f'SELECT 100 * heads, 100 * avg(accuracy) {sql} AND "order" = \'{order}\' '
                "GROUP BY heads ORDER BY heads").fetchall()
            assert points.tolist() == pytest.approx(np.array(expected))
    joint = panels(figures["joint"])["2 shots"].get_images()[0].get_array()
    assert joint.shape == (3, 3) and not np.isnan(joint.filled(np.nan)).any()
    left = panels(figures["retention"])["prefix_matching, 0 shots"]
    random = next(line for line in left.get_lines() if line.get_label() == "random")
    expected = connection.sql(
        "SELECT 100 * heads, avg(retained) FROM retention WHERE score = 'prefix_matching' "
        "AND \"order\" = 'random' GROUP BY heads ORDER BY heads").fetchall()
    assert random.get_xydata().tolist() == pytest.approx(np.array(expected))


def test_a_large_model_is_drawn_with_a_pixel_or_more_for_each_head(large: Path) -> None:
    connection, run, model = study(large)
    figure = head_figures._head_maps(connection, run, model)
    figure.savefig(io.BytesIO(), dpi=130)
    (axes,) = panels(figure).values()
    box = axes.get_window_extent()
    assert box.width * 130 / figure.dpi > 3 * 72 and box.height * 130 / figure.dpi > 3 * 64
    written = {one.name.rpartition("-m-")[2] for one in draw_heads(connection, run)}
    assert written == {"heads", "ffns", "agreement-heads", "agreement-ffns"}


def test_a_part_of_a_study_is_drawn_too(folder: Folder) -> None:
    """One task, one number of shots, no removal yet: no matrices and no curves."""
    for layer in range(2):
        folder.add("component_scores", {
            "model": "a/m", "site": "head", "layer": layer, "index": 0, "score": "prefix_matching",
            "task": None, "shots": None, "value": 0.0, "prompts": 5,
            "unit_id": "scores"})  # fmt: skip
    folder.write()
    (one,) = draw_heads(open_results(folder.root), RUN)
    assert (one.name, one.section) == ("demo-0123abcd-m-heads", "heads")
