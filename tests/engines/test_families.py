"""Every family: masks equal zeroed weights in transformers, in the grid, and in both engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES
from tiny_llama import Oracle, random_prompts, start_here, with_answers
from transformers import AutoModelForCausalLM

from prunelib.components import Component, Site
from prunelib.engines.base import Prompt
from prunelib.engines.limits import stop_token_ids, until_stop
from prunelib.engines.registry import choose_engine
from prunelib.errors import UserError
from prunelib.interventions.ablation import BASELINE, Ablation, ActivationMasks
from prunelib.interventions.export import export
from prunelib.models import ModelInfo, adapter_for, load
from prunelib.models.loading import load_tokenizer
from prunelib.search.grid import greedy_rows

PROMPTS = random_prompts(6, 3, 40)
CANDIDATES = tuple(range(4, 34))
TOKENS = 6
#: Families whose vLLM `make test` starts, and those that vLLM does not run.
IN_VLLM = {"llama", "gpt2", "opt", "gemma3_text", "mamba2", "bloom", "gpt_neox", "mamba"}


@pytest.fixture(scope="module", params=FAMILIES)
def info(request: pytest.FixtureRequest, families: Callable[[str], ModelInfo]) -> ModelInfo:
    return families(request.param)


@pytest.fixture(scope="module")
def oracle(info: ModelInfo) -> Oracle:
    return Oracle(info)


def half(info: ModelInfo, layer: int, site: Site | None = None) -> Ablation:
    return Ablation.of_layer(layer, range(layer, info.width, 2), site or info.site)


def neuron_sites(info: ModelInfo) -> list[Site]:
    """Where the neurons of the papers' projection can be switched off."""
    sites = adapter_for(info.model_type).sites
    return [info.site, "mlp_row"] if "mlp_row" in sites else [info.site]


def everywhere(info: ModelInfo) -> list[Ablation]:
    """Weight rows alone, a component of every other site, then one of each, in both layers."""
    sites = adapter_for(info.model_type).sites
    rows = [half(info, layer, site) for layer in (0, 1) for site in neuron_sites(info)[1:]]
    alone = [Ablation.of_layer(1, [info.components(site) - 1], site) for site in sites
             if site not in neuron_sites(info)]
    return [*rows, *alone,
            Ablation.of(Component(layer, site, 0) for site in sites for layer in (0, 1))]


def test_masks_equal_zeroed_weights(info: ModelInfo, oracle: Oracle) -> None:
    loaded = load(info, "float64")
    both = Ablation.of(half(info, 0).components + half(info, 1).components)
    ids = torch.tensor([PROMPTS[0], PROMPTS[0]])
    with torch.no_grad(), ActivationMasks(loaded) as masks:
        untouched = loaded.model(ids).logits
        for ablation in (half(info, 0), both, *everywhere(info)):
            masks.set(ablation)
            zeroed = oracle.ablated(ablation).double()(ids).logits
            assert (zeroed - untouched).abs().max() > 1e-5
            torch.testing.assert_close(loaded.model(ids).logits, zeroed, rtol=0, atol=1e-12)
        for site in neuron_sites(info):
            keep = torch.ones(2, info.width, dtype=torch.float64)
            keep[1, half(info, 1).by_layer(info.site)[1]] = 0
            masks.set_rows(1, keep, site)
            rows = loaded.model(ids).logits
            one = oracle.ablated(half(info, 1, site)).double()(ids).logits
            torch.testing.assert_close(rows[0], untouched[0], rtol=0, atol=1e-12)
            torch.testing.assert_close(rows[1], one[1], rtol=0, atol=1e-12)
    other = "mlp_hidden" if info.site == "mixer_in" else "mixer_in"
    with ActivationMasks(loaded) as masks, pytest.raises(UserError, match=info.site):
        masks.set(Ablation.of_layer(0, [0], other))


def test_a_neuron_without_its_weight_row_still_has_its_bias(
    info: ModelInfo, oracle: Oracle
) -> None:
    """So the site is another function than ``mlp_hidden``; without biases it would be the same."""
    if "mlp_row" not in adapter_for(info.model_type).sites:
        assert not info.mlp_bias or info.model_type == "llama"
        return
    assert info.mlp_bias
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        rows, hidden = (oracle.ablated(half(info, 0, site))(ids).logits
                        for site in neuron_sites(info))
        assert (rows - hidden).abs().max() > 1e-3
        oracle = Oracle(info)
        for layer in oracle.adapter.layers(oracle.model):
            layer.get_submodule(oracle.adapter.hidden[0]).bias.zero_()
        rows, hidden = (oracle.ablated(half(info, 0, site))(ids).logits
                        for site in neuron_sites(info))
    torch.testing.assert_close(rows, hidden, rtol=0, atol=1e-5)


def test_a_pruned_checkpoint_is_the_model_with_zeroed_weights(
    info: ModelInfo, oracle: Oracle, tmp_path: Path
) -> None:
    ids = torch.tensor([PROMPTS[0]])
    for i, ablation in enumerate((half(info, 0), *everywhere(info))):
        folder = export(info, ablation, tmp_path / str(i))
        pruned = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            torch.testing.assert_close(pruned(ids).logits, oracle.ablated(ablation)(ids).logits,
                                       rtol=0, atol=1e-6)


def test_the_grid_says_what_zeroed_weights_say(info: ModelInfo, oracle: Oracle) -> None:
    """Prefix replay, a mask for each row, padded prompts, and texts that end one by one."""
    for layer, site in [(layer, site) for site in neuron_sites(info) for layer in (0, 1)]:
        ablations = [BASELINE, half(info, layer, site)]
        whole = [[oracle.greedy(a, p, TOKENS, ()) for p in PROMPTS] for a in ablations]
        stops = sorted({text[i % TOKENS] for i, text in enumerate(whole[0] + whole[1])})
        for ends in ([], stops[: len(stops) // 2]):
            found = greedy_rows(load(info), layer, ablations, with_answers(PROMPTS), TOKENS,
                                ends, rows=8).tokens
            assert found == [[list(until_stop(text, ends, TOKENS)) for text in of_ablation]
                             for of_ablation in whole]
        assert found[0] != found[1]
        assert len({len(text) for of_ablation in found for text in of_ablation}) > 2


def test_the_grid_switches_heads_and_ffns(info: ModelInfo, oracle: Oracle) -> None:
    stops = stop_token_ids(load_tokenizer(info), info.ends)
    for site in ("head", "ffn"):
        if site in adapter_for(info.model_type).sites:
            ablations = [Ablation.of_layer(1, [i], site) for i in range(info.components(site))]
            found = greedy_rows(load(info), 1, ablations, with_answers(PROMPTS), TOKENS, stops)
            assert found.tokens == [[list(oracle.greedy(a, p, TOKENS, stops)) for p in PROMPTS]
                                    for a in ablations]


def test_a_layer_without_heads_is_one_without_attention(info: ModelInfo) -> None:
    """But for the bias of the attention's output, which no head writes."""
    loaded = load(info, "float64")
    if "head" not in loaded.adapter.sites or info.model_type == "bloom":
        return  # a BLOOM's attention adds the stream itself
    heads, path = loaded.adapter.heads, loaded.adapter.attention
    assert heads is not None and path is not None
    layer = loaded.adapter.layers(loaded.model)[1]
    bias = layer.get_submodule(heads.out).bias
    ids = torch.tensor([PROMPTS[0]])

    def deleted(_: object, __: object, output: Any) -> Any:
        return (torch.zeros_like(output[0]) + (0 if bias is None else bias), *output[1:])

    with torch.no_grad():
        with ActivationMasks(loaded) as masks:
            masks.set(Ablation.of_layer(1, range(info.heads), "head"))
            without = loaded.model(ids).logits
        layer.get_submodule(path).register_forward_hook(deleted)
        torch.testing.assert_close(loaded.model(ids).logits, without, rtol=0, atol=1e-12)


def check_engine(kind: str, info: ModelInfo, oracle: Oracle) -> None:
    """Greedy answers and log-probabilities under three ablations, switched back and forth."""
    stops = stop_token_ids(load_tokenizer(info), info.ends)
    engine = start_here(kind, info)
    try:
        for ablation in (half(info, 0), BASELINE, half(info, 1), *everywhere(info), half(info, 0)):
            engine.switch(ablation)
            answers = [c.token_ids for c in engine.generate([Prompt(p, TOKENS) for p in PROMPTS])]
            assert answers == [oracle.greedy(ablation, p, TOKENS, stops) for p in PROMPTS]
            found = torch.tensor(engine.logprobs(PROMPTS, [CANDIDATES] * len(PROMPTS)))
            truth = torch.stack([oracle.logprobs(ablation, p)[list(CANDIDATES)] for p in PROMPTS])
            torch.testing.assert_close(found, truth, atol=2e-5, rtol=1e-5)
    finally:
        engine.close()


def test_transformers_says_what_zeroed_weights_say(info: ModelInfo, oracle: Oracle) -> None:
    check_engine("transformers", info, oracle)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("info", [
    family if family in IN_VLLM else pytest.param(family, marks=pytest.mark.long)
    for family in FAMILIES], indirect=True, scope="module")
def test_vllm_says_what_zeroed_weights_say(info: ModelInfo, oracle: Oracle) -> None:
    if choose_engine("auto", info) == "transformers":
        with pytest.raises(UserError, match=r"cannot run"):
            choose_engine("vllm", info)
        return
    check_engine("vllm", info, oracle)
