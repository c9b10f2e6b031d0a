"""One prompt explained: its tokens' scores in the untouched model and under an intervention."""

from __future__ import annotations

from dataclasses import dataclass

from prunelib.attribution.token_attribution import (
    Origin,
    Target,
    TokenScores,
    predicted,
    token_scores,
)
from prunelib.interventions.base import Intervention
from prunelib.models import Loaded
from prunelib.tasks.tokenization import continuation, token_ids


@dataclass(frozen=True)
class View:
    """A prompt as one model sees it: the next token, and the tokens' scores."""

    name: str
    prediction: str
    found: TokenScores


@dataclass(frozen=True)
class Explanation:
    """What is explained, the prompt's tokens as text, and one view per model.

    Attributes:
        subject: the scalar F, in words.
        tokens: text of each token of the prompt.
        views: ``before``, and ``after`` if there is an intervention.
    """

    subject: str
    tokens: tuple[str, ...]
    views: tuple[View, ...]


def explain_prompt(
    loaded: Loaded,
    prompt: str,
    intervention: Intervention | None = None,
    answer: str | None = None,
    origin: Origin = "padding",
    templated: bool = False,
) -> Explanation:
    """Explain the next token of a prompt before and after an intervention.

    F is the logit of the untouched model's own prediction or, with ``answer``, the probability
    of the first token of that answer: the same scalar before and after. ``templated``: a chat
    template wrote the prompt, and with it all special tokens.

    Raises:
        UserError: the intervention cannot be done to this model.
        UnitError: the tokenizer merges the answer with the prompt's end.
    """
    ids = token_ids(prompt, loaded.tokenizer, templated)

    def text(token: int) -> str:
        return str(loaded.tokenizer.decode([token]))

    if answer is None:
        target = Target(predicted(loaded, ids))
        subject = f"logit of {text(target.token)!r}, which the untouched model predicts"
    else:
        target = Target(continuation(prompt, answer, loaded.tokenizer, templated)[0],
                        "probability")
        subject = f"probability of {text(target.token)!r}"
        subject += "" if text(target.token) == answer else f", the first token of {answer!r}"

    def view(name: str, model: Loaded) -> View:
        return View(name, text(predicted(model, ids)), token_scores(model, ids, target, origin))

    views = [view("before", loaded)]
    if intervention is not None:
        intervention.check(loaded.info)
        with intervention.applied(loaded) as changed:
            views.append(view("after", changed))
    return Explanation(subject, tuple(text(token) for token in ids), tuple(views))
