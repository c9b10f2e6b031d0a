from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelib.errors import UserError
from prunelib.tasks import FORMATS, TASKS, Example, Task, draw, get_task, numbers

#: Where the query's own pair is among the demonstrations, their rules are others.
USUAL = [name for name in TASKS if not get_task(name).query_in_prompt]
NAMES = st.sampled_from(sorted(USUAL))


def some(name: str = "vowel_counting", **changes: object) -> list[Example]:
    options: dict[str, object] = {"split": "report", "shots": 3, "seed": 0, "count": 40}
    return draw(get_task(name), **(options | changes))  # type: ignore[arg-type]


@given(NAMES, st.integers(0, 100), st.integers(1, 30))
def test_an_example_depends_on_seed_and_id_alone(name: str, seed: int, count: int) -> None:
    random.seed(count)  # no draw may touch the shared generator or depend on it
    state = random.getstate()
    examples = some(name, seed=seed, count=count)
    assert random.getstate() == state
    assert examples == [e for e in some(name, seed=seed, count=60) if e.example < count]


@given(NAMES, st.integers(0, 3))
def test_more_shots_add_demonstrations_after_the_same_first_ones(name: str, seed: int) -> None:
    more = {example.example: example for example in some(name, seed=seed, shots=4)}
    for fewer in some(name, seed=seed, shots=2):
        assert more[fewer.example].query == fewer.query
        assert more[fewer.example].demonstrations[:2] == fewer.demonstrations


def test_seeds_differ() -> None:
    assert [e.prompt for e in some(seed=0)] != [e.prompt for e in some(seed=1)]


@pytest.mark.parametrize("name", USUAL)
def test_demonstrations_are_other_pairs_of_the_same_split(name: str) -> None:
    pairs = set(get_task(name).split("report"))
    for example in some(name, shots=4):
        assert len(set(example.demonstrations)) == 4
        assert set(example.demonstrations) <= pairs - {(example.query, example.gold)}


def test_copying_is_always_wrong_on_vowel_counting() -> None:
    assert all(e.gold not in e.answers for e in some(count=300))
    assert len({e.gold for e in some(count=300)}) == 6


def test_small_tasks_are_covered_evenly() -> None:
    queries = [e.query for e in some("to_upper", count=2 * len(get_task("to_upper")
                                                                .split("report")))]
    assert all(queries.count(q) == 2 for q in queries)


def test_equal_prompts_are_drawn_once_and_keep_their_numbers() -> None:
    pool = {x for x, _ in get_task("to_upper").split("report")}
    bare = some("to_upper", shots=0, count=100)
    assert len(bare) == len(pool) == 11 and {e.query for e in bare} == pool
    one = some("to_upper", shots=1, count=400)
    assert 100 < len({e.prompt for e in one}) == len(one) <= 11 * 10
    # those that are left are the draws that come first: no other prompt moves into their place
    places = [e.example for e in one]
    assert places == sorted(places) and places[:11] == list(range(11)) and places[-1] >= 110
    assert numbers(get_task("to_upper"), split="report", shots=1, seed=0, count=400) == places
    assert numbers(get_task("to_upper"), split="report", shots=0, seed=0, count=400) == [*range(11)]


def test_a_mixture_asks_no_prompt_of_a_part_twice() -> None:
    name = next(name for name in TASKS if get_task(name).parts)
    for shots in (0, 1):
        if shots == 0 and name not in USUAL:
            continue
        drawn = some(name, shots=shots, count=2000)
        assert len({(e.query, e.demonstrations) for e in drawn}) == len(drawn) < 2000
        assert [e.example for e in drawn] == numbers(
            get_task(name), split="report", shots=shots, seed=0, count=2000)


def test_no_query_is_among_its_demonstrations_wherever_its_text_stands() -> None:
    pairs = tuple((f"q{i % 6}", "yes" if i % 2 else "no") for i in range(12))
    task = Task("twice", "dataset", (*pairs, *pairs, *pairs), "", sizes=(12, 12, 12))
    for example in draw(task, split="report", shots=4, seed=0, count=12):
        assert example.query not in [x for x, _ in example.demonstrations]
    with pytest.raises(UserError, match="has 10 pairs for demonstrations"):
        draw(task, split="report", shots=11, seed=0, count=1)


def test_demonstrations_from_another_split_are_all_its_own() -> None:
    task = get_task("en_fr")
    for example in some("en_fr", demonstrations=("attribute", "search")):
        assert set(example.demonstrations) <= {*task.split("attribute"), *task.split("search")}
        assert (example.query, example.gold) in task.split("report")
    assert some("en_fr")[0].demonstrations != some("en_fr", demonstrations=("search",))[0
        ].demonstrations


def test_the_gold_answer_is_kept_out_in_its_normal_form() -> None:
    answers = ["caf\u00e9", "cafe\u0301 ", "CAF\u00c9", "b", "c"]
    pairs = tuple((f"q{i}", y) for i, y in enumerate(answers))
    plain = Task("t", "dataset", pairs, "", gold_not_in_prompt=True, sizes=(0, 0, 5))
    folded = replace(plain, ignore_case=True)
    for task, shown in ((plain, 3), (folded, 2)):
        with pytest.raises(UserError, match=f"has {shown} pairs"):
            draw(task, split="report", shots=4, seed=0, count=1)
        for example in draw(task, split="report", shots=shown, seed=0, count=5):
            assert not any(task.matches(y, example.gold) for y in example.answers)
    assert plain.digest != folded.digest


def test_formats() -> None:
    demos = (("New York", "2"), ("Lyon", "1"))
    assert FORMATS["arrow"].render(demos, "Florida") == "New York->2\nLyon->1\nFlorida->"
    # as printed in the paper's introduction (formulas.md §1.1)
    assert FORMATS["comma"].render(demos, "Florida") == "New York -> 2, Lyon -> 1, Florida ->"
    assert FORMATS["example"].render(demos, "x").splitlines()[-1] == "example:x->"


def test_too_many_shots_are_refused_with_the_numbers() -> None:
    with pytest.raises(UserError, match=r"to_upper.* fewer than shots: 16"):
        some("to_upper", shots=16)
    with pytest.raises(UserError, match="between 0 and 16"):
        some(shots=17)


def test_zero_shots_are_a_bare_query() -> None:
    assert some(shots=0)[0].prompt == some(shots=0)[0].query + "->"
