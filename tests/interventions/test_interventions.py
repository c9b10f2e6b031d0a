"""Interventions: a kind, a digest and a lossless form, whatever is done to the model."""

from __future__ import annotations

import inspect
import json

import pytest

from prunelib.components import Component
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.base import Intervention
from prunelib.interventions.fine_tuning import FineTuning
from prunelib.interventions.registry import KINDS, intervention_of
from prunelib.interventions.steering import Edit, Steering, packed
from prunelib.recipe.controls import FineTuningSpec

MIXED = Ablation.of([Component(3, "ffn", 0), Component(1, "head", 2), Component(1, "mlp_row", 7)])
TUNING = FineTuning((("a ü->", " b"), ("", "\n")), FineTuningSpec(epochs=1, learning_rate=0.1))
STEERING = Steering.of([Edit(3, "head", (1, 4), factor=0.1),
                        Edit(0, "stream", shift=packed([0.1, -2.5, 1e-30]))], "prompt_end")
ALL: tuple[Intervention, ...] = (BASELINE, Ablation.of_layer(2, [5, 1, 5]), MIXED, TUNING,
                                 STEERING)


@pytest.mark.parametrize("done", ALL, ids=str)
def test_the_form_is_lossless(done: Intervention) -> None:
    again = intervention_of(done.kind, json.loads(json.dumps(done.content())))
    assert again == done and again.digest == done.digest and hash(again) == hash(done)


def test_digests_tell_them_apart() -> None:
    changed = (Ablation.of_layer(2, [1]), Ablation.of_layer(2, [1, 5], "mlp_row"),
               FineTuning(TUNING.samples[::-1], TUNING.settings),
               FineTuning(TUNING.samples, FineTuningSpec(epochs=2, learning_rate=0.1)),
               Steering(STEERING.edits, "answer"), Steering(STEERING.edits[:1], "prompt_end"),
               Steering.of([Edit(3, "head", (1, 4), factor=0.2), STEERING.edits[0]],
                           "prompt_end"))
    assert len({done.digest for done in (*ALL, *changed)}) == len(ALL) + len(changed)


def test_every_kind_is_what_its_line_says() -> None:
    for kind in KINDS:
        made = next(done for done in ALL if done.kind == kind)
        assert not inspect.isabstract(type(made)) and str(made) == f"{kind} {made.digest[:8]}"
    with pytest.raises(UserError, match="kind 'spell' are of another version"):
        intervention_of("spell", {})
