"""The grid's replayed, masked rows against models whose weights are really zeroed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_llama import WIDTH, Oracle, random_prompts, with_answers

from prunelib.engines.limits import stop_token_ids
from prunelib.interventions.ablation import BASELINE, Ablation, ActivationMasks
from prunelib.models import Loaded, ModelInfo, load
from prunelib.search.grid import greedy_rows
from prunelib.search.selection import by_score, count_at, cut, random_order

PROMPTS = with_answers(random_prompts(9, 5, 40, seed=3))
RATES = (0.05, 0.2, 0.5)


@pytest.fixture(scope="module")
def loaded(info: ModelInfo) -> Loaded:
    torch.set_num_threads(1)
    return load(info)


@pytest.mark.parametrize("layer", [0, 1])
def test_rows_equal_greedy_decoding_with_zeroed_weights(
    layer: int, loaded: Loaded, oracle: Oracle
) -> None:
    order = random_order(WIDTH, layer, 0)
    ablations = [BASELINE, *(cut(layer, order, rate, WIDTH) for rate in RATES)]
    stops = stop_token_ids(loaded.tokenizer, loaded.info.ends)
    found = greedy_rows(loaded, layer, ablations, PROMPTS, 5, stops).tokens
    for ablation, answers in zip(ablations, found, strict=True):
        expected = [oracle.greedy(ablation, p.prompt, 5, stops) for p in PROMPTS]
        assert [tuple(a) for a in answers] == expected
    assert len({tuple(map(tuple, answers)) for answers in found}) == len(ablations)


@pytest.mark.parametrize("layer", [0, 1])
def test_margins_compare_the_gold_answer_with_all_different_copies(
    layer: int, loaded: Loaded, oracle: Oracle
) -> None:
    """Copies of the prompts are 6, 7, 8 · 6 (5 is the gold answer) · none, in turn."""
    ablations = [BASELINE, cut(layer, random_order(WIDTH, layer, 0), 0.5, WIDTH)]
    for rows in (128, 7):  # all prompts at once, three at a time
        found = greedy_rows(loaded, layer, ablations, PROMPTS, 1, [2], rows).margins
        for margins, ablation in zip(found, ablations, strict=True):
            for i, prompt in enumerate(PROMPTS):
                p = oracle.logprobs(ablation, prompt.prompt).double().exp()
                copies = [p[6] + p[7] + p[8], p[6], 1.0][i % 3]
                assert margins[i] == pytest.approx(float((p[5] / copies).log()), abs=1e-4)
    assert np.abs(found[0] - found[1]).min() > 1e-2


def test_a_token_after_the_first_is_all_that_is_read(loaded: Loaded) -> None:
    """The prompts are read once for all ablations, and by each ablation; then nothing but ends."""
    read: list[torch.Size] = []
    handle = loaded.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: read.append(args[0].shape))
    ablations = [BASELINE, cut(1, random_order(WIDTH, 1, 0), 0.5, WIDTH)]
    greedy_rows(loaded, 1, ablations, PROMPTS, 5, [])
    greedy_rows(loaded, 1, ablations, PROMPTS, 1, [])
    handle.remove()
    count, longest = len(PROMPTS), max(len(p.prompt) for p in PROMPTS)
    first = [(count, longest), (2 * count, longest)]
    assert [tuple(shape) for shape in read] == [*first, *([(2 * count, 1)] * 4), *first]


def test_prompts_of_like_length_are_read_together(loaded: Loaded) -> None:
    """What is found does not depend on what shares a batch, and comes in the order asked for."""
    read: list[int] = []
    handle = loaded.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: read.append(args[0].shape[1]))
    found = greedy_rows(loaded, 0, [BASELINE], PROMPTS, 1, [], rows=2)
    handle.remove()
    lengths = sorted((len(p.prompt) for p in PROMPTS), reverse=True)
    assert read[::2] == read[1::2] == lengths[::2]
    alone = [greedy_rows(loaded, 0, [BASELINE], [p], 1, []) for p in PROMPTS]
    assert found.tokens[0] == [one.tokens[0][0] for one in alone]
    np.testing.assert_allclose(found.margins[0], [one.margins[0, 0] for one in alone], atol=1e-4)


def test_an_ablation_of_another_layer_is_refused(loaded: Loaded) -> None:
    with pytest.raises(ValueError, match="reaches beyond"):
        greedy_rows(loaded, 0, [Ablation.of_layer(1, [3])], PROMPTS, 2, [2])


def test_nothing_remains_on_the_model(loaded: Loaded) -> None:
    greedy_rows(loaded, 1, [BASELINE], PROMPTS[:2], 1, [2])
    assert all(not m._forward_pre_hooks and not m._forward_hooks for m in loaded.model.modules())
    assert len(loaded.model.model.layers) == 2


def test_rates_are_nested_and_ranked() -> None:
    order = by_score(torch.tensor([0.1, 0.9, -2.0, 0.9]).numpy())
    assert order == (1, 3, 0, 2)
    sets = [set(cut(0, random_order(100, 0, 1), r, 100).components) for r in (0.01, 0.1, 0.4)]
    assert [len(s) for s in sets] == [1, 10, 40]
    assert sets[0] < sets[1] < sets[2]
    assert count_at(0.001, 100) == 1


def test_random_orders_differ_by_layer_and_seed() -> None:
    orders = {random_order(50, layer, seed) for layer in range(3) for seed in range(3)}
    assert len(orders) == 9 and all(sorted(o) == list(range(50)) for o in orders)


def test_an_answer_among_options_is_found_token_by_token(loaded: Loaded) -> None:
    """Against separate passes over plain text, under an ablation and without."""
    options = [(5, 6), (5, 7, 8), (9,)]
    ablations = [BASELINE, Ablation.of_layer(0, range(0, 48, 2))]
    found = greedy_rows(loaded, 0, ablations, PROMPTS, 5, [2],
                        options=[options] * len(PROMPTS)).tokens
    with ActivationMasks(loaded) as masks, torch.no_grad():
        for ablation, answers in zip(ablations, found, strict=True):
            masks.set(ablation)
            for prompt, answer in zip(PROMPTS, answers, strict=True):
                logits = loaded.model(torch.tensor([prompt.prompt])).logits[0, -1]
                expected = [5] if logits[5] > logits[9] else [9]
                if expected == [5]:
                    logits = loaded.model(torch.tensor([[*prompt.prompt, 5]])).logits[0, -1]
                    expected = [5, 6] if logits[6] > logits[7] else [5, 7, 8]
                assert answer == expected
    assert len({tuple(a) for answers in found for a in answers}) > 1
