"""The view that compares methods task by task, on hand-made rows with known answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from results.results_folder import Folder, only, rows
from scipy.stats import binomtest

STEERED = {"kind": "steering", "site": None, "layer": None, "rate": None}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.intervention("base", "none", "baseline")
    made.answers("base", "0000cc11")
    made.intervention("iti", "iti", "chosen", **STEERED, strength=3.0, samples=50, proxy="p")
    made.intervention("iti", "iti", "grid", **STEERED, strength=3.0, samples=50, proxy="p")
    made.intervention("weak", "iti", "grid", **STEERED, strength=1.0, samples=50, proxy="p")
    made.answers("iti", "1111c011")
    for candidate in ("iti", "weak", "base"):
        made.answers(candidate, "010", purpose="search", task="p", unit_id=f"try-{candidate}")
    made.add("attribution_units", {"model": "m", "method": "iti", "proxy": "p", "seed": 0,
                                   "used_unit": "probes", "unit_id": "scores"})
    for seed, marks in enumerate(("0000cc11", "1100cc11")):
        made.intervention(f"drawn{seed}", "random_search", "control", seed=seed, samples=0)
        made.answers(f"drawn{seed}", marks)
    made.intervention("tuned", "fine_tuning", "control", **STEERED, samples=10)
    made.answers("tuned", "0000cc11")
    made.intervention("near", "random", "control", seed=0)  # no search of its own: no line
    made.answers("near", "11111111")
    for unit, seconds, memory in (("eval-iti", 5.0, 300.0), ("try-iti", 7.0, 100.0),
                                  ("try-weak", 11.0, 900.0), ("probes", 2.0, 50.0),
                                  ("eval-base", 1.0, 60.0)):
        made.attempt(unit, "done", 1, seconds=seconds, peak_memory_mb=memory)
    made.attempt("try-weak", "failed", 0, attempt=2, seconds=100.0)
    return made


def line(folder: Folder, method: str, task: str = "t") -> dict[str, object]:
    return only(folder, f"select * from methods where method = '{method}' and task = '{task}'")


def test_one_line_for_every_method_but_random_sets(folder: Folder) -> None:
    folder.write()
    found = rows(folder, "select method from methods")
    assert [row["method"] for row in found] == ["none", "fine_tuning", "iti", "random_search"]


def test_accuracy_and_paired_difference(folder: Folder) -> None:
    folder.write()
    found = line(folder, "iti")
    assert (found["n"], found["accuracy"], found["copying_error"]) == (8, 6 / 8, 1 / 8)
    assert (found["difference"], found["copying_difference"]) == (4 / 8, -1 / 8)
    exact = binomtest(4, 4, 0.5)
    assert found["p_value"] == pytest.approx(exact.pvalue - 0.5**4)  # mid-p: half of both ends
    # A family of two: fine-tuning changed nothing.
    assert found["q_value"] == pytest.approx(2 * float(str(found["p_value"])))
    tuned = line(folder, "fine_tuning")
    assert (tuned["difference"], tuned["p_value"], tuned["q_value"]) == (0, 1, 1)
    assert line(folder, "none")["difference"] is None


def test_random_searches_are_draws_and_claim_nothing(folder: Folder) -> None:
    folder.write()
    found = line(folder, "random_search")
    assert (found["n"], found["difference"]) == (16, 2 / 16)
    assert found["q_value"] is None and found["samples"] == 0
    low, high = float(str(found["difference_low"])), float(str(found["difference_high"]))
    assert low < -0.5 and high > 0.5, "two draws say little"


def test_what_a_method_took(folder: Folder) -> None:
    folder.write()
    found = line(folder, "iti")
    assert (found["samples"], found["searched"], found["candidates"]) == (50, 3, 2)
    # Contrasts and both candidates, a failed attempt included; then its answers.
    assert (found["seconds_to_choose"], found["seconds"]) == (2 + 7 + 11 + 100, 5)
    assert found["peak_memory_mb"] == 900
    base = line(folder, "none")
    assert (base["seconds_to_choose"], base["seconds"], base["samples"]) == (0, 1, None)


def test_a_method_with_one_choice_for_each_task(folder: Folder) -> None:
    folder.answers("base", "01", task="u", unit_id="eval-base-u")
    for task, samples, marks in (("t", 5, "11111111"), ("u", 6, "11")):
        name = f"own-{task}"
        folder.intervention(name, "caa", "chosen", **STEERED, samples=samples, proxy=task,
                            only_task=task)
        folder.intervention(name, "caa", "grid", **STEERED, proxy=task, only_task=task)
        folder.answers(name, marks, task=task, unit_id=f"answer-{task}")
        folder.answers(name, "01", purpose="search", task=task, unit_id=f"search-{task}")
        folder.add("attribution_units", {"model": "m", "method": "caa", "proxy": task, "seed": 0,
                                         "used_unit": f"contrast-{task}", "unit_id": "scores"})
        for unit, seconds in (("answer", 1.0), ("search", 10.0), ("contrast", 100.0)):
            folder.attempt(f"{unit}-{task}", "done", 1, seconds=seconds * samples)
    folder.write()
    for task, samples, difference in (("t", 5, 6 / 8), ("u", 6, 1 / 2)):
        found = line(folder, "caa", task)
        assert (found["samples"], found["difference"]) == (samples, difference)
        assert (found["seconds_to_choose"], found["seconds"]) == (110 * samples, samples)
        assert (found["searched"], found["candidates"]) == (2, 1)


def test_two_runs_are_kept_apart(folder: Folder) -> None:
    folder.intervention("iti", "iti", "chosen", **STEERED, samples=99, proxy="p",
                        unit_id="choose-later")
    folder.intervention("base", "none", "baseline", unit_id="choose-later")
    folder.write({"one-00000000": ["choose", "eval-base", "eval-iti"],
                  "two-00000000": ["choose-later", "eval-base", "eval-iti"]})
    found = rows(folder, "select run, samples from methods where method = 'iti' order by run")
    assert [row["samples"] for row in found] == [50, 99]
