"""Fine-tuning against AdamW written out by hand, and what it must leave alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_families import FAMILIES

from prunelib.engines.base import Prompt
from prunelib.engines.transformers import TransformersEngine
from prunelib.errors import UserError
from prunelib.interventions.ablation import Ablation
from prunelib.interventions.fine_tuning import Sample, fine_tune
from prunelib.models import Loaded, ModelInfo, describe, load
from prunelib.recipe.controls import FineTuningSpec

#: Of different lengths, so that a batch of all is padded.
SAMPLES: list[Sample] = [((1, 20, 21, 22), (30,)), ((1, 25, 26), (31, 32)), ((1, 27), (33,)),
                         ((1, 40, 41, 42, 43, 44), (34, 35))]
IDS = torch.tensor([[1, 20, 21, 22, 23]])


def nll(loaded: Loaded) -> torch.Tensor:
    """Mean negative log-likelihood of all answer tokens; one sample at a time, no padding."""
    losses = []
    for prompt, answer in SAMPLES:
        logits = loaded.model(torch.tensor([[*prompt, *answer]])).logits[0]
        before = logits[len(prompt) - 1 : -1].log_softmax(-1)
        losses += [-before[i, token] for i, token in enumerate(answer)]
    return torch.stack(losses).mean()


def by_hand(info: ModelInfo, steps: int, rate: float) -> tuple[Loaded, list[torch.Tensor]]:
    """AdamW on the whole set, as its paper writes it; and the smallest gradients on the way."""
    loaded = load(info)
    parameters = list(loaded.model.requires_grad_(True).parameters())
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    least = [torch.full_like(p, torch.inf) for p in parameters]
    for t in range(1, steps + 1):
        gradients = torch.autograd.grad(nll(loaded), parameters, allow_unused=True)
        for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            g = torch.zeros_like(p) if g is None else g
            least[i] = torch.minimum(least[i], g.abs())
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            mean, square = first[i] / (1 - 0.9**t), second[i] / (1 - 0.999**t)
            p.data -= rate * mean / (square.sqrt() + 1e-8)
    return loaded, least


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_are_those_of_adamw_by_hand(family: str, families: Callable[[str], ModelInfo]
                                          ) -> None:
    info = families(family)
    settings = FineTuningSpec(epochs=3, learning_rate=1e-3, batch_size=len(SAMPLES))
    tuned = fine_tune(info, SAMPLES, settings)
    base = load(info)
    expected, least = by_hand(info, 3, 1e-3)
    pairs = zip(base.model.parameters(), tuned.model.parameters(), expected.model.parameters(),
                least, strict=True)
    compared = 0
    for old, found, wanted, gradient in pairs:
        # Where a gradient is rounding noise, AdamW makes a whole step of its sign.
        clear = gradient > 1e-4
        compared += int(clear.sum())
        torch.testing.assert_close(found[clear], wanted[clear], rtol=0, atol=2e-5)
        assert not clear.any() or (found - old)[clear].abs().max() > 1e-3
    assert compared > 1000


def test_the_loss_falls_and_an_engine_gives_the_answers(info: ModelInfo) -> None:
    base = load(info)
    tuned = fine_tune(info, SAMPLES, FineTuningSpec(epochs=30, learning_rate=1e-3))
    with torch.no_grad():
        assert nll(tuned) < 0.1 < 1 < nll(base)
    engine = TransformersEngine(tuned)
    prompts = [Prompt(tuple(prompt), len(answer)) for prompt, answer in SAMPLES]
    answers = [completion.token_ids for completion in engine.generate(prompts)]
    assert answers == [answer for _, answer in SAMPLES]
    engine.switch(Ablation.of_layer(0, range(info.width)))
    assert [c.token_ids for c in engine.generate(prompts)] != answers
    engine.close()


def test_settings_that_a_recipe_leaves_out_make_the_loss_fall(info: ModelInfo) -> None:
    with torch.no_grad():
        assert nll(fine_tune(info, SAMPLES, FineTuningSpec())) < nll(load(info))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_epoch_changes_no_bit(family: str, dtype: str, families: Callable[[str], ModelInfo]
                                 ) -> None:
    info = families(family)
    tuned = fine_tune(info, SAMPLES, FineTuningSpec(epochs=0), dtype)
    with torch.no_grad():
        assert torch.equal(tuned.model(IDS).logits, load(info, dtype).model(IDS).logits)
    assert tuned.model.dtype == getattr(torch, dtype)


def test_the_same_settings_give_the_same_weights_and_name(info: ModelInfo) -> None:
    settings = FineTuningSpec(epochs=2, learning_rate=1e-3)
    first, again, other = (fine_tune(info, SAMPLES, s) for s in
                           (settings, settings, settings.model_copy(update={"seed": 1})))
    with torch.no_grad():
        assert torch.equal(first.model(IDS).logits, again.model(IDS).logits)
        assert not torch.equal(first.model(IDS).logits, other.model(IDS).logits)
    assert first.info == again.info
    names = {info.weights_digest, first.info.weights_digest, other.info.weights_digest,
             fine_tune(info, SAMPLES[1:], settings).info.weights_digest}
    assert len(names) == 4


def test_rounding_to_bfloat16_comes_after_training(info: ModelInfo) -> None:
    settings = FineTuningSpec(epochs=5, learning_rate=1e-5)
    exact, rounded = (fine_tune(info, SAMPLES, settings, d) for d in ("float32", "bfloat16"))
    for a, b in zip(exact.model.parameters(), rounded.model.parameters(), strict=True):
        assert torch.equal(a.bfloat16(), b)


def test_the_base_model_stays_as_it_was(info: ModelInfo) -> None:
    base = load(info)
    with torch.no_grad():
        before = base.model(IDS).logits
        tuned = fine_tune(info, SAMPLES, FineTuningSpec(epochs=1, learning_rate=1e-2))
        assert torch.equal(base.model(IDS).logits, before)
        assert torch.equal(load(info).model(IDS).logits, before)
        assert not torch.equal(tuned.model(IDS).logits, before)
    describe.cache_clear()
    assert describe(info.path) == info
    assert not any(p.requires_grad or p.grad is not None for p in tuned.model.parameters())


def test_bad_settings_are_refused(info: ModelInfo) -> None:
    with pytest.raises(UserError, match="at least one sample"):
        fine_tune(info, [], FineTuningSpec())
    for wrong in ({"epochs": -1}, {"learning_rate": 0}, {"batch_size": 0}, {"epoch": 3}):
        with pytest.raises(UserError):
            FineTuningSpec.model_validate(wrong)
