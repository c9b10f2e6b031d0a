"""Proxies, tasks out of distribution and the multiple-choice set."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from prunelib.errors import UserError
from prunelib.identity import digest
from prunelib.models import describe
from prunelib.models.loading import load_tokenizer
from prunelib.reference.corpus import alphabet, vocabulary
from prunelib.tasks import SPLITS, SUITES, TASKS, draw, get_task, task_names

#: Of all pairs on which the shipped models were trained, in their order.
TRAINED = "78128bfebab8b44c147e970d80d53a4d"
NEW = ("proxies", "ood", "capability", "classification")


def test_what_reference_models_are_trained_on_has_not_changed() -> None:
    trained = task_names("reference")
    assert len(trained) == len(task_names("all")) == 28
    fresh = {*task_names(NEW)} - {"vowel_counting"}
    assert not fresh & {*trained, *task_names("all")}
    assert {*fresh, *trained, *task_names("all")} == set(TASKS)
    pairs = [get_task(name).pairs for name in trained]
    assert digest("pairs", [[list(pair) for pair in some] for some in pairs]) == TRAINED
    shipped = load_tokenizer(describe("reference/llama")).get_vocab()
    assert shipped == vocabulary()


@pytest.mark.parametrize("name", task_names(NEW))
def test_reference_models_can_read_it(name: str) -> None:
    text = "".join(x + y for x, y in get_task(name).pairs)
    assert set(text) <= set(alphabet())


@pytest.mark.parametrize("name", [n for n in SUITES["proxies"] if n != "random_associations"])
def test_whatever_is_copied_from_a_proxy_is_wrong(name: str) -> None:
    task = get_task(name)
    for split in SPLITS:
        examples = draw(task, split=split, shots=3, seed=0, count=60)
        assert all(e.gold not in e.answers for e in examples)
        assert len({e.gold for e in examples}) >= 3


@pytest.mark.parametrize("name", [n for n in TASKS if get_task(n).origin])
def test_what_is_reported_elsewhere_was_not_seen_by_a_proxy(name: str) -> None:
    task = get_task(name)
    origin = get_task(task.origin)
    seen = {x for split in ("attribute", "search") for x, _ in task.split(split)}
    reported = {x for x, _ in origin.split("report")}
    assert seen and not seen & reported
    assert {x for x, _ in task.pairs} & {x for x, _ in origin.pairs}
    assert task.digest != origin.digest


def test_an_association_stands_once_among_others_at_any_place() -> None:
    task = get_task("random_associations")
    places: Counter[int] = Counter()
    for example in draw(task, split="report", shots=4, seed=0, count=400):
        assert len({x for x, _ in example.demonstrations}) == 4
        assert example.demonstrations.count((example.query, example.gold)) == 1
        places[example.demonstrations.index((example.query, example.gold))] += 1
    assert sorted(places) == [0, 1, 2, 3] and min(places.values()) > 70
    with pytest.raises(UserError, match="shots: 1 or more"):
        draw(task, split="report", shots=0, seed=0, count=1)
    assert draw(task, split="report", shots=4, seed=0, count=9) == draw(
        task, split="report", shots=4, seed=0, count=400)[:9]


def test_new_tasks_give_what_they_promise() -> None:
    for x, y in get_task("consonant_counting").pairs:
        assert y == str(sum(c not in "aeiou" for c in x.lower()))
    for name, index in (("first_letter", 0), ("last_letter", -1)):
        assert all(x[index] == y for x, y in get_task(name).pairs)
    assert all(x.split(",")[1] == y for x, y in get_task("list_second").pairs)
    assert all(int(x) + 1 == int(y) for x, y in get_task("successor").pairs)
    assert all((int(x) % 2 == 0) == (y == "even") for x, y in get_task("parity").pairs)
    after = dict(get_task("letter_after_next").pairs)
    assert (after["a"], after["y"], after["z"]) == ("c", "a", "b")
    for name, answer in (("list_first_long", lambda items: items[0]), ("list_max_long", max),
                         ("list_last_long", lambda items: items[-1]),
                         ("list_first_digit", lambda items: items[0])):
        assert all(answer(x.split(",")) == y for x, y in get_task(name).pairs)
        assert {len(x.split(",")) for x, _ in get_task(name).pairs} in ({5, 6}, {2, 3, 4})
    new, known = get_task("vowel_counting_new").pairs, dict(get_task("vowel_counting").pairs)
    assert all(x not in known and y == str(sum(c in "aeiou" for c in x)) for x, y in new)
    assert dict(get_task("list_max_unseen").pairs) == dict(get_task("list_max").pairs)
    sizes = Counter(y for _, y in get_task("word_category").pairs)
    assert len(sizes) == 10 and set(sizes.values()) == {20}


def test_questions_have_four_different_choices_and_the_letter_of_the_right_one() -> None:
    task = get_task("general_knowledge")
    known = {
        "capital": dict(get_task("country_capital").pairs),
        "continent": dict(get_task("location_continent").pairs),
        "word": dict(get_task("fr_en").pairs),
    }
    for x, y in task.pairs:
        question, *lines, end = x.split("\n")
        choices = {line[0]: line[3:] for line in lines}
        assert end == "Answer:" and list(choices) == list("ABCD") and len({*choices.values()}) == 4
        subject = question.split(" of " if " of " in question else " for ", 1)[1]
        kind = next(k for k in known if f" {k} " in question)
        assert choices[y] == known[kind][subject]
    assert task.options == ("A", "B", "C", "D")
    counts = Counter(y for _, y in task.pairs)
    assert min(counts.values()) > 60, "a letter alone says little"
    assert draw(task, split="report", shots=1, seed=0, count=1)[0].prompt.count("Answer: ") == 1


def test_a_mixture_takes_its_parts_prompts_in_turn() -> None:
    mixture = get_task("varied_copying")
    found = draw(mixture, split="search", shots=3, seed=2, count=12)
    assert [e.example for e in found] == list(range(12))
    assert {e.task for e in found} == {"varied_copying"}
    for i, example in enumerate(found):
        part = mixture.parts[i % 5]
        own = draw(part, split="search", shots=3, seed=2, count=3)[i // 5]
        assert (own.prompt, own.gold, own.demonstrations) == (
            example.prompt, example.gold, example.demonstrations)
        assert example.gold not in example.answers
        assert (example.query, example.gold) in mixture.split("search")
    assert found[:5] == draw(mixture, split="search", shots=3, seed=2, count=5)
    other = dataclasses.replace(mixture, parts=mixture.parts[:2])
    assert other.digest != mixture.digest
    with pytest.raises(UserError, match="to_upper_unseen"):
        mixture.check("search", 16)


def test_tasks_are_mixed_by_their_names() -> None:
    mixed = get_task("list_first_unseen+to_upper")
    found = draw(mixed, split="search", shots=2, seed=0, count=8)
    parts = [draw(get_task(name), split="search", shots=2, seed=0, count=4)
             for name in ("list_first_unseen", "to_upper")]
    assert [e.prompt for e in found] == [parts[i % 2][i // 2].prompt for i in range(8)]
    assert {e.task for e in found} == {mixed.name}
    with pytest.raises(UserError, match=r"to_uper.*to_upper"):
        get_task("list_first_unseen+to_uper")
