"""The views in_context, label_readings and label_bias, on rows with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from results_folder import Folder, rows

from prunelib.components import Component
from prunelib.scoring.conditions import answers_table, spread
from prunelib.scoring.statistics import (
    difference_intervals,
    drawn_interval,
    drawn_p,
    pair_sums,
    wilson,
)


def heads(folder: Folder, ablation: str, role: str, count: int, at: tuple[int, int] = (0, 0),
          **changes: Any) -> None:
    """So many heads of a layer, from a place (layer, index) on."""
    method = "random" if role == "in_context_random" else "in_context_heads"
    about = {"site": "head", "layer": None, "rate": None, "count": count, "proxy": None}
    off = [Component(at[0], "head", at[1] + i) for i in range(count)]
    folder.intervention(ablation, method, role, off, **about | changes)


def said(folder: Folder, ablation: str, foo: str, bar: str, **changes: Any) -> None:
    for i, (label, marks) in enumerate((("foo", foo), ("bar", bar))):
        about = {"gold": label, "seed": i, "purpose": "in_context"}
        folder.answers(ablation, marks, **about | changes)


def removed(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    heads(folder, "both", "in_context", 2)
    heads(folder, "foo", "in_context_first", 1)
    said(folder, "base", "1111", "1110")
    said(folder, "both", "0000", "0110")
    said(folder, "foo", "0001", "1111")
    for seed, marks in enumerate((("1111", "1100"), ("0111", "1110"))):
        heads(folder, f"r{seed}", "in_context_random", 2, seed=seed)
        said(folder, f"r{seed}", *marks)


def test_in_context(folder: Folder) -> None:
    removed(folder)
    folder.answers("base", "0000")  # the report split is for other views
    folder.intervention("ig", "integrated_gradients", "chosen")
    said(folder, "ig", "0000", "0000")  # was nothing that this view asks about
    folder.write()
    found = {(r["removed"], r["gold"]): r for r in rows(folder, "from in_context")}
    assert [*found] == [(what, gold) for what in ("none", "both", "first", "random")
                        for gold in (None, "bar", "foo")]
    assert [found[what, None]["accuracy"] for what in ("none", "both", "first", "random")] == [
        7 / 8, 2 / 8, 5 / 8, (6 + 6) / 16]
    assert [found[what, None]["heads"] for what in ("none", "both", "first", "random")] == [
        0, 2, 1, 2]
    both = found["both", "foo"]
    assert (both["prompts"], both["queries"], both["accuracy"], both["difference"]) == (
        4, 4, 0, -1)
    assert (both["accuracy_low"], both["accuracy_high"]) == pytest.approx(
        [float(end) for end in wilson(0, 4)])
    assert (found["both", None]["prompts"], found["both", None]["queries"]) == (8, 4)
    # Against both random sets, whose differences are -1 and -3/4: one and two losses a query.
    assert both["difference_to_random"] == pytest.approx(-3.5 / 4) and both["random_sets"] == 2
    sums, sd = [pair_sums([2] * 4, [0] * 4, [1, 2, 2, 2])], [np.std([-1, -0.75], ddof=1)]
    interval = drawn_interval([-3.5 / 4], difference_intervals(sums, [0]), sd, [2])
    assert (both["difference_to_random_low"], both["difference_to_random_high"]) == pytest.approx(
        [max(float(interval[0][0]), -1), float(interval[1][0])])
    assert both["p_value"] == pytest.approx(drawn_p(sums, [0], sd, [2])[0])
    # Neither random set does as much.
    assert both["rank_p_value"] == found["both", None]["rank_p_value"] == pytest.approx(1 / 3)
    assert found["both", "bar"]["rank_p_value"] == pytest.approx(2 / 3)
    # Without the heads of foo, bar is said more often.
    assert found["first", "bar"]["difference"] == pytest.approx(0.25)
    assert (found["first", "bar"]["difference_low"],
            found["first", "bar"]["difference_high"]) == pytest.approx(
        [float(end[0]) for end in difference_intervals(
            [pair_sums([1] * 4, [0, 0, 0, 1], [0] * 4)], [0])])
    assert found["none", None]["difference"] is None
    assert found["random", None]["difference"] == pytest.approx(-1 / 8)
    for what in ("none", "random"):
        assert found[what, None]["p_value"] is found[what, None]["difference_to_random"] is None


def test_without_random_sets_nothing_is_said_of_them(folder: Folder) -> None:
    folder.intervention("base", "none", "baseline")
    heads(folder, "both", "in_context", 2)
    said(folder, "base", "11", "10")
    said(folder, "both", "00", "10")
    folder.write()
    line = rows(folder, "from in_context where removed = 'both' and gold is null")[0]
    assert (line["accuracy"], line["difference"], line["p_value"]) == (0.25, -0.5, None)


def test_label_readings(folder: Folder) -> None:
    heads(folder, "foo", "in_context_first", 1, at=(2, 3))
    values = {"causal": -0.25, "log_probability_increase": 0.5, "logit_minus": 0.3,
              "value_minus": 0.6, "attention": 0.4, "attention_reversed": 0.1,
              "attention_change": -0.75}
    for index in (3, 4):  # the other head was not chosen
        for name, value in values.items():
            for label, factor in (("first", 1), ("second", 2)):
                folder.add("component_scores", {
                    "model": "m", "site": "head", "layer": 2, "index": index,
                    "score": f"{name}_{label}_label", "task": "t", "shots": 4,
                    "value": factor * value, "standard_error": value**2, "prompts": 9,
                    "queries": 5, "unit_id": "scores"})
    folder.write()
    first, second = rows(folder, "from label_readings")
    assert {name: first[name] for name in values} == values
    assert {name: second[name] for name in values} == {n: 2 * v for n, v in values.items()}
    assert (first["label"], second["label"], first["head_of"]) == ("first", "second", "first")
    assert (first["layer"], first["index"]) == (2, 3)
    assert first["attention_change_error"] == second["attention_change_error"] == 0.75**2
    assert (first["prompts"], first["queries"], first["value_minus_change"]) == (9, 5, None)


def test_a_head_that_pays_no_attention_has_no_change_of_it(folder: Folder) -> None:
    heads(folder, "foo", "in_context_first", 1, at=(2, 3))
    for name, value in (("attention", 0.0), ("attention_reversed", 0.5)):
        folder.add("component_scores", {
            "model": "m", "site": "head", "layer": 2, "index": 3, "score": f"{name}_first_label",
            "task": "t", "shots": 4, "value": value, "prompts": 9, "unit_id": "scores"})
    folder.write()
    (line,) = rows(folder, "from label_readings")
    assert (line["attention_change"], line["value_minus"]) == (None, None)


def biased(folder: Folder, mitigation: str, seed: int, answers: dict[str, list[str]] | None,
           error: str | None = None) -> None:
    """Marks of eight queries under each condition: 1 is right."""
    about = {"model": "m", "engine": "transformers", "task": "t", "seed": seed,
             "mitigation": mitigation,
             "strength": 0.03 if mitigation == "minority_boost" else None,
             "mode": "replace" if mitigation == "without_positions" else None,
             "heads": 2, "unit_id": f"bias-{mitigation.replace('_', '-')}-{seed}", "error": error}
    empty = dict.fromkeys(("condition", "demonstrations", "order", "example", "query", "gold",
                           "prediction", "correct", "first_logprob", "second_logprob"))
    if answers is None:
        folder.add("label_answers", about | empty)
        return
    conditions = [(name, i, marks) for name, some in answers.items()
                  for i, marks in enumerate(some)]
    for number, (name, i, marks) in enumerate(conditions):
        for example, mark in enumerate(marks):
            folder.add("label_answers", about | {
                "condition": number, "demonstrations": name,
                "order": [i, 9] if name == "order" else None, "example": example,
                "query": f"q{example % 6}", "gold": "foo", "correct": mark == "1",
                "prediction": "foo" if mark == "1" else "bar", "first_logprob": -1.0,
                "second_logprob": -2.0})


MARKS = [{"balanced": ["11110110"], "first": ["11000110"], "second": ["11111111"],
          "order": ["11111110", "10010010"]},
         {"balanced": ["11001100"], "first": ["11000011"], "second": ["01001100"],
          "order": ["11010000", "00010110"]}]


def share(marks: str) -> float:
    return marks.count("1") / len(marks)


def test_label_bias(folder: Folder) -> None:
    for seed, marks in enumerate(MARKS):
        biased(folder, "none", seed, marks)
        biased(folder, "minority_boost", seed, marks | {"first": marks["balanced"],
                                                        "second": marks["balanced"]})
    biased(folder, "without_positions", 0, None, error="it has none")
    folder.write()
    none, boost, without = rows(folder, "from label_bias")
    assert [r["mitigation"] for r in (none, boost, without)] == [
        "none", "minority_boost", "without_positions"]
    shares = [{name: [share(s) for s in some] for name, some in marks.items()} for marks in MARKS]
    assert none["majority_bias"] == pytest.approx(np.mean([
        abs(s["balanced"][0] - s[name][0]) for s in shares for name in ("first", "second")]))
    assert none["recency_bias"] == pytest.approx(np.mean([np.std(s["order"]) for s in shares]))
    assert (none["seeds"], none["prompts"], none["queries"]) == (2, 16, 6)
    for column, name in (("accuracy", "balanced"), ("fewer_first", "first"),
                         ("fewer_second", "second"), ("order_accuracy", "order")):
        assert none[column] == pytest.approx(np.mean([s[name] for s in shares]))
    for name, kind, numbers in (("majority_bias", "majority", (0, 1, 2)),
                                ("recency_bias", "order", (3, 4))):
        answers = [(f"q{i % 6}", seed, number, int(mark)) for seed, marks in enumerate(MARKS)
                   for number, some in enumerate(m for each in marks.values() for m in each)
                   if number in numbers for i, mark in enumerate(some)]
        found = spread(kind, *answers_table(*zip(*answers, strict=True)))
        assert (none[f"{name}_floor"], none[f"{name}_p_value"], none[f"{name}_low"],
                none[f"{name}_high"]) == pytest.approx((found.floor, found.p, found.low,
                                                        found.high))
        assert none[f"{name}_change"] is none[f"{name}_change_p_value"] is None
    assert boost["majority_bias"] == pytest.approx(0)
    assert boost["majority_bias_change"] == pytest.approx(-none["majority_bias"])
    assert (boost["recency_bias_change"], boost["recency_bias_change_p_value"]) == (0, 1)
    assert 0 < boost["majority_bias_change_p_value"] < 1
    assert (without["refused"], without["accuracy"], without["majority_bias"]) == (
        "it has none", None, None)
