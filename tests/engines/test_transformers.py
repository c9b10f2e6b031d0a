"""What is particular to the transformers engine."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from tiny_llama import random_prompts

from prunelib.engines import transformers as module
from prunelib.engines.base import Canary, Prompt
from prunelib.engines.transformers import TransformersEngine
from prunelib.errors import EngineDeadError
from prunelib.interventions import fine_tuning
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.fine_tuning import FineTuning
from prunelib.models import Loaded, ModelInfo, load
from prunelib.recipe.controls import FineTuningSpec

PROMPT = random_prompts(1, 20, 20)[0]


def hooks(loaded: Loaded) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in loaded.model.modules())


def test_no_hook_survives_closing(info: ModelInfo) -> None:
    engine = TransformersEngine(info)
    clean = hooks(load(info))
    engine.switch(Ablation.of_layer(0, [1, 2]))
    assert hooks(engine._loaded) > clean
    with pytest.raises(EngineDeadError):
        engine.switch(Ablation.of_layer(1, [3]), Canary(PROMPT, (5,), (0.0,)))
    engine.close()
    assert hooks(engine._loaded) == clean
    with pytest.raises(EngineDeadError, match="closed"):
        engine.generate([Prompt(PROMPT, 3)])


def test_after_a_switch_that_failed_only_another_one_helps(
    info: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, clean = TransformersEngine(info), hooks(load(info))
    untouched = engine.generate([Prompt(PROMPT, 3)])
    engine.switch(Ablation.of_layer(0, [1, 2]))

    def out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    tuning = FineTuning((("a b", " c"),), FineTuningSpec(epochs=0))
    with monkeypatch.context() as patched:
        patched.setattr(FineTuning, "_tuned", out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            engine.switch(tuning)
    assert hooks(engine._base) == clean
    with pytest.raises(EngineDeadError, match="its last switch failed"):
        engine.generate([Prompt(PROMPT, 3)])
    engine.switch(BASELINE)
    assert engine.generate([Prompt(PROMPT, 3)]) == untouched


def test_a_model_is_trained_once_until_the_engine_is_closed_or_trains_another(
    info: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units of a fine-tuned model and of the untouched one beside it come in turn."""
    trained = []
    monkeypatch.setattr(fine_tuning, "_train", lambda *given: trained.append(given[0]))
    engine = TransformersEngine(info)
    tunings = [FineTuning((("a b", answer),), FineTuningSpec(epochs=1)) for answer in (" c", " d")]
    engine.switch(tunings[0])
    tuned = weakref.ref(engine._loaded.model)
    for _ in range(2):
        engine.switch(BASELINE)
        assert engine._loaded is engine._base
        engine.switch(tunings[0])
        assert engine._loaded.model is tuned()
    assert len(trained) == 1
    engine.switch(tunings[1])
    assert len(trained) == 2 and engine._loaded.model is not tuned()
    last = weakref.ref(engine._loaded.model)
    engine.close()
    trained.clear()
    gc.collect()
    assert tuned() is None and last() is None


def test_batches_keep_to_the_token_budget(info: ModelInfo) -> None:
    engine = TransformersEngine(info)
    prompts = [Prompt(p, 4) for p in random_prompts(20, 3, 90)]
    whole = engine.generate(prompts)
    engine.batch_tokens = 200
    sizes = {i: (len(p.token_ids), p.max_tokens) for i, p in enumerate(prompts)}
    batches = list(module._batches(sizes, 200))
    assert sorted(i for batch in batches for i in batch) == list(range(20))
    assert len(batches) > 2
    for batch in batches:
        assert max(sum(sizes[i]) for i in batch) * len(batch) <= 200 or len(batch) == 1
    assert engine.generate(prompts) == whole
    engine.close()


def test_a_checkpoints_own_generation_settings_are_ignored(info: ModelInfo) -> None:
    engine = TransformersEngine(info)
    plain = engine.generate([Prompt(PROMPT, 8)])
    assert engine._loaded.model.generation_config.eos_token_id is None
    assert engine.generate([Prompt(PROMPT, 8)]) == plain
    engine.close()
