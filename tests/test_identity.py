from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelib.components import Component
from prunelib.errors import unknown_name
from prunelib.identity import digest, seed_of
from prunelib.interventions.ablation import BASELINE, Ablation

KEYS = st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.booleans())


@given(KEYS)
def test_digest_ignores_the_order_of_keys(content: dict[str, object]) -> None:
    backwards = dict(reversed(list(content.items())))
    assert digest("test", content) == digest("test", backwards)


def test_digest_separates_kinds_and_contents() -> None:
    assert digest("a", [1, 2]) != digest("b", [1, 2])
    assert digest("a", [1, 2]) != digest("a", [2, 1])
    assert digest("a", [12]) != digest("a", [1, 2])
    # Written down once: ids in existing results must not change without anyone noticing.
    assert digest("unit", ["x", 1]) == "916f54573fc184df8cb19cbf914b5211"


def test_digest_refuses_what_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest("test", float("nan"))


def test_seeds_do_not_depend_on_how_parts_run_together() -> None:
    assert seed_of("ab", "c") != seed_of("a", "bc")


COMPONENTS = st.lists(
    st.builds(Component, st.integers(0, 3), st.just("mlp_hidden"), st.integers(0, 9))
)


@given(COMPONENTS, st.randoms())
def test_an_ablation_is_a_set(components: list[Component], rng: object) -> None:
    shuffled = list(components)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    ablation = Ablation.of(components)
    assert ablation == Ablation.of(shuffled + components)
    assert ablation.digest == Ablation.of(shuffled).digest
    assert len(ablation) == len(set(components))
    layers = ablation.by_layer("mlp_hidden")
    assert {(layer, i) for layer, some in layers.items() for i in some} == {
        (c.layer, c.index) for c in components
    }


def test_different_ablations_have_different_digests() -> None:
    digests = {a.digest for a in (BASELINE, Ablation.of_layer(0, [1]), Ablation.of_layer(1, [1]),
                                  Ablation.of_layer(0, [1, 2]), Ablation.of_layer(0, [2]))}
    assert len(digests) == 5


def test_an_unknown_name_suggests_the_nearest() -> None:
    error = unknown_name("task", "vowel_countin", ["vowel_counting", "antonyms"])
    assert str(error) == "unknown task 'vowel_countin': did you mean vowel_counting?"
    assert "known: a, b" in str(unknown_name("task", "zzz", ["b", "a"]))
