"""The same weights under several names: every name has its rows, and no work is done twice."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pipeline.small import ask, recipe

import prunelib
from prunelib.models import ModelInfo
from prunelib.pipeline.progress import read_progress
from prunelib.pipeline.units.executor import Attempt
from prunelib.results.query import open_results
from prunelib.results.schemas import OF_UNITS, TABLES
from prunelib.results.views.base import View
from prunelib.results.views.registry import VIEWS


class Counting:
    """A reporter that counts, under each model's name."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    def expected(self, model: str, stage: str, least: int, most: int) -> None:
        """What a plan counts is not looked at."""

    def note(self, text: str) -> None:
        """Nor what is said."""

    def stage(self, model: str, stage: str, units: int, done: int) -> None:
        self.asked[model] += units - done

    def attempt(self, attempt: Attempt) -> None:
        assert attempt.done, attempt.error_text
        self.ended[attempt.unit.model.id] += 1


@pytest.fixture(scope="module")
def copy(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(shutil.copytree(info.path, tmp_path_factory.mktemp("copy") / "other-name"))


@pytest.fixture(scope="module")
def together(info: ModelInfo, copy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run whose recipe lists the model and its copy."""
    results = tmp_path_factory.mktemp("names") / "results"
    reporter = Counting()
    made = recipe(info, attribution="wanda", models=[info.path, copy])
    report = prunelib.run(made, results, reporter=reporter)
    assert report.complete
    assert reporter.ended == reporter.asked and len(reporter.ended) == 2
    return results


def lines(con: Any, name: str, model: str, run: str | None = None) -> list[tuple[object, ...]]:
    """Rows of a table or view under a name, without what names it."""
    columns = con.table(name).columns
    left = [c for c in ("model", "unit_id", *["run"] * bool(run)) if c in columns]
    also = f"AND run = '{run}'" if run and "run" in columns else ""
    found: list[tuple[object, ...]] = con.execute(
        f"SELECT * EXCLUDE ({', '.join(left)}) FROM {name} WHERE model = '{model}' {also} "
        "ORDER BY ALL").fetchall()
    return found


def test_both_names_of_a_recipe_have_every_row(info: ModelInfo, copy: str, together: Path) -> None:
    filled = set()
    con = open_results(together)
    for name in [*sorted(OF_UNITS), *(view.name for view in VIEWS if "model" in view.columns)]:
        if name == "costs":  # of the work, which was done once
            continue
        found = lines(con, name, info.path)
        assert found == lines(con, name, copy), name
        filled |= {name} if found else set()
    assert {"predictions", "attributions", "models", "leaderboard", "comparisons", "grid",
            "chosen", "noise_floor"} <= filled
    work = ask(together, "select count(*), count(distinct unit_id) from units")
    assert work[0][0] == work[0][1] > 0
    done = {(s.model, s.stage): (s.done, s.total) for s in read_progress(together).stages}
    assert len({model for model, _ in done}) == 2
    assert all(done[info.path, stage] == done[copy, stage] == (n, n)
               for (_, stage), (n, _) in done.items())


def test_a_renamed_folder_has_its_rows_and_no_new_work(
    info: ModelInfo, copy: str, tmp_path: Path
) -> None:
    results = tmp_path / "r"
    first = prunelib.run(recipe(info, attribution="wanda"), results)
    files = {path for table in TABLES for path in (results / table).glob("*.parquet")}
    again = prunelib.run(recipe(info, attribution="wanda", models=[copy]), results)
    assert again.complete and again.units_done == 0 and again.units_reused == first.units_done
    new = Counter(path.parent.name for table in TABLES for path in (results / table).glob(
        "*.parquet") if path not in files)
    assert new.keys() <= {"runs", "run_units", "models", "interventions", "attributions",
                          "attribution_units"}  # what the driver itself writes
    assert again.run != first.run
    con = open_results(results)
    for name in ("predictions", "attribution_parts", "canaries", "leaderboard", "comparisons",
                 "grid", "chosen", "evaluations", "copying", "components"):
        found = lines(con, name, info.path, first.run)
        assert found and found == lines(con, name, copy, again.run), name
    assert ask(results, f"select count(*) from leaderboard where model = '{info.path}' "
                        f"and run = '{again.run}'") == [(0,)]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_takes_the_units_of_a_name(view: View) -> None:
    """A unit's rows under one name are no rows of the runs that gave its model another."""
    joined = re.findall(r"JOIN _scope\b[^(]*\(([^)]*)\)", view.sql)
    assert view.sql.count("JOIN _scope") == len(joined) and set(joined) <= {"unit_id, model"}
