from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_llama import random_prompts

from prunelib.components import Component
from prunelib.errors import UnitError, UserError
from prunelib.interventions.ablation import Ablation, ActivationMasks
from prunelib.interventions.label_bias import minority_boost, without_positions
from prunelib.models import Loaded, ModelInfo, load
from prunelib.models.head_access import final_norm

Families = Callable[[str], ModelInfo]
PROMPTS = random_prompts(3, 11, 11)  # and <s>
IDS = torch.tensor(PROMPTS)
HEADS = [Component(0, "head", 1), Component(1, "head", 0)]
PLACES, RATIOS = [[-5, -3], [], [-12]], [2.0, 1.0, 3.0]
ROTARY = ["llama", "llama, shared keys", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt_neox"]


def logits(loaded: Loaded, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = loaded.model(input_ids=ids, use_cache=False).logits
    return found


def hooks(loaded: Loaded) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in loaded.model.modules())


def entering(loaded: Loaded, module: Any, ids: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits(loaded, ids)
    handle.remove()
    return seen[-1]


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "opt"])
def test_no_strength_no_heads_or_no_places_leave_every_bit(name: str, families: Families) -> None:
    loaded = load(families(name))
    before = logits(loaded)
    for heads, places, strength in ((HEADS, PLACES, 0.0), ([], PLACES, 0.5), (HEADS, [[]] * 3, 1)):
        with minority_boost(loaded, heads, places, RATIOS, strength):
            assert torch.equal(logits(loaded), before)
    with minority_boost(loaded, HEADS, PLACES, RATIOS, 0.5):
        assert not torch.allclose(logits(loaded), before, atol=1e-3)
    assert torch.equal(logits(loaded), before) and hooks(loaded) == 0


@pytest.mark.parametrize("name", ["llama", "gemma2", "bloom", "gpt_neox"])
def test_no_heads_keep_their_positions_bit_by_bit(name: str, families: Families) -> None:
    loaded = load(families(name))
    before = logits(loaded)
    with without_positions(loaded, []):
        assert torch.equal(logits(loaded), before)
    for mode in ("replace", "add"):
        with without_positions(loaded, HEADS, mode):  # type: ignore[arg-type]
            assert not torch.allclose(logits(loaded), before, atol=1e-3)
    assert torch.equal(logits(loaded), before) and hooks(loaded) == 0


def test_hooks_go_when_something_is_raised(families: Families) -> None:
    loaded = load(families("llama"))
    kind = loaded.model.config._attn_implementation
    with pytest.raises(UnitError, match="3 prompts"), \
            minority_boost(loaded, HEADS, PLACES, RATIOS):
        logits(loaded, IDS[:2])
    with pytest.raises(ZeroDivisionError), without_positions(loaded, HEADS):
        1 / 0  # noqa: B018
    assert hooks(loaded) == 0 and loaded.model.config._attn_implementation == kind


def test_minority_places_are_added_to_the_final_embedding(families: Families) -> None:
    """From attention, normed streams and weights of transformers' own outputs."""
    loaded = load(families("llama"))
    norm, weights = final_norm(loaded), loaded.model.state_dict()
    before = entering(loaded, norm, IDS)
    with minority_boost(loaded, HEADS, PLACES, RATIOS, 0.25):
        # Hooks run in the order in which they were registered: this one sees what was added.
        after = entering(loaded, norm, IDS)
    loaded.model.set_attn_implementation("eager")
    with torch.inference_mode():
        output = loaded.model(IDS, output_attentions=True, output_hidden_states=True)
    expected = before.clone()
    for layer, head in ((0, 1), (1, 0)):
        own, part = f"model.layers.{layer}.self_attn", slice(head * 32, head * 32 + 32)
        normed = loaded.model.model.layers[layer].input_layernorm(output.hidden_states[layer])
        vo = normed @ weights[f"{own}.v_proj.weight"][part].T
        vo = vo @ weights[f"{own}.o_proj.weight"][:, part].T
        for row, (places, ratio) in enumerate(zip(PLACES, RATIOS, strict=True)):
            for place in places:
                alpha = output.attentions[layer][row, head, -1, place]
                expected[row, -1] += 0.25 * ratio * alpha * vo[row, place]
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)
    assert (expected - before).abs()[[0, 2], -1].amax(-1).min() > 1e-3


def test_rotary_heads_attend_by_unrotated_keys_and_queries(families: Families) -> None:
    loaded = load(families("llama, shared keys"))
    layer, weights = loaded.model.model.layers[0], loaded.model.state_dict()
    plain = entering(loaded, layer.self_attn.o_proj, IDS)
    with without_positions(loaded, [Component(0, "head", 2)]):
        mixed = entering(loaded, layer.self_attn.o_proj, IDS)
    with without_positions(loaded, [Component(0, "head", 2)], "add"):
        added = entering(loaded, layer.self_attn.o_proj, IDS)
    normed = layer.input_layernorm(loaded.model.model.embed_tokens(IDS))
    # Heads 2 and 3 of four share the second of two groups of keys.
    q, k, v = (normed @ weights[f"model.layers.0.self_attn.{n}_proj.weight"]
               [g * 32 : g * 32 + 32].T for n, g in (("q", 2), ("k", 1), ("v", 1)))
    scores = q @ k.mT / math.sqrt(32)
    scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1) > 0, -torch.inf)
    own = scores.softmax(-1) @ v
    torch.testing.assert_close(mixed[..., 64:96], own, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(added[..., 64:96], own + plain[..., 64:96], atol=1e-4, rtol=1e-4)
    others = [i for i in range(128) if not 64 <= i < 96]
    assert torch.equal(mixed[..., others], plain[..., others])
    assert (mixed - plain)[..., 64:96].abs().max() > 1e-2


@pytest.mark.parametrize("name", [*ROTARY, "bloom"])
def test_without_positions_the_order_of_earlier_tokens_is_nothing(name: str, families: Families
                                                                  ) -> None:
    """In layer 0, where keys and values depend on nothing but their own token."""
    loaded = load(families(name))
    order = [0, *torch.randperm(10, generator=torch.Generator().manual_seed(0)).add(1), 11]
    other = IDS[:, order]
    out = loaded.adapter.layers(loaded.model)[0].get_submodule(
        loaded.adapter.heads.out)  # type: ignore[union-attr]
    size = loaded.info.head_size
    with without_positions(loaded, [Component(0, "head", 1)]):
        one, two = (entering(loaded, out, ids)[:, -1] for ids in (IDS, other))
    torch.testing.assert_close(one[:, size : 2 * size], two[:, size : 2 * size], atol=1e-5,
                               rtol=1e-4)
    assert (one - two)[:, :size].abs().max() > 1e-4


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_a_head_that_is_off_stays_off(name: str, families: Families) -> None:
    loaded = load(families(name))
    with ActivationMasks(loaded) as masks:
        masks.set(Ablation.of(HEADS))
        before = logits(loaded)
        with without_positions(loaded, HEADS):
            torch.testing.assert_close(logits(loaded), before)


def test_a_first_pass_with_a_cache_is_the_same_and_a_second_is_refused(families: Families) -> None:
    for name in ("llama", "gpt_neox", "bloom"):
        loaded = load(families(name))
        with torch.inference_mode(), without_positions(loaded, HEADS):
            cached = loaded.model(input_ids=IDS, use_cache=True)
            torch.testing.assert_close(cached.logits, logits(loaded))
            assert cached.past_key_values.get_seq_length() == 12
            with pytest.raises(UserError, match="use_cache=False"):
                loaded.model(input_ids=IDS[:, :1], past_key_values=cached.past_key_values)


@pytest.mark.parametrize("name, part", [
    ("gpt2", "learns embeddings of positions"), ("opt", "learns embeddings of positions"),
    ("mamba", "no attention heads"),
])  # fmt: skip
def test_what_has_no_position_to_leave_out_is_refused(name: str, part: str, families: Families
                                                      ) -> None:
    with pytest.raises(UserError, match=part), without_positions(load(families(name)), HEADS):
        pass


def test_heads_that_are_not_there_are_refused(families: Families) -> None:
    loaded = load(families("llama"))
    for wrong in (Component(9, "head", 0), Component(0, "ffn", 0)):
        with pytest.raises(UserError), without_positions(loaded, [wrong]):
            pass
        with pytest.raises(UserError), minority_boost(loaded, [wrong], PLACES, RATIOS):
            pass
