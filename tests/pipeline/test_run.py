"""The whole pipeline in one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline.small import recipe, rows
from tiny_llama import build

import prunelib
from prunelib.errors import UnitError, UserError
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.evaluation import EvaluateJob
from prunelib.pipeline.units.executor import InlineExecutor
from prunelib.pipeline.units.unit import Unit
from prunelib.pipeline.units.worker import Worker
from prunelib.results.query import open_results
from prunelib.results.storage.store import Store


@pytest.fixture(scope="module")
def finished(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("finished") / "results"
    report = prunelib.run(recipe(info), results)
    assert not report.failed and report.units_reused == 0
    return results


def ask(results: Path, sql: str) -> list[tuple[object, ...]]:
    return open_results(results).execute(sql).fetchall()


def passes(results: Path) -> int:
    """Evaluations of one task: every different ablation once, the baseline twice."""
    found = ask(results, "select count(distinct intervention) from interventions "
                         "where role <> 'grid'")
    return int(str(found[0][0])) + 1


def test_every_table_is_filled(finished: Path) -> None:
    empty = {name for name, table in rows(finished).items() if not table.num_rows}
    # None in the tiny model; not asked for.
    assert empty == {"planted", "attribution_parts", "contrasts", "likelihoods", "task_vectors",
                     "component_scores", "removals", "label_answers", "start_tokens",
                     "lm_eval_scores"}


def test_what_is_evaluated(finished: Path) -> None:
    methods = ask(finished, "select distinct method, role from interventions order by all")
    assert [m for m in methods if m[1] != "grid"] == [
        ("integrated_gradients", "chosen"), ("none", "baseline"),
        ("random", "control"), ("random_search", "control"),
    ]  # fmt: skip
    counts = ask(finished, "select distinct prompts from evaluations where purpose = 'report'")
    assert counts == [(6,)]
    # the control has the layer and the size of what was chosen
    same = "select layer, \"count\" from interventions where role = '{}' and method = '{}'"
    assert ask(finished, same.format("control", "random")) == ask(
        finished, same.format("chosen", "integrated_gradients"))


def test_the_control_has_the_same_search_budget(finished: Path) -> None:
    cells = dict(ask(finished, "select method, count(*) from grid group by 1"))
    assert cells["integrated_gradients"] == cells["random_search"] == 4
    assert len(ask(finished, "select distinct n from grid")) == 1


def test_attribution_search_and_report_share_no_word(finished: Path) -> None:
    queries = ask(finished, "select distinct split, query from predictions where "
                            "task = 'vowel_counting'")
    assert {split for split, _ in queries} == {"search"}
    from prunelib.tasks import get_task

    task = get_task("vowel_counting")
    known = {x for x, _ in task.split("search")}
    assert {q for _, q in queries} <= known
    assert not known & {x for x, _ in (*task.split("attribute"), *task.split("report"))}


def test_intervals_hold_what_they_are_intervals_of(finished: Path) -> None:
    lines = ask(finished, """
        select accuracy, accuracy_low, accuracy_high, copying_error, copying_error_low,
               copying_error_high from leaderboard""")
    assert len(lines) == 4
    known = [line for line in lines if line[1] is not None]  # a single random set has no interval
    assert len(known) >= 2
    for line in known:
        for value, low, high in (line[:3], line[3:]):
            assert 0 <= low <= value <= high <= 1  # type: ignore[operator]


def test_the_noise_floor_of_one_engine_is_zero(finished: Path) -> None:
    assert ask(finished, "select changed, accuracy_difference from noise_floor") == [(0.0, 0.0)]


def test_every_number_can_be_traced(finished: Path) -> None:
    traced = ask(finished, """
        select count(*) from predictions p join models m using (model)
        join interventions a on a.intervention = p.intervention and a.model = p.model
        join run_units u on u.unit_id = p.unit_id join runs r using (run)
        where length(m.weights_digest) = 32 and r.status = 'done'""")
    assert traced[0][0] > 0
    assert not ask(finished, "select 1 from predictions where unit_id not in "
                             "(select unit_id from run_units)")


def test_a_finished_run_does_nothing(info: ModelInfo, finished: Path) -> None:
    class Refusing(InlineExecutor):
        def submit(self, unit: Unit) -> None:
            raise AssertionError(f"{unit.id} was done already")

    def files() -> list[str]:  # the row of the run itself is written again
        return sorted(str(p) for p in finished.rglob("*.parquet") if p.parent.name != "runs")

    before = files()
    report = prunelib.run(recipe(info), finished, Refusing(lambda: Worker(Store.open(finished))))
    assert report.units_done == 0 and report.units_reused > 0
    assert files() == before


def test_more_shots_reuse_what_is_there(info: ModelInfo, finished: Path, tmp_path: Path) -> None:
    import shutil

    results = Path(shutil.copytree(finished, tmp_path / "more"))
    more = {"tasks": ["to_upper", "en_fr"], "shots": [1, 2, 3], "examples": 6}
    report = prunelib.run(recipe(info, evaluate=more), results)
    assert report.units_done == 2 * passes(results)  # two tasks, at 3 shots
    # both runs are there, each with its own lines
    assert len(ask(results, "select distinct run from leaderboard")) == 2
    assert ask(results, "select max(prompts) from evaluations where purpose = 'report'") == [(6,)]


def test_a_failed_unit_is_a_row_and_the_run_goes_on(
    info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Worker.perform

    def perform(self: Worker, unit: Unit, batch_halvings: int) -> int:
        job = unit.job
        if isinstance(job, EvaluateJob) and job.task.name == "en_fr" and job.shots == 2:
            raise UnitError("boom")
        return whole(self, unit, batch_halvings)

    monkeypatch.setattr(Worker, "perform", perform)
    report = prunelib.run(recipe(info), tmp_path / "r")
    expected = passes(tmp_path / "r")
    assert len(report.failed) == expected >= 4
    assert ask(tmp_path / "r", "select distinct error_text from failed_units") == [("boom",)]
    assert ask(tmp_path / "r", "select status, units_failed from runs") == [("failed", expected)]
    monkeypatch.undo()
    assert prunelib.run(recipe(info), tmp_path / "r").units_done == expected
    assert ask(tmp_path / "r", "select * from failed_units") == []


def test_a_model_whose_attribution_fails_stops_alone(
    info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "perform", lambda self, unit, batch_halvings: (_ for _ in ()).throw(
        UnitError("no")))
    report = prunelib.run(recipe(info), tmp_path / "r")
    assert report.failed and {a.unit.stage for a in report.failed} == {"attribute"}


@pytest.mark.slow
@pytest.mark.parametrize("moment", [
    1.0, *(pytest.param(moment, marks=pytest.mark.long) for moment in (0.3, 2.0, 3.5))])
def test_a_killed_run_continues_to_the_same_rows(
    moment: float, info: ModelInfo, finished: Path, tmp_path: Path
) -> None:
    """SIGKILL some time after the first file appeared, then the same command again."""
    results = tmp_path / "killed"
    script = tmp_path / "go.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "import prunelib\nfrom pipeline.small import recipe\n"
        "from prunelib.models import describe\n"
        f"prunelib.run(recipe(describe({info.path!r})), {str(results)!r})\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {
        "PYTHONPATH": str(Path(__file__).parent.parent)})
    while not list(results.glob("prompt_scores/*.parquet")) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    prunelib.run(recipe(info), results)
    expected, found = rows(finished), rows(results)
    for table in expected:
        assert found[table].equals(expected[table]), table


def test_user_errors_come_before_any_work(info: ModelInfo, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="layers 0 to 1, not 7"):
        prunelib.run(recipe(info, search={"layers": [0, 7]}), tmp_path / "r")
    assert not (tmp_path / "r").exists()
    with pytest.raises(UserError, match="twice"):
        prunelib.run(recipe(info, models=[info.path, info.path]), tmp_path / "r")


def test_results_that_stay_out_of_reach_end_the_run_in_one_line(
    info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunelib.results.storage import files

    real = files.LocalFiles.commit

    def full(self: files.LocalFiles, name: str, content: bytes) -> None:
        if len(list((tmp_path / "r" / "prompt_scores").glob("*"))) > 1:
            raise OSError(28, "No space left on device")
        real(self, name, content)

    monkeypatch.setattr(files.LocalFiles, "commit", full)
    monkeypatch.setattr(files, "_PATIENCE", 0.0)
    with pytest.raises(UserError, match="out of reach: no space left on device; run it again"):
        prunelib.run(recipe(info), tmp_path / "r")
    monkeypatch.undo()
    assert prunelib.run(recipe(info), tmp_path / "r").complete


def test_a_model_that_cannot_be_loaded_fails_alone(info: ModelInfo, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    torn = Path(shutil.copytree(info.path, tmp_path / "torn"))
    weights = load_file(torn / "model.safetensors")
    del weights["model.embed_tokens.weight"]  # of layers it is seen before the run
    save_file(weights, torn / "model.safetensors", {"format": "pt"})
    report = prunelib.run(recipe(info, models=[str(torn), info.path]), tmp_path / "r")
    assert not report.complete and {a.unit.model.id for a in report.failed} == {str(torn)}
    assert ask(tmp_path / "r", "select distinct model, stage from failed_units") == [
        (str(torn), "attribute")]
    assert "lacks 1 of its weights" in str(report.failed[0].error_text)
    assert ask(tmp_path / "r", "select distinct model from leaderboard") == [(info.path,)]


def test_a_unit_is_linked_to_its_run_once(info: ModelInfo, finished: Path, tmp_path: Path) -> None:
    """Whatever an earlier driver had linked, in batches of its own."""
    some = Store.open(finished).read("run_units").to_pylist()[::7]
    Store.open(tmp_path / "r").write("run_units", "link-0", some)
    assert prunelib.run(recipe(info), tmp_path / "r").complete
    assert rows(tmp_path / "r")["run_units"].equals(rows(finished)["run_units"])


def test_a_model_that_cannot_be_recorded_stops_alone(info: ModelInfo, tmp_path: Path) -> None:
    other = build(tmp_path / "other", 1)
    (Path(other.path) / "planted.json").write_text("{\n")
    report = prunelib.run(
        recipe(info, models=[other.path, info.path], attribution="wanda"), tmp_path / "r")
    ((name, (why,)),) = report.stopped.items()
    assert name == other.path and why.startswith("model: JSONDecodeError: ") and "\n" not in why
    assert not report.failed and {row["model"] for row in Store.open(tmp_path / "r").read(
        "predictions").to_pylist()} == {info.path}
