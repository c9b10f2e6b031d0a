"""Perplexity against one plain forward pass for each token."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from tiny_families import FAMILIES
from tiny_llama import CONTEXT, LAYERS, Oracle

from prunelib.components import Component
from prunelib.engines.perplexity import perplexity
from prunelib.errors import UnitError, UserError
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.models import ModelInfo, load
from prunelib.models.loading import load_tokenizer
from prunelib.tasks import prose

TEXT = "The river runs fastest in the middle, just below the surface"


def summed(oracle: Oracle, ablation: Ablation, ids: list[int], window: int) -> float:
    """Negative log-probability of ``ids[1:]``, token by token, each with what it may see."""
    total = 0.0
    for i in range(1, len(ids)):
        start = 0
        while i >= start + window:
            start += window // 2
        total -= float(oracle.logprobs(ablation, ids[start:i])[ids[i]])
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_has_the_probability_of_its_tokens(
    family: str, families: Callable[[str], ModelInfo]
) -> None:
    info = families(family)
    loaded, oracle = load(info), Oracle(info)
    ids = load_tokenizer(info)(TEXT)["input_ids"]
    ablation = Ablation.of([Component(1, info.site, i) for i in range(0, info.width, 2)])
    found = [perplexity(loaded, [TEXT], a)[0] for a in (BASELINE, ablation, BASELINE)]
    for likelihood, a in zip(found, (BASELINE, ablation), strict=False):
        assert likelihood.nll == pytest.approx(summed(oracle, a, ids, 10_000), rel=1e-5)
        # Of a Qwen2 they are fewer than characters: its tokenizer has no blanks, see tiny_families.
        assert (likelihood.tokens, likelihood.unknown) == (len(ids) - 1, 0)
        assert likelihood.perplexity == pytest.approx(math.exp(likelihood.nll / (len(ids) - 1)))
    assert found[0] == found[2] and abs(found[0].nll - found[1].nll) > 0.02


@pytest.mark.parametrize("window", [2, 7, 16, 60, 61, 62])
def test_every_token_is_scored_once_with_what_its_window_holds(
    window: int, info: ModelInfo, oracle: Oracle
) -> None:
    ids = load_tokenizer(info)(TEXT)["input_ids"]
    found = perplexity(load(info), [TEXT], window=window)[0]
    assert found.tokens == len(TEXT)
    assert found.nll == pytest.approx(summed(oracle, BASELINE, ids, window), rel=1e-5)


def test_a_window_is_never_longer_than_the_context(info: ModelInfo) -> None:
    text = " ".join([TEXT] * 12)
    assert len(text) > 2 * CONTEXT
    loaded = load(info)
    assert perplexity(loaded, [text]) == perplexity(loaded, [text], window=CONTEXT)


def test_unknown_characters_are_counted_and_not_scored(info: ModelInfo, oracle: Oracle) -> None:
    tokenizer = load_tokenizer(info)
    text = "a.b? c"
    found = perplexity(load(info), [text])[0]
    assert (found.tokens, found.unknown, found.characters) == (4, 2, 6)
    ids = tokenizer(text)["input_ids"]
    known = [i for i in range(1, len(ids)) if ids[i] != tokenizer.unk_token_id]
    truth = -sum(float(oracle.logprobs(BASELINE, ids[:i])[ids[i]]) for i in known)
    assert found.nll == pytest.approx(truth, rel=1e-5)
    for nothing in ("", "?!"):
        with pytest.raises(UnitError, match="no token"):
            perplexity(load(info), [nothing])


def test_no_hook_survives(info: ModelInfo) -> None:
    loaded = load(info)
    with pytest.raises(UserError):
        perplexity(loaded, [TEXT], Ablation.of_layer(LAYERS, [0]))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in loaded.model.modules())


def test_the_bundled_prose_is_a_few_kilobytes_of_paragraphs(info: ModelInfo) -> None:
    texts = prose()
    assert 4_000 < sum(map(len, texts)) < 10_000
    assert all(300 < len(t) < 600 and "\n" not in t for t in texts)
    torch.set_num_threads(1)
    found = perplexity(load(info), texts)
    # The character alphabet of the reference models lacks full stops and some more.
    assert all(f.unknown == sum(c in ".;?!" for c in t) for f, t in zip(found, texts, strict=True))


def test_a_context_is_seen_and_not_scored(info: ModelInfo, oracle: Oracle) -> None:
    loaded = load(info)
    before, text = "The river?", TEXT[9:30] + "!"
    found = perplexity(loaded, [text, text], contexts=[before, ""])
    ids = load_tokenizer(info)(before + text)["input_ids"]
    start = len(load_tokenizer(info)(before)["input_ids"])
    truth = sum(float(oracle.logprobs(BASELINE, ids[:i])[ids[i]]) for i in range(start, start + 21))
    assert found[0].nll == pytest.approx(-truth, rel=1e-5)
    assert (found[0].tokens, found[0].unknown, found[0].characters) == (21, 1, 22)
    assert found[1] == perplexity(loaded, [text])[0] != found[0]
