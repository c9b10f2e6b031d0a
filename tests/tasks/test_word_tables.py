"""The bundled words: their number, their form, and what published files say of the same words."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from prunelib.tasks import SPLITS, SUITES, get_task
from prunelib.tasks.sources.base import table

#: Published files of pairs, which are not part of this project.
SHARED = Path(os.environ.get(
    "PRUNELIB_SHARED_DATA", Path(__file__).parent.parent.parent.parent / "shared" / "data"))
GROUPS = {"translation": 300, "linguistic": 300, "knowledge": 180}
FILES = {"translation": "en", "verbs": "present", "nouns": "singular", "antonyms": "word",
         "country_capital": "country", "person_language": "person",
         "location_continent": "location", "location_religion": "location"}  # fmt: skip
WORDS = [name for name in SUITES["all"] if get_task(name).group in GROUPS]


@pytest.mark.parametrize("name", WORDS)
def test_there_are_as_many_pairs_as_promised(name: str) -> None:
    assert len(get_task(name).pairs) >= GROUPS[get_task(name).group]


@pytest.mark.parametrize("file", FILES)
def test_words_are_written_as_words(file: str) -> None:
    seen = set()
    for row in table(file):
        assert row["reference"] in ("", "yes") and row[FILES[file]] not in seen
        seen.add(row[FILES[file]])
        for column, text in row.items():
            if column == "reference":
                continue
            assert text and text == unicodedata.normalize("NFC", " ".join(text.split())), row
            assert all(c.isalpha() or c in " '-" for c in text), row
            if file in ("translation", "verbs", "nouns", "antonyms"):
                assert text == text.lower(), row
            else:
                assert text[0].isupper(), row


@pytest.mark.parametrize("name", WORDS)
def test_words_of_the_reference_models_are_in_the_same_splits(name: str) -> None:
    whole, known = get_task(name), get_task(f"{name}_reference")
    assert set(known.pairs) < set(whole.pairs)
    for split in SPLITS:
        assert set(known.split(split)) == set(whole.split(split)) & set(known.pairs)


def test_inflections_follow_their_rules() -> None:
    """A regular form is the one that the rules give, else the verb or noun is irregular."""
    for row in table("verbs"):
        verb, gerund = row["present"], row["gerund"]
        stems = {verb, verb + verb[-1], verb.removesuffix("e"), verb.removesuffix("ie") + "y"}
        assert gerund.removesuffix("ing") in stems and gerund.endswith("ing"), row
        assert row["perfect"].startswith("had "), row
        if row["past"].endswith("ed"):
            past = {f"{verb}ed", f"{verb + verb[-1]}ed", f"{verb}d", f"{verb.removesuffix('y')}ied"}
            irregular = ("bleed", "breed", "feed", "flee", "lead", "shed")
            assert row["past"] in past or verb in irregular, row
    assert sum(row["singular"] == row["plural"] for row in table("nouns")) == 0


def answers(file: str) -> dict[str, str]:
    content = json.loads((SHARED / file).read_text("utf-8"))
    if isinstance(content, dict):
        return content
    return {row["input"]: row["output"] for row in content}


def renamed(names: dict[str, str]) -> Callable[[str], str]:
    return lambda answer: names.get(answer, answer)


def same(answer: str) -> str:
    return answer


#: Task, published file, how an answer of ours is called there, and the inputs on which it differs:
#: other spellings, older names, several right answers, or mistakes in the file.
COMPARED: list[tuple[str, str, Callable[[str], str], set[str]]] = [
    ("country_capital", "icl_task_vectors/knowledge/country_capital.json", same, set()),
    ("country_capital", "function_vectors/country-capital.json", same, {
        "Ukraine", "Antigua and Barbuda", "Bolivia", "Burundi", "Cameroon", "Djibouti", "Grenada",
        "Kiribati", "Luxembourg", "Monaco", "Nauru", "Sao Tome and Principe", "Togo", "Tonga",
        "Yemen"}),
    ("location_continent", "icl_task_vectors/knowledge/location_continent.json", same,
     {"Aconcagua"}),
    ("location_religion", "icl_task_vectors/knowledge/location_religion.json",
     renamed({"Islam": "Muslim", "Christianity": "Christian", "Judaism": "Jewish"}), set()),
    ("person_language", "icl_task_vectors/knowledge/person_language.json", same, set()),
    ("singular_plural", "icl_task_vectors/linguistic/singular_plural.json", same, set()),
    ("singular_plural", "function_vectors/singular-plural.json", same, set()),
    ("plural_singular", "icl_task_vectors/linguistic/plural_singular.json", same, set()),
    ("present_past", "function_vectors/present-past.json", same, set()),
    ("present_past", "icl_task_vectors/linguistic/present_simple_past_simple.json", same, {
        "spin", "clap", "grab", "stay", "drag", "employ", "jog", "regret", "rub", "wrap", "hang"}),
    ("present_gerund", "icl_task_vectors/linguistic/present_simple_gerund.json", same, {
        "clap", "grab", "drag", "jog", "level", "regret", "rub"}),
    ("present_past_perfect", "icl_task_vectors/linguistic/present_simple_past_perfect.json",
     lambda answer: answer.removeprefix("had "), {
         "take", "hold", "break", "speak", "freeze", "lose", "hide", "help", "work", "wash", "stay",
         "reach", "load", "wrap", "rise", "weave"}),
    ("antonyms", "icl_task_vectors/linguistic/antonyms.json", same, {"full", "give", "thin"}),
    ("antonyms", "function_vectors/antonym.json", same, {
        "hot", "happy", "cold", "small", "end"}),
]  # fmt: skip


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published files are not here "
                    "(PRUNELIB_SHARED_DATA or ../shared/data)")
@pytest.mark.parametrize(("name", "file", "called", "known"), COMPARED,
                         ids=[f"{name} {file}" for name, file, _, _ in COMPARED])
def test_published_files_agree_but_where_it_was_looked_at(
    name: str, file: str, called: Callable[[str], str], known: set[str]
) -> None:
    theirs = answers(file)
    ours = {x: y for x, y in get_task(name).pairs if x in theirs}
    assert ours
    assert {x: (y, theirs[x]) for x, y in ours.items() if called(y) != theirs[x]
            and x not in known} == {}
    assert all(called(ours[x]) != theirs[x] for x in known), "this list has more than it needs"
