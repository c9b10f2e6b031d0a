"""Every word of a vocabulary has a meaning, and there are no others."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from prunelib import vocabulary


@pytest.mark.parametrize(("words", "meanings"), [
    (vocabulary.Stage, vocabulary.STAGES),
    (vocabulary.Role, vocabulary.ROLES),
    (vocabulary.Purpose, vocabulary.PURPOSES),
    (vocabulary.RunStatus, vocabulary.RUN_STATUSES),
    (vocabulary.AttemptStatus, vocabulary.ATTEMPT_STATUSES),
    (vocabulary.ReferenceMethod, vocabulary.REFERENCE_METHODS),
])  # fmt: skip
def test_every_word_has_a_meaning_of_one_line(words: Any, meanings: dict[str, str]) -> None:
    assert get_args(words) == tuple(meanings)
    assert all(text and text == " ".join(text.split()) for text in meanings.values())


def test_descriptions_name_the_words_asked_for() -> None:
    words = {"a": "the first", "b": "the second"}
    assert vocabulary.described(words) == "a: the first; b: the second"
    assert vocabulary.described(words, "b") == "b: the second"
