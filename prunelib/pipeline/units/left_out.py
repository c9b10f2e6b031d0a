"""Prompts that a model cannot be asked: each is left out with a row that says why.

What stops a prompt is seen in its tokens, so the driver leaves it out before anything is spent, and
no unit fails for it. Reported answers need none of this: there the row of an example holds its
error.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from prunelib.engines.base import Completion, Prompt
from prunelib.engines.limits import model_limits, prompt_error
from prunelib.errors import UnitError, UserError
from prunelib.heads.labelled import encode_labelled
from prunelib.interventions.ablation import BASELINE
from prunelib.models import ModelInfo
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import LabelledPromptsRef, PromptsRef, tokenized
from prunelib.pipeline.units.rows import prediction_rows
from prunelib.tasks import Example, Task, Written, own_scoring
from prunelib.tasks.tokenization import answer_tokens
from prunelib.vocabulary import Scoring

#: Share of the prompts that a stage asks for without which it does not begin.
_NEEDED = 0.5


def usable(run: ModelRun, asked: PromptsRef, scoring: Scoring = "greedy") -> PromptsRef:
    """Those prompts that a model can be asked and whose answers have tokens of their own.

    The others get a row in ``predictions``, with purpose ``left_out`` and their error.

    Raises:
        UserError: they are more than half.
    """
    if own_scoring(scoring) is not None:  # a question that cannot be scored has an error by itself
        return asked
    errors = _errors(run.info, asked, scoring == "options")
    if not errors:
        return asked
    task, examples = asked.draw()
    _record(run, task, asked.format, [(example, error) for example, error in zip(
        examples, map(errors.get, asked.indices), strict=True) if error is not None], scoring)
    kept = tuple(i for i in asked.indices if i not in errors)
    _enough(task, len(kept), len(asked.indices), next(iter(errors.values())))
    return replace(asked, indices=kept)


def usable_labelled(run: ModelRun, asked: LabelledPromptsRef) -> LabelledPromptsRef:
    """The same of prompts with two new labels, whichever label stands for which class."""
    errors = _labelled_errors(run.info, asked)
    if not errors:
        return asked
    task, drawn = asked.relabelled, asked.draw()
    _record(run, task, asked.format, [
        (example, error) for example in drawn
        if (error := errors.get((example.seed, example.example))) is not None], "options")
    _enough(task, len(drawn) - len(errors), len(drawn), next(iter(errors.values())))
    return replace(asked, left_out=tuple(sorted({*asked.left_out, *errors})))


@functools.cache
def _errors(info: ModelInfo, asked: PromptsRef, options: bool) -> dict[int, str]:
    """Draw → what keeps it from being asked, or its answers (and options) from being compared."""
    tokenizer, limits = load_tokenizer(info), model_limits(info)
    task, examples = asked.draw()
    found: dict[int, str] = {}
    for example, prompt in zip(examples, tokenized(task, examples, tokenizer), strict=True):
        try:
            error = prompt_error(prompt, *limits)
            gold = (example.gold,) if example.gold else ()
            answer_tokens(example, (*gold, *example.answers, *(task.options if options else ())),
                          tokenizer)
        except UnitError as caught:
            error = error or str(caught)
        if error is not None:
            found[example.example] = error
    return found


@functools.cache
def _labelled_errors(info: ModelInfo, asked: LabelledPromptsRef) -> dict[tuple[int, int], str]:
    """Seed and number of a prompt → what keeps it from being asked, in either order of labels."""
    task, tokenizer, limits = asked.relabelled, load_tokenizer(info), model_limits(info)
    found: dict[tuple[int, int], str] = {}
    for example in [*asked.draw(), *asked.draw(reverse=True)]:
        try:
            (prompt,) = encode_labelled(task, [example], tokenizer)
            error = prompt_error(Prompt(prompt.ids, 1), *limits)
        except UnitError as caught:
            error = str(caught)
        if error is not None:
            found.setdefault((example.seed, example.example), error)
    return found


def _record(run: ModelRun, task: Task, written: Written, some: Sequence[tuple[Example, str]],
            scoring: Scoring) -> None:
    examples = [example for example, _ in some]
    run.record("predictions", prediction_rows(
        run.info.id, "", task, "transformers", written, 0, BASELINE.digest, "left_out", examples,
        tokenized(task, examples, load_tokenizer(run.info)),
        [Completion((), "", error) for _, error in some], scoring), "left-out")


def _enough(task: Task, kept: int, asked: int, error: str) -> None:
    if kept < _NEEDED * asked:
        why = error.partition(" '")[0]  # answers are not for logs
        raise UserError(f"task '{task.name}': of {asked} prompts the model can be asked {kept}, "
                        f"fewer than half; one of the others: {why}")
