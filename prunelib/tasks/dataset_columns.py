"""Columns that are made of a data set's own before its template is filled in.

A data set whose rows need more than a template names one of these functions in ``prepare``. Each
writes what the task of the same data set in lm-evaluation-harness (0.4.13) writes, so that
log-likelihoods can be compared with published ones.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Columns = dict[str, Any]


@dataclass(frozen=True)
class Preparation:
    """What makes new columns of a row.

    Attributes:
        needs: columns that it reads.
        makes: columns that it adds.
        function: a row → the new columns.
    """

    needs: tuple[str, ...]
    makes: tuple[str, ...]
    function: Callable[[Columns], Columns]


def _hellaswag(row: Columns) -> Columns:
    context = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
    return {"context": _without_brackets(f"{row['activity_label']}: {context}"),
            "continuations": [_without_brackets(ending) for ending in row["endings"]]}


def _without_brackets(text: str) -> str:
    """HellaSwag's text without the marks that WikiHow's pages left in it."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _copa(row: Columns) -> Columns:
    connective = {"cause": "because", "effect": "therefore"}[row["question"]]
    clauses = [choice[:1].lower() + choice[1:] for choice in (row["choice1"], row["choice2"])]
    return {"context": f"{row['premise'].strip()[:-1]} {connective}", "continuations": clauses}


def _winogrande(row: Columns) -> Columns:
    before, _, after = row["sentence"].partition("_")
    return {"before": before, "after": after.strip()}


def _wic(row: Columns) -> Columns:
    return {"marked": row["sentence1"][row["start1"]:row["end1"]]}


def _wsc(row: Columns) -> Columns:
    """The passage with stars around the pronoun, whose place is given in words."""
    text, pronoun = row["text"], row["span2_text"]
    before = " ".join(text.split()[: row["span2_index"]])
    after = text[len(before) + len(pronoun) + 1:]
    passage = f"{before} *{pronoun}*{after}"
    for apart, together in ((" n't", "n't"), (" )", ")"), ("( ", "("), ('" ', '"'), (' "', '"')):
        passage = passage.replace(apart, together)
    return {"passage": re.sub(r" (['.,])", r"\1", passage)}


def _multirc(row: Columns) -> Columns:
    return {"proposed": row["answer"]}


def _record(row: Columns) -> Columns:
    """The article, and the query with each entity in its gap; right are those among the answers."""
    article, *highlights = row["passage"].strip().split("\n@highlight\n")
    lines = "".join(f"  - {highlight}.\n" for highlight in highlights)
    entities = sorted(set(row["entities"]))
    answers = {_plain(answer) for answer in row["answers"]}
    return {"article": f"{article}\n\n{lines}",
            "continuations": [f"  - {row['query']}".replace("@placeholder", entity)
                              for entity in entities],
            "right": [i for i, entity in enumerate(entities) if _plain(entity) in answers]}


def _plain(text: str) -> str:
    """As SQuAD compares answers: lower case, no punctuation, no articles, single blanks."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _lambada(row: Columns) -> Columns:
    passage, _, last_word = row["text"].rpartition(" ")
    return {"passage": passage, "last_word": last_word}


def _mathqa(row: Columns) -> Columns:
    found = re.findall(r"[abcd] \) .*?, |e \) .*?$", row["options"])
    return {"continuations": [choice[4:].rstrip(" ,") for choice in found]}


PREPARATIONS: dict[str, Preparation] = {
    "hellaswag": Preparation(("ctx_a", "ctx_b", "activity_label", "endings"),
                             ("context", "continuations"), _hellaswag),
    "copa": Preparation(("premise", "question", "choice1", "choice2"),
                        ("context", "continuations"), _copa),
    "winogrande": Preparation(("sentence",), ("before", "after"), _winogrande),
    "wic": Preparation(("sentence1", "start1", "end1"), ("marked",), _wic),
    "wsc": Preparation(("text", "span2_index", "span2_text"), ("passage",), _wsc),
    "multirc": Preparation(("answer",), ("proposed",), _multirc),
    "record": Preparation(("passage", "query", "entities", "answers"),
                          ("article", "continuations", "right"), _record),
    "lambada": Preparation(("text",), ("passage", "last_word"), _lambada),
    "mathqa": Preparation(("options",), ("continuations",), _mathqa),
}
