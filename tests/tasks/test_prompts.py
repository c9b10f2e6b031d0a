from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelib.errors import UserError
from prunelib.tasks import FORMATS, TASKS, Example, draw, get_task

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
    assert examples == some(name, seed=seed, count=60)[:count]


@given(NAMES, st.integers(0, 3))
def test_more_shots_add_demonstrations_after_the_same_first_ones(name: str, seed: int) -> None:
    for fewer, more in zip(some(name, seed=seed, shots=2), some(name, seed=seed, shots=4),
                           strict=True):
        assert more.query == fewer.query
        assert more.demonstrations[:2] == fewer.demonstrations


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
