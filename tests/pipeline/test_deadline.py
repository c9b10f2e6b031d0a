"""A deadline: the main comparison of every model first, nothing new when time is up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pipeline.small import recipe, rows
from tiny_llama import build

import prunelib
from prunelib.errors import UserError
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.attribution import POOLS
from prunelib.pipeline.stages.evaluation import EvaluateJob
from prunelib.pipeline.units.executor import Attempt, InlineExecutor
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.recipe.recipe import Recipe
from prunelib.results.query import open_results
from prunelib.results.storage.store import Store


class Impatient(InlineExecutor):
    """Inline, urgent units first, recording their order; an action before the n-th unit."""

    def __init__(self, results: Path) -> None:
        super().__init__(lambda: Worker(Store.open(results)))
        self.order: list[Unit] = []

    def wait(self, timeout: float | None = None) -> Attempt | None:
        self._queue = type(self._queue)(sorted(self._queue, key=lambda unit: unit.priority))
        attempt = super().wait(timeout)
        assert attempt is not None
        self.order.append(attempt.unit)
        return attempt


def test_a_deadline_changes_the_order_and_no_number(info: ModelInfo, tmp_path: Path) -> None:
    several = {"prompts": 6, "shots": 2, "seeds": [1, 2]}
    two = {"models": [info.path, build(tmp_path / "m1", 1).path],
           "controls": {"random": 2, "random_searches": 2},
           "attribution": [several | {"method": "gradient_activation"},
                           several | {"name": "other", "method": "random"}],
           "evaluate": {"tasks": ["to_upper"], "shots": [1], "examples": 6,
                        "capability": {"text": "prompts", "examples": 4}}}
    plain, hasty = tmp_path / "plain", tmp_path / "hasty"
    prunelib.run(recipe(info, **two), plain)
    executor = Impatient(hasty)
    assert prunelib.run(recipe(info, **two, deadline="2099-01-01 07:00"), hasty, executor).complete

    extras = [unit.priority for unit in executor.order]
    assert 0 in extras and extras == sorted(extras)  # all models' main comparison, then extras
    urgent = [u for u in executor.order if u.stage == "evaluate" and not u.priority]
    main = {(u.model.id, u.job.intervention.digest) for u in urgent  # of the first seed
            if isinstance(u.job, EvaluateJob) and u.job.purpose == "report"}
    assert len(main) == 2 * 3  # per model: baseline, chosen, one random control
    assert len(urgent) == len(main)  # what else a model can do is an extra
    expected, found = rows(plain), rows(hasty)
    for table in set(expected) - {"interventions", "run_units"}:  # these have more files than one
        assert found[table].equals(expected[table]), table
    count = ("select count(*) from (select distinct model, intervention, method, role "
             "from interventions)")
    assert (open_results(hasty).execute(count).fetchone()
            == open_results(plain).execute(count).fetchone())
    board = "select * exclude (run) from leaderboard order by all"
    assert (open_results(hasty).execute(board).fetchall()
            == open_results(plain).execute(board).fetchall())


class InHand(Impatient):
    """As if a worker had one unit in hand when time is up."""

    def withdraw(self) -> list[Unit]:
        first = list(self._queue)[:1]
        units = super().withdraw()[1:]
        self._queue.extend(first)
        return units


@pytest.mark.parametrize(("kind", "done"), [(Impatient, 7), (InHand, 8)])
def test_what_did_not_fit_is_listed_and_the_next_run_does_it(
    kind: type[Impatient], done: int, info: ModelInfo, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch
) -> None:
    results, clock = tmp_path / "r", datetime(2026, 1, 1, 6, tzinfo=UTC)
    executor = kind(results)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def, override]
            return clock + timedelta(minutes=len(executor.order))

    monkeypatch.setattr("prunelib.pipeline.driver.datetime", Clock)
    attribution = {"prompts": 9, "shots": 2, "block": 3, "max_nodes": 4}  # six units
    report = prunelib.run(recipe(info, attribution=attribution,
                                 deadline="2026-01-01T06:07:00+00:00"), results, executor)
    assert len(executor.order) == done and not report.complete
    assert not report.failed and not report.stopped
    assert sum(report.left.values()) > 0
    assert open_results(results).execute("select status from runs").fetchall() == [("deadline",)]
    monkeypatch.undo()
    # The same run, with more time.
    assert prunelib.run(recipe(info, attribution=attribution), results).complete


def test_a_study_that_ended_early_is_named_when_time_is_up_in_the_next(
    info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = Impatient(tmp_path)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def, override]
            return datetime(2026, 1, 1, 6, tzinfo=UTC) + timedelta(minutes=len(executor.order))

    monkeypatch.setattr("prunelib.pipeline.driver.datetime", Clock)
    never_right = {"choose": "correct", "prompts": 1, "proxy": "to_upper"}
    report = prunelib.run(
        recipe(info, attribution=never_right, importance={"removal": False, "prompts": 2},
               deadline=f"2026-01-01T06:{POOLS + 1}:00+00:00"), tmp_path, executor)
    assert not report.failed and {stage for _, stage in report.left} == {"attribute"}
    (((why,),),) = [report.stopped.values()]
    assert why.startswith("attribution: ") and "0 correctly" in why
    assert open_results(tmp_path).execute("select status from runs").fetchall() == [("failed",)]


@pytest.mark.parametrize(("text", "after", "moment"), [
    ("07:00", "2026-03-01T22:00", "2026-03-02T07:00"),
    ("07:00", "2026-03-01T06:59", "2026-03-01T07:00"),
    ("19:00", "2026-03-01T06:59", "2026-03-01T19:00"),
    ("2026-03-05 08:30", "2026-03-01T06:59", "2026-03-05T08:30"),
])
def test_which_moment_is_meant(info: ModelInfo, text: str, after: str, moment: str) -> None:
    from prunelib.recipe.load import parse_recipe

    made = parse_recipe(f"name: x\nmodels: ['{info.path}']\ndeadline: {text}\n")
    start = datetime.fromisoformat(after).astimezone()
    assert made.deadline_after(start) == datetime.fromisoformat(moment).astimezone()


def test_a_deadline_is_not_part_of_the_runs_name(info: ModelInfo) -> None:
    assert recipe(info, deadline="07:00").run_id == recipe(info).run_id


@pytest.mark.parametrize("text", ["7 o'clock", "25:00", "tomorrow"])
def test_no_time_is_a_user_error(info: ModelInfo, text: str) -> None:
    with pytest.raises(UserError, match="neither a time"):
        Recipe.model_validate({"name": "x", "models": [info.path], "deadline": text})
