"""Interventions come back from results as what was done, under the digest that they had."""

from __future__ import annotations

import json
from typing import Any

import pytest
from results_folder import Folder

from prunelib.components import Component
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.base import Intervention
from prunelib.interventions.fine_tuning import FineTuning
from prunelib.recipe.controls import FineTuningSpec
from prunelib.results.stored_interventions import find_intervention

NEURONS = Ablation.of_layer(1, [0, 4, 5])
JOINT = Ablation.of([Component(0, "head", 1), Component(2, "ffn", 0), Component(2, "head", 0)])
TUNED = FineTuning((("1+1=", "2"), ("naïve\n“a”->", " b")), FineTuningSpec(epochs=3))


def store(folder: Folder, intervention: Intervention, role: str = "control",
          **changes: Any) -> None:
    row = {"kind": intervention.kind, "content": json.dumps(intervention.content()),
           "site": None, "layer": None, "rate": None, "count": 0}
    folder.intervention(intervention.digest, "m", role, **row | changes)


@pytest.fixture
def stored(folder: Folder) -> Folder:
    folder.add("models", {
        "model": "m", "revision": "local", "weights_digest": "w", "tokenizer_digest": "t",
        "chat_template": None,
        "bos": "auto",
        "model_type": "llama", "layers": 3, "width": 9, "heads": 2, "unit_id": "model",
    })  # fmt: skip
    store(folder, BASELINE, "baseline")
    store(folder, BASELINE, "chosen")
    store(folder, NEURONS, "chosen", site="mlp_hidden", layer=1, rate=0.3, count=3)
    return folder


@pytest.mark.parametrize("intervention", [NEURONS, JOINT, TUNED], ids=["neurons", "joint", "tuned"])
def test_an_intervention_comes_back_with_its_digest(
    stored: Folder, intervention: Intervention
) -> None:
    for some in (JOINT, TUNED):
        store(stored, some)
        store(stored, some, "removal")  # of a second use there is one all the same
    stored.write()
    found = find_intervention(stored.root, "m", intervention.digest[:9])
    assert found.intervention == intervention
    assert found.intervention.digest == intervention.digest
    assert (found.model, found.weights_digest, found.revision) == ("m", "w", None)
    assert (found.recipes, found.spec.id) == ((), "m")


def test_the_untouched_model_is_not_meant(stored: Folder) -> None:
    stored.write()
    with pytest.raises(UserError, match=f"'{BASELINE.digest}' is the untouched model 'm'"):
        find_intervention(stored.root, "m", BASELINE.digest)
    assert find_intervention(stored.root, "m", "").intervention == NEURONS


def test_more_than_one_is_said_with_what_was_chosen(stored: Folder) -> None:
    store(stored, JOINT)
    stored.write()
    with pytest.raises(UserError, match=f"several .* chosen: .*{NEURONS.digest[:12]}"):
        find_intervention(stored.root, "m", "")
    with pytest.raises(UserError, match="has no results of model 'other'"):
        find_intervention(stored.root, "other", "")


@pytest.mark.parametrize(("changes", "message"), [
    ({"kind": "ablation", "content": json.dumps(JOINT.content())}, "is not what its digest says"),
    ({"content": "{"}, "cannot be read"),
    ({"content": "[]"}, "cannot be read"),
    ({"kind": "ablation", "content": '{"layers": [1]}'}, "cannot be read"),
    ({"kind": "fine_tuning", "content": '{"samples": [], "settings": {"epoch": 3}}'},
     "cannot be read"),
    ({"kind": "steering"}, "cannot be read"),
    ({"kind": "sculpting"}, "'sculpting' are of another version"),
])  # fmt: skip
def test_what_is_not_what_was_done_is_refused(
    stored: Folder, changes: dict[str, Any], message: str
) -> None:
    store(stored, TUNED, **changes)
    stored.write()
    with pytest.raises(UserError, match=message) as caught:
        find_intervention(stored.root, "m", TUNED.digest)
    assert "\n" not in str(caught.value)
