"""Questions with choices of their own: texts whose log-likelihoods are compared.

A choice either follows the prompt that all choices of a question share (HellaSwag), or stands in
the prompt, and the same text follows each (Winogrande).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ChoiceScoring = Literal["likelihood", "likelihood_per_character", "likelihood_per_byte",
                        "greedy_match"]
#: How a question's own choices are scored, and what the measure is called in
#: lm-evaluation-harness.
CHOICE_SCORINGS: dict[ChoiceScoring, str] = {
    "likelihood": "the choice with the highest log-likelihood (acc)",
    "likelihood_per_character": "with the highest log-likelihood divided by the choice's length "
    "in characters (acc_norm)",
    "likelihood_per_byte": "the same with the length in bytes of UTF-8 (acc_bytes)",
    "greedy_match": "right if every token of the one answer is the most probable one (acc of "
    "LAMBADA)",
}


def own_scoring(scoring: str) -> ChoiceScoring | None:
    """A scoring of questions' own choices, if it is one."""
    return next((known for known in CHOICE_SCORINGS if known == scoring), None)


@dataclass(frozen=True)
class Choice:
    """One of a question's own choices.

    Attributes:
        text: the choice, as it is stored.
        query: the question as it is asked for this choice.
        continuation: the text after it whose log-likelihood counts.
        right: whether it is a right one. Several may be (ReCoRD).
    """

    text: str
    query: str
    continuation: str
    right: bool

    def length(self, scoring: ChoiceScoring) -> int:
        """What the log-likelihood is divided by."""
        if scoring == "likelihood_per_character":
            return len(self.continuation)
        if scoring == "likelihood_per_byte":
            return len(self.continuation.encode())
        return 1


#: The choices of one question, in the order of the data.
Choices = tuple[Choice, ...]
