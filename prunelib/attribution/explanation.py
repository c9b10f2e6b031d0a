"""One prompt explained: its tokens' scores in the untouched model and under an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunelib.attribution.token_attribution import (
    Origin,
    Target,
    TokenScores,
    predicted,
    token_scores,
)
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import Loaded
from prunelib.tasks.tokenization import continuation


@dataclass(frozen=True)
class View:
    """A prompt as a model under one ablation sees it: the next token, and the tokens' scores."""

    name: str
    prediction: str
    found: TokenScores


@dataclass(frozen=True)
class Explanation:
    """What is explained, the prompt's tokens as text, and one view per model.

    Attributes:
        subject: the scalar F, in words.
        tokens: text of each token of the prompt.
        views: ``before``, and ``after`` if there is an ablation.
    """

    subject: str
    tokens: tuple[str, ...]
    views: tuple[View, ...]


def explain_prompt(
    loaded: Loaded,
    prompt: str,
    ablation: Ablation | None = None,
    answer: str | None = None,
    origin: Origin = "padding",
) -> Explanation:
    """Explain the next token of a prompt before and after an ablation.

    F is the logit of the untouched model's own prediction or, with ``answer``, the probability
    of the first token of that answer: the same scalar before and after.

    Raises:
        UserError: a component of the ablation is not in this model.
        UnitError: the tokenizer merges the answer with the prompt's end.
    """
    ids: Sequence[int] = loaded.tokenizer(prompt)["input_ids"]

    def text(token: int) -> str:
        return str(loaded.tokenizer.decode([token]))

    if answer is None:
        target = Target(predicted(loaded, ids))
        subject = f"logit of {text(target.token)!r}, which the untouched model predicts"
    else:
        target = Target(continuation(prompt, answer, loaded.tokenizer)[0], "probability")
        subject = f"probability of {text(target.token)!r}"
        subject += "" if text(target.token) == answer else f", the first token of {answer!r}"
    shown = {"before": BASELINE} | ({} if ablation is None else {"after": ablation})
    views = [View(name, text(predicted(loaded, ids, live)),
                  token_scores(loaded, ids, target, live, origin))
             for name, live in shown.items()]
    return Explanation(subject, tuple(text(token) for token in ids), tuple(views))
