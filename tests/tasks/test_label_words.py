from __future__ import annotations

import pytest

from prunelib.errors import UserError
from prunelib.tasks import (
    SPLITS,
    Task,
    draw_labelled,
    get_task,
    orders,
    relabelled,
    task_names,
)

TASK = relabelled(get_task("upper_or_lower"))


def some(**changes: object) -> list:  # type: ignore[type-arg]
    settings: dict[str, object] = {"split": "report", "counts": (2, 2), "seed": 0, "count": 40}
    return draw_labelled(TASK, **(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", task_names("classification"))
def test_a_bundled_classification_has_two_classes_of_one_size(name: str) -> None:
    task = get_task(name)
    counts = [sum(y == label for _, y in task.pairs) for label in {y for _, y in task.pairs}]
    assert counts == [300, 300]


def test_classes_are_what_they_are_called() -> None:
    for x, y in get_task("upper_or_lower").pairs:
        assert x.isupper() if y == "upper" else x.islower()
    for x, y in get_task("number_or_word").pairs:
        assert x.isdigit() == (y == "number")
    for x, y in get_task("loud_or_quiet").pairs:
        assert x.isupper() == (y == "loud")


def test_two_classes_get_new_labels_and_keep_their_splits() -> None:
    task = get_task("word_category")
    made = relabelled(task, ("x", "y"), classes=("food", "animal"))
    assert made.options == ("x", "y") and "food is called x and animal y" in made.description
    for split in SPLITS:
        known = {x: {"food": "x", "animal": "y"}[y] for x, y in task.split(split)
                 if y in ("food", "animal")}
        assert known and dict(made.split(split)) == known


def test_of_many_classes_the_two_largest_are_kept() -> None:
    pairs = tuple((f"{y}{i}", y) for y, n in (("c", 3), ("a", 9), ("b", 3), ("d", 2))
                  for i in range(n))
    made = relabelled(Task("t", "g", pairs, "t"))
    assert {(x[0], y) for x, y in made.pairs} == {("a", "foo"), ("b", "bar")}


def test_a_data_sets_own_splits_stay_its_own() -> None:
    pairs = tuple((str(i), "abc"[i % 3]) for i in range(30))
    task = Task("t", "dataset", pairs, "t", sizes=(12, 6, 12))
    made = relabelled(task, classes=("b", "c"))
    assert made.sizes == (8, 4, 8)
    assert {x for x, _ in made.split("search")} == {"13", "14", "16", "17"}


def test_prompts_are_written_as_the_paper_prints_them() -> None:
    example = some(count=2)[0]
    (a, _), (b, _), (c, _), (d, _) = example.demonstrations
    assert example.prompt == f"{a} : bar {b} : bar {c} : foo {d} : foo {example.query} :"
    assert [x.isupper() for x in (a, b, c, d)] == [True, True, False, False]  # lower is first
    assert (example.gold == "foo") == example.query.islower()


def test_queries_are_of_both_classes_and_never_demonstrated() -> None:
    examples = some(counts=(3, 3), count=60)
    assert [e.gold for e in examples] == ["foo", "bar"] * 30
    assert all(e.query not in dict(e.demonstrations) for e in examples)
    assert len({e.query for e in examples}) == 60


def test_reversed_prompts_differ_in_nothing_but_the_labels() -> None:
    swap = {"foo": "bar", "bar": "foo"}
    for one, other in zip(some(order="shuffled"), some(order="shuffled", reverse=True),
                          strict=True):
        assert other.demonstrations == tuple((x, swap[y]) for x, y in one.demonstrations)
        assert (other.query, other.gold) == (one.query, swap[one.gold])
        assert other.prompt == one.prompt.replace(": foo", "?").replace(
            ": bar", ": foo").replace("?", ": bar")


def test_one_demonstration_fewer_leaves_the_others() -> None:
    for more, fewer in zip(some(counts=(3, 2)), some(counts=(2, 2)), strict=True):
        assert more.query == fewer.query
        assert more.demonstrations[:-1] == fewer.demonstrations


def test_one_demonstration_fewer_leaves_the_others_in_their_random_order() -> None:
    for more, fewer in zip(some(counts=(3, 4), order="shuffled"),
                           some(counts=(3, 3), order="shuffled"), strict=True):
        left = [pair for pair in more.demonstrations if pair in fewer.demonstrations]
        assert tuple(left) == fewer.demonstrations and len(left) == 6


def test_an_order_is_the_same_permutation_for_all_prompts() -> None:
    for grouped, other in zip(some(), some(order=(3, 0, 2, 1)), strict=True):
        assert other.demonstrations == tuple(grouped.demonstrations[i] for i in (3, 0, 2, 1))
    assert len({tuple(e.answers) for e in some(order="shuffled")}) > 1


def test_orders_begin_with_grouped_and_its_reverse() -> None:
    found = orders(4, 6)
    assert found[:2] == [(0, 1, 2, 3), (3, 2, 1, 0)] and len(set(found)) == 6
    assert sorted(orders(3, 6)) == sorted(set(orders(3, 6, seed=1)))


@pytest.mark.parametrize("act, part", [
    (lambda: relabelled(get_task("varied_copying")), "no two classes"),
    (lambda: relabelled(get_task("word_category"), classes=("food", "x")), "no class 'x'"),
    (lambda: relabelled(get_task("parity"), ("a", "a")), "two different labels"),
    (lambda: draw_labelled(get_task("parity"), split="report", counts=(1, 1), seed=0, count=1),
     "relabelled()"),
    (lambda: some(counts=(2, 17)), "no prompts with 17"),
    (lambda: some(order=(0, 1, 2, 2)), "a permutation of 0 to 3"),
    (lambda: orders(2, 3), "fewer than 3 orders"),
])  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(act: object, part: str) -> None:
    with pytest.raises(UserError, match=part.replace("(", r"\(").replace(")", r"\)")):
        act()  # type: ignore[operator]
