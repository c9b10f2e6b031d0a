"""The views in_context, label_readings and label_bias, on rows with known answers."""

from __future__ import annotations

from typing import Any

import pytest
from results_folder import Folder, rows

from prunelib.components import Component
from prunelib.scoring.statistics import paired_bootstrap, sign_flip_p, wilson


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
    assert (both["n"], both["accuracy"], both["difference"]) == (4, 0, -1)
    assert (both["accuracy_low"], both["accuracy_high"]) == pytest.approx(wilson(0, 4))
    # Against the mean of both random sets, prompt by prompt: -1/2, -1, -1, -1.
    assert both["difference_to_random"] == pytest.approx(-3.5 / 4)
    assert (both["difference_to_random_low"], both["difference_to_random_high"]) == pytest.approx(
        paired_bootstrap([-1, -0.5], [3, 1]))
    assert both["p_value"] == pytest.approx(sign_flip_p([-1, -0.5], [3, 1]))
    # Without the heads of foo, bar is said more often.
    assert found["first", "bar"]["difference"] == pytest.approx(0.25)
    assert (found["first", "bar"]["difference_low"],
            found["first", "bar"]["difference_high"]) == pytest.approx(
        paired_bootstrap([0, 1], [3, 1]))
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
              "value_minus": 0.6, "attention": 0.4, "attention_reversed": 0.1}
    for index in (3, 4):  # the other head was not chosen
        for name, value in values.items():
            for label, factor in (("first", 1), ("second", 2)):
                folder.add("component_scores", {
                    "model": "m", "site": "head", "layer": 2, "index": index,
                    "score": f"{name}_{label}_label", "task": "t", "shots": 4,
                    "value": factor * value, "prompts": 9, "unit_id": "scores"})
    folder.write()
    first, second = rows(folder, "from label_readings")
    assert {name: first[name] for name in values} == values
    assert {name: second[name] for name in values} == {n: 2 * v for n, v in values.items()}
    assert (first["label"], second["label"], first["head_of"]) == ("first", "second", "first")
    assert (first["layer"], first["index"]) == (2, 3)
    assert first["attention_change"] == pytest.approx(-0.75)


def test_a_head_that_pays_no_attention_has_no_change_of_it(folder: Folder) -> None:
    heads(folder, "foo", "in_context_first", 1, at=(2, 3))
    for name, value in (("attention", 0.0), ("attention_reversed", 0.5)):
        folder.add("component_scores", {
            "model": "m", "site": "head", "layer": 2, "index": 3, "score": f"{name}_first_label",
            "task": "t", "shots": 4, "value": value, "prompts": 9, "unit_id": "scores"})
    folder.write()
    (line,) = rows(folder, "from label_readings")
    assert (line["attention_change"], line["value_minus"]) == (None, None)


def biased(folder: Folder, mitigation: str, seed: int, balanced: float | None,
           fewer: tuple[float, float] = (0, 0), by_order: tuple[float, ...] = (),
           error: str | None = None) -> None:
    about = {"model": "m", "engine": "transformers", "task": "t", "seed": seed,
             "mitigation": mitigation,
             "strength": 0.03 if mitigation == "minority_boost" else None,
             "mode": "replace" if mitigation == "without_positions" else None,
             "heads": 2, "prompts": 8, "unit_id": f"bias-{seed}", "error": error}
    found = [("balanced", None, balanced)]
    if error is None:
        found += [("first", None, fewer[0]), ("second", None, fewer[1])]
        found += [("order", [i, 9], value) for i, value in enumerate(by_order)]
    for demonstrations, order, accuracy in found:
        folder.add("label_biases", about | {"demonstrations": demonstrations, "order": order,
                                            "accuracy": accuracy},
                   f"bias-{mitigation.replace('_', '-')}-{seed}")


def test_label_bias(folder: Folder) -> None:
    biased(folder, "none", 0, 0.8, (0.7, 0.95), (0.9, 0.5))
    biased(folder, "none", 1, 0.5, (0.5, 0.4), (0.4, 0.4))  # equal in two orders
    biased(folder, "minority_boost", 0, 0.8, (0.8, 0.8), (0.9, 0.5))
    biased(folder, "minority_boost", 1, 0.5, (0.5, 0.5), (0.5, 0.4))
    biased(folder, "without_positions", 0, None, error="it has none")
    for (table, unit_id), some in folder.rows.items():
        if table == "label_biases":
            for row in some:
                row["unit_id"] = unit_id
    folder.write()
    none, boost, without = rows(folder, "from label_bias")
    assert [r["mitigation"] for r in (none, boost, without)] == [
        "none", "minority_boost", "without_positions"]
    assert none["majority_bias"] == pytest.approx(((0.1 + 0.15) / 2 + (0 + 0.1) / 2) / 2)
    assert none["recency_bias"] == pytest.approx((0.2 + 0) / 2)
    assert (none["seeds"], none["accuracy"]) == (2, pytest.approx(0.65))
    assert (none["fewer_first"], none["fewer_second"]) == pytest.approx((0.6, 0.675))
    assert none["order_accuracy"] == pytest.approx((0.7 + 0.4) / 2)
    assert none["majority_bias_change"] is none["recency_bias_change"] is None
    assert boost["majority_bias"] == pytest.approx(0)
    assert boost["majority_bias_change"] == pytest.approx(-none["majority_bias"])
    assert boost["recency_bias_change"] == pytest.approx((0.2 + 0.05) / 2 - 0.1)
    assert (without["refused"], without["accuracy"], without["majority_bias"]) == (
        "it has none", None, None)
