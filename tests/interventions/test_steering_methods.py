"""ITI and SADI on numbers with a planted truth, and beside shuffled labels; contrastive pairs."""

from __future__ import annotations

import numpy as np
import pytest

from prunelib.interventions.contrast import Contrast, contrast_texts, signs
from prunelib.interventions.iti import held_out, iti, probe, spread
from prunelib.interventions.sadi import largest, sadi_head, sadi_hidden, sadi_neuron
from prunelib.interventions.steering import Edit
from prunelib.tasks import draw, get_task

LAYERS, HEADS, SIZE, PAIRS = (1, 3), 3, 4, 80
RNG = np.random.default_rng(0)
#: Values of every head, after right answers and after wrong ones: head 2 of layer 3 tells them.
RIGHT = RNG.normal(size=(PAIRS, 2, HEADS, SIZE))
WRONG = RNG.normal(size=(PAIRS, 2, HEADS, SIZE))
RIGHT[:, 1, 2, 0] += 6
QUERIES = [f"q{i}" for i in range(PAIRS)]


def contrast(right: np.ndarray, wrong: np.ndarray) -> Contrast:
    judging = held_out(QUERIES)
    judged = np.array([[probe(right[:, i, h], wrong[:, i, h], judging) for h in range(HEADS)]
                       for i in range(2)])
    difference = (right - wrong).mean(0)
    spreads = np.array([[spread(right[:, i, h], wrong[:, i, h], difference[i, h])
                         for h in range(HEADS)] for i in range(2)])
    return Contrast(LAYERS, {"head": difference.reshape(2, -1)}, judged[..., 0], judged[..., 1],
                    spreads, HEADS)


def flipped(right: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keep = (np.arange(PAIRS) % 2 == 0)[:, None, None, None]
    return np.where(keep, right, wrong), np.where(keep, wrong, right)


def test_iti_finds_the_head_that_knows() -> None:
    found = contrast(RIGHT, WRONG)
    assert found.accuracies[1, 2] > 0.95 and found.accuracies[0].max() < 0.8
    steering = iti(found, 1, 15.0)
    (edit,) = steering.edits
    assert (edit.layer, edit.place, edit.indices) == (3, "head", (8, 9, 10, 11))
    assert steering.scope == "answer"
    difference = (RIGHT - WRONG).mean(0)[1, 2]
    direction = difference / np.sqrt((difference**2).sum())
    along = np.concatenate([RIGHT[:, 1, 2], WRONG[:, 1, 2]]) @ direction
    sigma = np.sqrt(((along - along.mean()) ** 2).mean())
    np.testing.assert_allclose(edit.shifts, 15 * sigma * direction, rtol=1e-5)
    assert not iti(found, 2, 0.0).edits and len(iti(found, 3, 1.0)) == 3 * SIZE


def test_probes_of_shuffled_labels_know_nothing() -> None:
    found = contrast(*flipped(RIGHT, WRONG))
    assert found.accuracies[1, 2] < 0.75
    true = contrast(RIGHT, WRONG)
    length = np.linalg.norm(found.means["head"][1, 8:])
    assert length < 0.3 * np.linalg.norm(true.means["head"][1, 8:])


def test_equally_accurate_probes_are_told_by_their_loss() -> None:
    found = contrast(RIGHT, WRONG)
    same = Contrast(found.layers, found.means, np.ones((2, HEADS)),
                    np.array([[0.3, 0.1, 0.2], [0.4, 0.05, 0.6]]), found.spreads, HEADS)
    assert [(e.layer, e.indices[0] // SIZE) for e in iti(same, 1, 1.0).edits] == [(3, 1)]
    assert [(e.layer, e.indices[0] // SIZE) for e in iti(same, 2, 1.0).edits] == [(1, 1), (3, 1)]


def test_probes_are_judged_by_queries_that_they_did_not_see() -> None:
    judging = held_out([f"q{i // 2}" for i in range(20)])  # each query twice
    assert judging.sum() == 4 and (judging[::2] == judging[1::2]).all()
    assert (held_out(QUERIES) == held_out(QUERIES)).all()
    # Values that only name their own query are of no use for others.
    own = np.eye(PAIRS)[:, :SIZE]
    accuracy, _ = probe(own, own, held_out(QUERIES))
    assert accuracy == 0.5


def test_sadi_scales_what_differs_most() -> None:
    means = np.array([[0.5, -9, 2, 0], [3, 1, -1, 0]])
    found = Contrast(LAYERS, {"mlp_out": means, "mlp_hidden": means}, *[np.zeros((0, 0))] * 3, 1)
    for method, place in ((sadi_hidden, "mlp_out"), (sadi_neuron, "mlp_hidden")):
        steering = method(found, 2, 9.0)
        assert steering.edits == (Edit(1, place, (2,), factor=10), Edit(3, place, (0,), factor=10))
        assert steering.scope == "prompt_end" and not method(found, 2, 0.0).edits
        assert len(method(found, 8, 1.0)) == 4, "the others are not positive"


def test_sadi_ranks_heads_by_the_mean_of_their_dimensions() -> None:
    found = contrast(RIGHT, WRONG)
    (edit,) = sadi_head(found, 1, 1.5).edits
    assert (edit.layer, edit.place, edit.indices, edit.factor) == (3, "head", (8, 9, 10, 11), 2.5)
    shuffled = contrast(*flipped(RIGHT, WRONG))
    scores = [c.means["head"].reshape(2, HEADS, SIZE).mean(2).max() for c in (found, shuffled)]
    assert scores[1] < 0.4 * scores[0]


def test_the_first_of_equal_scores() -> None:
    assert largest(np.array([[1.0, 2], [2, 1]]), 3) == [(0, 1), (1, 0), (0, 0)]


@pytest.mark.parametrize("name", ["vowel_counting", "antonyms", "varied_copying"])
def test_pairs_have_one_right_and_one_wrong_answer(name: str) -> None:
    task = get_task(name)
    examples = draw(task, split="attribute", shots=3, seed=0, count=12)
    for against in ("wrong", "copied"):
        for example in examples:
            texts = contrast_texts(task, example, against)
            assert texts == contrast_texts(task, example, against)
            if texts is None:
                assert against == "copied"
                assert all(task.matches(y, example.gold) for y in example.answers)
                continue
            right, wrong = (text.removeprefix(example.prompt + example.lead) for text in texts)
            assert right == example.gold and not task.matches(wrong, example.gold)
            if against == "copied":
                assert wrong in example.answers


def test_shuffling_changes_about_half_of_the_pairs_over() -> None:
    examples = draw(get_task("antonyms"), split="attribute", shots=1, seed=0, count=80)
    assert set(signs(examples, False)) == {1.0} and abs(signs(examples, True).sum()) < 30
