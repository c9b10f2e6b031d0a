"""The closed vocabularies of the tables: the words that a column may hold, and what they mean.

A word is added here first: the tables refuse any other, and describe the column by these lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

Word = TypeVar("Word", bound=str)

Stage = Literal["start", "attribute", "search", "canary", "evaluate", "model"]
STAGES: dict[Stage, str] = {
    "start": "a model is asked about the start token that its tokenizer leaves out",
    "attribute": "components are scored",
    "search": "ablations are tried, to choose one",
    "canary": "what proves that an intervention is live is computed",
    "evaluate": "models answer prompts that are reported",
    "model": "a model is found and compared with the recipe; only of models that cannot be used",
}

Role = Literal[
    "baseline", "grid", "chosen", "control", "component", "removal", "in_context",
    "in_context_first", "in_context_second", "in_context_random",
]  # fmt: skip
ROLES: dict[Role, str] = {
    "baseline": "the untouched model",
    "grid": "a cell of the search",
    "chosen": "what the search chose, or the user gave",
    "control": "what the choice is compared with",
    "component": "a head or FFN alone",
    "removal": "several heads or FFNs, the next ones in an order",
    "in_context": "the in-context heads of both labels",
    "in_context_first": "those of the first label",
    "in_context_second": "those of the second label",
    "in_context_random": "as many other heads, drawn at random",
}

Purpose = Literal[
    "pool", "search", "importance", "report", "capability", "in_context", "left_out",
]  # fmt: skip
PURPOSES: dict[Purpose, str] = {
    "pool": "prompts to attribute are chosen by these answers",
    "search": "the search chooses by them",
    "importance": "accuracy without a component, by which components are ranked",
    "report": "reported accuracy on tasks",
    "capability": "multiple-choice questions on what else a model can do",
    "in_context": "prompts with two new labels",
    "left_out": "none: prompts of an attribution, a search or a study of heads that the model "
                "cannot be asked, each with its error",
}

Split = Literal["attribute", "search", "report"]
#: In the order in which a task is divided into them.
SPLITS: dict[Split, str] = {
    "attribute": "components are scored on it",
    "search": "ablations are chosen on it",
    "report": "results are reported on it",
}

Scoring = Literal["greedy", "options", "likelihood", "likelihood_per_character",
                  "likelihood_per_byte", "greedy_match"]
SCORINGS: dict[Scoring, str] = {
    "greedy": "what the model writes, token by token the most probable one",
    "options": "the most probable of the task's answers",
    "likelihood": "of the question's own choices the one with the highest log-likelihood",
    "likelihood_per_character": "the same, divided by the choice's length in characters",
    "likelihood_per_byte": "the same, divided by its length in bytes",
    "greedy_match": "right if every token of the right answer is the most probable one",
}

RunStatus = Literal["running", "done", "failed", "interrupted", "deadline"]
RUN_STATUSES: dict[RunStatus, str] = {
    "running": "at work, or killed: see heartbeat",
    "done": "every unit is done",
    "failed": "a unit failed for good",
    "interrupted": "stopped by a signal or an error",
    "deadline": "time was up",
}

AttemptStatus = Literal["done", "failed"]
ATTEMPT_STATUSES: dict[AttemptStatus, str] = {
    "done": "the unit's rows are there",
    "failed": "the attempt ended in an error",
}

ReferenceMethod = Literal["none", "random", "random_search", "fine_tuning"]
REFERENCE_METHODS: dict[ReferenceMethod, str] = {
    "none": "the untouched model",
    "random": "random components of the same layer, site and size",
    "random_search": "the same search with a random ranking",
    "fine_tuning": "fine-tuning on the samples that were attributed",
}


def described(words: Mapping[Word, str], *only: Word) -> str:
    """Words with their meanings, on one line; of all of them, or of ``only`` some."""
    return "; ".join(f"{word}: {words[word]}" for word in only or words)
