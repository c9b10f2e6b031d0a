"""Steering against passes without a cache, and on models in which one direction decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES
from tiny_llama import random_prompts
from transformers import LlamaConfig, LlamaForCausalLM

from prunelib.engines.base import Canary, Prompt
from prunelib.engines.multiple_choice import choose_options
from prunelib.engines.transformers import TransformersEngine
from prunelib.errors import EngineDeadError, UserError
from prunelib.interventions.ablation import BASELINE
from prunelib.interventions.caa import caa
from prunelib.interventions.contrast import Contrast, differences, last_values, places_of
from prunelib.interventions.steering import (
    Edit,
    Place,
    Scope,
    Steering,
    module_of,
    packed,
    place_width,
)
from prunelib.models import Loaded, ModelInfo, describe, load
from prunelib.reference.corpus import vocabulary
from prunelib.reference.tokenizer import build_tokenizer

TOKENS = 4
PROMPTS = random_prompts(5, 3, 20)
CANDIDATES = tuple(range(4, 20))
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, families: Callable[[str], ModelInfo]) -> Loaded:
    torch.set_num_threads(1)
    return load(families(request.param))


def steerings(info: ModelInfo) -> dict[str, Steering]:
    """Every place with a shift of some dimensions, and with a factor; and all of them at once."""
    found = {}
    for place in places_of(info):
        some = tuple(range(1, place_width(info, place), 3))
        shift = packed(np.random.default_rng(0).normal(size=len(some)) * 3)
        found[f"{place} shifted"] = Steering.of([Edit(1, place, some, shift)])
        found[f"{place} scaled"] = Steering.of([Edit(0, place, some, factor=-4)], "prompt_end")
    edits = [edit for steering in found.values() for edit in steering.edits]
    scopes: tuple[Scope, ...] = ("answer", "prompt_end")
    return found | {f"all, {scope}": Steering.of(edits, scope) for scope in scopes}


@contextmanager
def by_hand(loaded: Loaded, steering: Steering, ends: Sequence[int]) -> Iterator[None]:
    """The same within a pass of whole, unpadded texts, one row a pass."""
    (end,) = ends
    handles = []

    def change(edit: Edit, values: torch.Tensor) -> torch.Tensor:
        width = values.shape[-1]
        kept = values.reshape(-1, width).clone()  # one row
        places = range(end, end + 1 if steering.scope == "prompt_end" else len(kept))
        for position in places:
            for i, index in enumerate(edit.indices):
                kept[position, index] *= edit.factor
                if edit.shift:
                    kept[position, index] += float(edit.shifts[i])
        return kept.reshape(values.shape)

    for edit in steering.edits:
        path, enters = module_of(loaded.adapter, edit.place)
        module = loaded.adapter.layers(loaded.model)[edit.layer].get_submodule(path)
        if enters:
            handles.append(module.register_forward_pre_hook(
                lambda _, args, edit=edit: (change(edit, args[0]), *args[1:])))
        else:
            handles.append(module.register_forward_hook(
                lambda _, __, out, edit=edit: (change(edit, out[0]), *out[1:])
                if isinstance(out, tuple) else change(edit, out)))
    yield
    for handle in handles:
        handle.remove()


@torch.no_grad()
def logits(loaded: Loaded, steering: Steering, ids: Sequence[int], end: int) -> torch.Tensor:
    """Of every position, ``[positions, vocabulary]``."""
    with by_hand(loaded, steering, [end]):
        found: torch.Tensor = loaded.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
    return found


def greedy(loaded: Loaded, steering: Steering, prompt: Sequence[int]) -> list[int]:
    ids = list(prompt)
    for _ in range(TOKENS):
        ids.append(int(logits(loaded, steering, ids, len(prompt) - 1)[-1].argmax()))
    return ids[len(prompt):]


def test_engines_steer_where_answers_begin_and_nowhere_else(family: Loaded) -> None:
    """Answers with a cache and padding, next tokens, options and forced continuations."""
    engine = TransformersEngine(family.info)  # a model of its own, as hooks would add up
    engine._stops = []
    continuations = [tuple(p[:3]) for p in PROMPTS[::-1]]
    options = [[(5, 6), (5, 7), (8,)]] * len(PROMPTS)
    said = set()
    for name, steering in steerings(family.info).items():
        engine.switch(steering)
        answers = [list(c.token_ids) for c in engine.generate([Prompt(p, TOKENS)
                                                               for p in PROMPTS])]
        assert answers == [greedy(family, steering, p) for p in PROMPTS], name
        said.add(str(answers))
        scores = engine.logprobs(PROMPTS, [CANDIDATES] * len(PROMPTS))
        forced = engine.force(PROMPTS, continuations)
        chosen = choose_options(engine, PROMPTS, options)
        for i, prompt in enumerate(PROMPTS):
            end = len(prompt) - 1
            truth = logits(family, steering, prompt, end)[-1].log_softmax(-1)
            torch.testing.assert_close(torch.tensor(scores[i]), truth[list(CANDIDATES)], **CLOSE)
            whole = logits(family, steering, [*prompt, *continuations[i]], end).log_softmax(-1)
            torch.testing.assert_close(
                torch.tensor(forced[i].logprobs),
                whole[range(end, end + 3), list(continuations[i])], **CLOSE)
            first, second = (logits(family, steering, ids, end)[-1].log_softmax(-1)
                             for ids in (prompt, (*prompt, 5)))
            torch.testing.assert_close(
                torch.tensor(chosen[i].scores),
                torch.stack([first[5] + second[6], first[5] + second[7], first[8]]), **CLOSE)
    assert len(said) > len(steerings(family.info)) / 2, "most of these change what is said"


def test_nothing_added_and_nothing_scaled_is_the_baseline_to_the_last_bit(info: ModelInfo) -> None:
    loaded = load(info)
    engine = TransformersEngine(loaded)
    contrast = contrast_of(loaded)
    none = [caa(contrast, 1, 0.0),
            # Made without `of`, which leaves them out, so that their hooks run.
            Steering((Edit(0, "stream", shift=packed([0.0] * 64)),
                      Edit(1, "head", (0, 5), packed([0, 0])), Edit(1, "mlp_hidden", (3,))))]
    assert not none[0].edits

    def answered() -> Any:
        return (engine.generate([Prompt(p, TOKENS) for p in PROMPTS]),
                engine.logprobs(PROMPTS, [CANDIDATES] * len(PROMPTS)),
                engine.force(PROMPTS, [tuple(p[:3]) for p in PROMPTS]))

    engine.switch(BASELINE)
    before = answered()
    for steering in none:
        engine.switch(steering)
        assert answered() == before


@torch.no_grad()
def test_outside_an_engine_a_pass_is_of_whole_prompts(info: ModelInfo) -> None:
    loaded = load(info)
    ids, steering = torch.tensor([PROMPTS[0]]), steerings(info)["all, answer"]
    truth = logits(loaded, steering, PROMPTS[0], len(PROMPTS[0]) - 1)[-1]
    embedded = loaded.model.get_input_embeddings()(ids)
    with steering.applied(loaded):
        for given in ({"input_ids": ids}, {"inputs_embeds": embedded}):
            for _ in range(2):
                found = loaded.model(**given, use_cache=False).logits[0, -1]
                torch.testing.assert_close(found, truth, **CLOSE)


def hooks(loaded: Loaded) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in loaded.model.modules())


def test_hooks_are_gone_after_success_and_after_failure(info: ModelInfo) -> None:
    loaded = load(info)
    steering = steerings(info)["all, answer"]
    before = hooks(loaded)
    with steering.applied(loaded):
        assert hooks(loaded) > before
    assert hooks(loaded) == before
    with pytest.raises(ZeroDivisionError), steering.applied(loaded):
        raise ZeroDivisionError
    assert hooks(loaded) == before
    # The last of its hooks cannot be made.
    broken = Steering((*steering.edits, Edit(7, "stream", shift=packed([1.0] * 64))))
    with pytest.raises(IndexError), broken.applied(loaded):
        pass
    assert hooks(loaded) == before
    engine = TransformersEngine(loaded)
    with pytest.raises(UserError, match="layer 7 is not in a model of 2 layers"):
        engine.switch(broken)
    with pytest.raises(EngineDeadError, match="canary does not agree"):
        engine.switch(steering, Canary(PROMPTS[0], (5,), (3.0,)))
    engine.close()
    assert hooks(loaded) == before


def test_what_a_model_does_not_have_is_refused(families: Callable[[str], ModelInfo]) -> None:
    mamba = families("mamba")
    with pytest.raises(UserError, match=r"\(mamba\) has no head"):
        Steering.of([Edit(0, "head", (0,), factor=2)]).check(mamba)
    with pytest.raises(UserError, match=r"not for .* which has 32 dimensions at stream"):
        Steering.of([Edit(0, "stream", shift=packed([1.0] * 64))]).check(mamba)
    with pytest.raises(UserError, match="32 dimensions"):
        Steering.of([Edit(0, "stream", (32,), factor=2)]).check(mamba)


def test_values_are_those_at_the_last_token(family: Loaded) -> None:
    places = places_of(family.info)
    batches = list(last_values(family, PROMPTS, places, (0, 1), rows=2))
    together = next(last_values(family, PROMPTS, places, (0, 1)))
    for i, prompt in enumerate(PROMPTS):
        kept: dict[tuple[Place, int], torch.Tensor] = {}

        def keep(key: tuple[Place, int], values: Any, kept: Any = kept) -> None:
            values = values[0] if isinstance(values, tuple) else values
            kept[key] = values.reshape(-1, values.shape[-1])[-1]

        handles = []
        for place, layer in together:
            path, enters = module_of(family.adapter, place)
            module = family.adapter.layers(family.model)[layer].get_submodule(path)
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, key=(place, layer): keep(key, args[0])) if enters else
                module.register_forward_hook(
                    lambda _, __, out, key=(place, layer): keep(key, out)))
        with torch.no_grad():
            family.model(torch.tensor([prompt]), use_cache=False)
        for handle in handles:
            handle.remove()
        for key, values in kept.items():
            for found in (together[key][i], batches[i // 2][key][i % 2]):
                np.testing.assert_allclose(found, values.double().numpy(), atol=1e-3, rtol=1e-3)


#: Tokens of the hand-made model: what it is asked, and the answers that it may give.
ASKED, RIGHT, WRONG = 10, 20, 21
WIDTH = 16


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A model whose layers do nothing: dimension 0 of the last embedding decides its answer.

    It says RIGHT where that is positive and WRONG where it is negative, as after ASKED.
    """
    folder: Path = tmp_path_factory.mktemp("decided")
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(vocabulary()), hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, tie_word_embeddings=False))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedding.zero_()
        embedding[:, 1] = 1
        embedding[ASKED, 0], embedding[RIGHT, 0], embedding[WRONG, 0] = -2, 3, -3
        head.zero_()
        head[RIGHT, 0], head[WRONG, 0] = 1, -1
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return load(describe(str(folder)))


def contrast_of(loaded: Loaded, flip: Sequence[int] = (1,)) -> Contrast:
    """Of pairs that end in RIGHT and in WRONG, changed over where ``flip`` is −1."""
    pairs = [((5, ASKED, RIGHT), (5, ASKED, WRONG)) for _ in flip]
    layers = tuple(range(loaded.info.layers))
    (found,) = differences(loaded, pairs, ("stream",), layers)
    means = np.stack([np.array(flip) @ (found["stream", layer][0] - found["stream", layer][1])
                      for layer in layers]) / len(flip)
    nothing = np.zeros((0, 0))
    return Contrast(layers, {"stream": means}, nothing, nothing, nothing, loaded.info.heads)


@pytest.mark.parametrize("layer", [0, 1])
def test_one_direction_decides_and_is_steered_exactly(decided: Loaded, layer: int) -> None:
    contrast = contrast_of(decided)
    direction = np.zeros(WIDTH)
    direction[0] = 6  # 3 − (−3)
    np.testing.assert_array_equal(contrast.means["stream"][layer], direction)
    engine = TransformersEngine(decided)
    for multiplier in (0.0, 0.25, 0.34, 1.0, -1.0):
        engine.switch(caa(contrast, layer, multiplier))
        value = -2 + 6 * multiplier
        (answer,) = engine.generate([Prompt((5, 6, ASKED), 1)])
        assert answer.token_ids == ((RIGHT,) if value > 0 else (WRONG,)), multiplier
        # The final norm divides by the root mean square of (value, 1, 0, …).
        normed = value / np.sqrt((value**2 + 1) / WIDTH + 1e-6)
        (found,) = engine.logprobs([(5, 6, ASKED)], [(RIGHT, WRONG)])
        assert found[0] - found[1] == pytest.approx(2 * normed, rel=1e-4)


def test_shuffled_labels_steer_nowhere(decided: Loaded) -> None:
    shuffled = contrast_of(decided, [1, -1, 1, -1, 1, -1])
    assert not caa(shuffled, 1, 1.0).edits
