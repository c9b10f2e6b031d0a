"""Induction scores: hand-made heads with known scores, brute force, every family."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES
from transformers import OPTConfig, OPTForCausalLM

from prunelib.errors import UserError
from prunelib.heads.induction import (
    copying,
    from_embeddings,
    matched_attention,
    prefix_matching,
    raised_share,
    retention,
)
from prunelib.heads.sequences import RandomSequence, draw_sequences, ordinary_tokens
from prunelib.models import Loaded, ModelInfo, describe, load
from prunelib.reference.corpus import vocabulary
from prunelib.reference.tokenizer import build_tokenizer

VOCABULARY = len(vocabulary())
WITH_HEADS = [name for name in FAMILIES if not name.startswith("mamba")]
#: Where a token's identity, its position and its predecessor are in the stream of a made model.
TOKEN, PLACE, BEFORE = (slice(0, VOCABULARY), slice(VOCABULARY, VOCABULARY + 160),
                        slice(VOCABULARY + 160, 2 * VOCABULARY + 160))  # fmt: skip
STREAM = BEFORE.stop


def made_opt(folder, layers: list[dict[str, torch.Tensor]], places: bool) -> Loaded:
    """An OPT of one head per layer and no MLP whose projections are given, its stream one-hot."""
    config = OPTConfig(
        vocab_size=VOCABULARY, hidden_size=STREAM, word_embed_proj_dim=STREAM, ffn_dim=4,
        num_hidden_layers=len(layers), num_attention_heads=1, max_position_embeddings=160,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, enable_bias=False,
        layer_norm_elementwise_affine=False,
    )  # fmt: skip
    model = OPTForCausalLM(config)
    for parameter in model.parameters():
        parameter.data.zero_()
    decoder = model.model.decoder
    decoder.embed_tokens.weight.data[:, TOKEN] = torch.eye(VOCABULARY)
    if places:
        decoder.embed_positions.weight.data[2:, PLACE] = torch.eye(160)
    for layer, given in zip(decoder.layers, layers, strict=True):
        for name, weight in given.items():
            layer.self_attn.get_submodule(name).weight.data.copy_(weight)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return load(describe(str(folder)))


def moved(to: slice, where: slice, shift: int = 0, scale: float = 1) -> torch.Tensor:
    """A projection that moves one part of the stream to another, its dimensions shifted."""
    weight = torch.zeros(STREAM, STREAM)
    weight[to, where] = scale * torch.eye(to.stop - to.start).roll(shift, 0)
    return weight


@pytest.fixture(scope="module")
def induction_model(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Layer 0 attends to the token before and writes it down, layer 1 looks the current one up."""
    sharp, every = 30.0, torch.eye(STREAM)
    before = {"q_proj": moved(PLACE, PLACE, -1, sharp), "k_proj": moved(PLACE, PLACE, 0, sharp),
              "v_proj": moved(BEFORE, TOKEN), "out_proj": every}
    induction = {"q_proj": moved(TOKEN, TOKEN, 0, sharp), "k_proj": moved(TOKEN, BEFORE, 0, sharp),
                 "v_proj": moved(TOKEN, TOKEN), "out_proj": every}
    return made_opt(tmp_path_factory.mktemp("induction"), [before, induction], places=True)


def test_an_induction_head_matches_prefixes_and_the_head_that_it_needs_does_not(
    induction_model: Loaded,
) -> None:
    sequences = draw_sequences(induction_model, 3, repeats=4)
    assert [len(s.ids) for s in sequences] == [101, 109, 117]
    scores = prefix_matching(induction_model, sequences)
    assert scores.shape == (3, 2, 1)
    scores = scores.mean(0)
    np.testing.assert_allclose(scores, [[0], [1]], atol=1e-4)


def test_a_head_that_raises_what_it_attends_to_copies_whatever_layers_below_write(
    tmp_path,
) -> None:
    """Both attend to their own position; were layer 0 to write, layer 1 would see nonsense."""
    looking = {name: moved(TOKEN, TOKEN, 0, 30) for name in ("q_proj", "k_proj")}
    value, out = moved(TOKEN, TOKEN), moved(TOKEN, TOKEN, 0, 5)
    heads = [{**looking, "v_proj": value, "out_proj": -out},
             {**looking, "v_proj": value, "out_proj": out},
             {**looking, "v_proj": value, "out_proj": moved(TOKEN, TOKEN, 1, 5)}]
    model = made_opt(tmp_path, heads, places=False)
    # Neighbours in the vocabulary, so that the third head raises a token of the sequence.
    sequences = [RandomSequence((1,), tuple(range(30, 10, -1)), 1)]
    for variant in ("attention_weighted", "own_value"):
        found = copying(model, sequences, variant)[0]
        np.testing.assert_allclose(found, [[0], [1], [0]], atol=1e-4)


@pytest.mark.parametrize("start", [(), (1,)])
@pytest.mark.parametrize("length", [3, 25, 60])
def test_equal_attention_to_all_gives_about_one_over_the_length(start, length: int) -> None:
    sequence = RandomSequence(start, tuple(range(4, 4 + length)), 4)
    positions = len(sequence.ids)
    equal = torch.ones(positions, positions).tril() / torch.arange(1, positions + 1)[:, None]
    score = float(matched_attention(equal[None], sequence)[0])
    # By looking at the tokens themselves.
    ids, after_first = sequence.ids, range(len(start) + length, positions)
    expected = np.mean([sum(1 / (j + 1) for k in range(j) if ids[k] == ids[j])
                        for j in after_first])
    assert score == pytest.approx(expected, rel=1e-6)
    assert 0.6 / length < score < 1 / length


def test_attention_to_one_occurrence_or_to_all_of_them_is_a_perfect_match() -> None:
    sequence = RandomSequence((1,), (7, 5, 6), 3)
    ids = sequence.ids
    patterns = torch.zeros(4, len(ids), len(ids))
    for j in range(4, len(ids)):
        matches = [k + 1 for k in range(j) if ids[k] == ids[j]]
        patterns[0, j, matches[0]] = 1
        patterns[1, j, matches] = 1 / len(matches)
        patterns[2, j, [k - 1 for k in matches]] = 1 / len(matches)
        patterns[3, j, matches[-1]] = 1 if j % 2 else 0
    assert matched_attention(patterns, sequence).tolist() == [1, 1, 0, 0.5]


def test_share_of_what_is_raised_by_hand() -> None:
    probabilities = torch.tensor([
        [0.9, 0.5, 0.5, 0.5],
        [0.2, 0.6, 0.9, 0.9],  # mean 0.4: raised 0, 0.2
        [0.2, 0.5, 0.8, 0.9],  # mean 0.5: raised 0, 0, 0.3
        [0.8, 0.6, 0.1, 0.1],  # mean 0.4: raised 0.4, 0.2, 0, 0
    ])  # fmt: skip
    assert raised_share(probabilities, torch.tensor([0, 1, 2, 0])) == pytest.approx(8 / 9)
    assert raised_share(probabilities, torch.tensor([0, 0, 0, 1])) == pytest.approx(1 / 9)
    one_hot = torch.tensor([0, 0, 1, 2])
    assert raised_share(torch.eye(4)[one_hot], one_hot) == 1
    assert raised_share(torch.full((4, 4), 0.1), one_hot) == 0


def rotated(x: torch.Tensor, theta: float) -> torch.Tensor:
    """``[positions, size]``: pairs of dimensions half the size apart, as complex numbers."""
    half = x.shape[1] // 2
    angle = torch.arange(len(x))[:, None] * theta ** -(torch.arange(half) / half)
    z = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([z.real, z.imag], 1).to(x)


def brute_force(model, ids, head_of, count: int, unembedding) -> dict[str, list[list[float]]]:
    """Copying scores from explicit queries, keys, values and output matrices, loop by loop."""
    scores: dict[str, list[list[float]]] = {"attention_weighted": [], "own_value": []}
    for layer in range(2):
        rows = [head_of(layer, head) for head in range(count)]
        for variant, found in scores.items():
            found.append([])
            for q, k, v, written in rows:
                shares = []
                for j in range(1, len(ids)):
                    weights = (q[j] @ k[: j + 1].T / math.sqrt(q.shape[1])).softmax(0)
                    said = v[j] if variant == "own_value" else weights @ v[: j + 1]
                    chances = (unembedding @ written(said)).softmax(0)[ids[: j + 1]].tolist()
                    mean = math.fsum(chances) / len(chances)
                    raised = [max(p - mean, 0) for p in chances]
                    shares.append(raised[int(weights.argmax())] / sum(raised))
                found[-1].append(float(np.mean(shares)))
    return scores


@pytest.mark.parametrize("name", ["llama", "llama, shared keys", "gpt2"])
def test_copying_agrees_with_brute_force(
    name: str, families: Callable[[str], ModelInfo]
) -> None:
    info = families(name)
    loaded = load(info, "float64")
    sequence = RandomSequence((1,), (40, 12, 33, 7, 60, 21, 5, 18, 52, 9, 71), 1)
    ids, model, config = list(sequence.ids), loaded.model, loaded.model.config
    count, size = info.heads, info.head_size

    def llama_head(layer: int, head: int):
        block = model.model.layers[layer]
        x = model.model.embed_tokens.weight[ids]
        x = x / (x.square().mean(1, keepdim=True) + config.rms_norm_eps).sqrt()
        x = x * block.input_layernorm.weight
        attention, group = block.self_attn, head // (count // config.num_key_value_heads)
        own, shared = (slice(i * size, (i + 1) * size) for i in (head, group))
        theta = config.rope_parameters["rope_theta"]
        q = rotated(x @ attention.q_proj.weight[own].T, theta)
        k = rotated(x @ attention.k_proj.weight[shared].T, theta)
        return (q, k, x @ attention.v_proj.weight[shared].T,
                lambda said: attention.o_proj.weight[:, own] @ said)

    def gpt2_head(layer: int, head: int):
        block, width = model.transformer.h[layer], config.n_embd
        x = model.transformer.wte.weight[ids] + model.transformer.wpe.weight[: len(ids)]
        x = x - x.mean(1, keepdim=True)
        x = x / (x.square().mean(1, keepdim=True) + config.layer_norm_epsilon).sqrt()
        x = x * block.ln_1.weight + block.ln_1.bias
        joint, out = block.attn.c_attn, block.attn.c_proj
        columns = [slice(i * width + head * size, i * width + (head + 1) * size) for i in range(3)]
        q, k, v = (x @ joint.weight[:, c] + joint.bias[c] for c in columns)
        return q, k, v, lambda said: said @ out.weight[columns[0]] + out.bias

    expected = brute_force(model, ids, gpt2_head if name == "gpt2" else llama_head, count,
                           model.lm_head.weight)
    assert np.ptp(expected["own_value"]) > 0.05, "heads must differ for this to say anything"
    for variant, scores in expected.items():
        # Norms and softmax are computed in float32 by transformers, whatever the weights are.
        np.testing.assert_allclose(copying(loaded, [sequence], variant)[0], scores, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in WITH_HEADS if n != "gpt2" and "opt" not in n])
def test_with_one_and_the_same_token_everywhere_the_mean_of_values_is_each_value(
    name: str, families: Callable[[str], ModelInfo]
) -> None:
    """Whatever is attended to; so both variants read the same numbers, in every layer's layout."""
    loaded = load(families(name))
    mixed, own = (from_embeddings(loaded, [30] * 20, variant)
                  for variant in ("attention_weighted", "own_value"))
    assert len(mixed) == len(own) == loaded.info.layers
    for (a, _), (b, _) in zip(mixed, own, strict=True):
        assert a.shape == (20, loaded.info.heads, loaded.info.head_size) and a.abs().max() > 1e-3
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(b[:, 0], b[:, -1], atol=1e-3) or "shared" in name


@pytest.mark.parametrize("name", WITH_HEADS)
def test_every_family_is_scored_and_left_as_it_was(
    name: str, families: Callable[[str], ModelInfo]
) -> None:
    loaded = load(families(name))
    before, ids = loaded.model.config._attn_implementation, torch.arange(4, 30)[None]
    with torch.inference_mode():
        said = loaded.model(ids).logits
    repeated, unique = (draw_sequences(loaded, 3, repeats) for repeats in (4, 1))
    every = [scores.mean(0) for scores in (
        prefix_matching(loaded, repeated), copying(loaded, unique),
        copying(loaded, unique, "own_value"))]
    if name == "mistral":  # see the next test
        assert (every.pop(0) == 0).all()
    for scores in every:
        assert scores.shape == (2, loaded.info.heads) and scores.dtype == np.float64
        assert (scores >= 0).all() and (scores[1] > 0).all() and (scores < 1).all()
        assert len(np.unique(scores)) > 2
    assert not np.allclose(every[-2], every[-1])
    again = [scores.mean(0) for scores in (
        copying(loaded, unique), prefix_matching(loaded, draw_sequences(loaded, 3, 4)))]
    assert all(a.tobytes() == b.tobytes()
               for a, b in zip(every[-2::-1], again, strict=False))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.model.modules())
    assert loaded.model.config._attn_implementation == before
    with torch.inference_mode():
        assert torch.equal(loaded.model(ids).logits, said)


def test_a_sliding_window_hides_what_lies_further_back(
    families: Callable[[str], ModelInfo]
) -> None:
    """Gemma's layer 0 sees 16 tokens, blocks have 25: its heads cannot match, those above can.

    All layers of a Mistral have a window, here of 4.
    """
    loaded = load(families("gemma2"))
    scores = prefix_matching(loaded, draw_sequences(loaded, 1, 4))[0]
    assert (scores[0] == 0).all() and (scores[1] > 0).all()


def test_a_failed_pass_leaves_no_hook_and_the_old_attention(
    info: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(info)
    before = loaded.model.config._attn_implementation
    assert before != "eager"
    sequences = draw_sequences(loaded, 1, 1)
    # As a model does whose attention cannot be switched.
    monkeypatch.setattr(loaded.model, "set_attn_implementation", lambda _: None)
    with pytest.raises(UserError, match="does not give its attention"):
        copying(loaded, sequences)
    monkeypatch.undo()
    with pytest.raises(IndexError):
        copying(loaded, [RandomSequence((1,), (5, VOCABULARY), 1)])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.model.modules())
    assert loaded.model.config._attn_implementation == before


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_a_model_without_heads_is_refused(name, families: Callable[[str], ModelInfo]) -> None:
    loaded = load(families(name))
    with pytest.raises(UserError, match="no attention heads"):
        prefix_matching(loaded, [RandomSequence((), (5, 6, 7), 4)])
    with pytest.raises(UserError, match="no attention heads"):
        copying(loaded, [RandomSequence((), (5, 6, 7), 1)])


def test_sequences_of_the_wrong_kind_are_refused(info: ModelInfo) -> None:
    loaded = load(info)
    for wrong in ([], [RandomSequence((1,), (5, 6, 7), 1)]):
        with pytest.raises(UserError, match="repeats=4"):
            prefix_matching(loaded, wrong)
    for wrong in ([], [RandomSequence((1,), (5, 6, 7), 4)]):
        with pytest.raises(UserError, match="repeats=1"):
            copying(loaded, wrong)


def test_sequences_have_the_papers_lengths_as_far_as_the_model_allows(info: ModelInfo) -> None:
    """82 characters, of which 4 are special and 3 rarest and 3 commonest; a context of 256."""
    loaded = load(info)
    assert ordinary_tokens(loaded) == list(range(7, VOCABULARY - 3))
    repeated = draw_sequences(loaded, 40, repeats=4)
    assert [len(s.block) for s in repeated] == [min(25 + 2 * i, 255 // 4) for i in range(40)]
    assert {len(s.block) for s in draw_sequences(loaded, 5, repeats=1)} == {VOCABULARY - 10}
    for s in repeated:
        assert s.ids == (1, *s.block, *s.block, *s.block, *s.block)
        assert len(set(s.block)) == len(s.block) and set(s.block) <= set(ordinary_tokens(loaded))
    assert len({s.block for s in repeated}) == 40, "also those of the same length differ"
    drawn = {t for s in draw_sequences(loaded, 20, repeats=4) for t in s.block}
    assert drawn == set(ordinary_tokens(loaded)), "every token has its chance"


def test_a_seed_and_a_number_fix_a_sequence(info: ModelInfo) -> None:
    loaded = load(info)
    assert draw_sequences(loaded, 9, 4)[:3] == draw_sequences(loaded, 3, 4)
    assert draw_sequences(loaded, 1, 4, seed=1) != draw_sequences(loaded, 1, 4, seed=0)


def test_there_is_no_bos_where_the_tokenizer_has_none(info: ModelInfo) -> None:
    plain = load(info)
    loaded = Loaded(info, plain.model, copy.deepcopy(plain.tokenizer), plain.adapter)
    loaded.tokenizer.bos_token = None
    sequences = draw_sequences(loaded, 40, 4)
    assert sequences[0].start == () and len(sequences[-1].ids) == 256
    assert prefix_matching(loaded, sequences[:1]).shape == (1, 2, 2)


def test_nothing_to_draw_is_said(info: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(info)
    with pytest.raises(UserError, match="at least one"):
        draw_sequences(loaded, 0, 4)
    monkeypatch.setattr(loaded.model.config, "max_position_embeddings", 8)
    with pytest.raises(UserError, match="a context of 8, too few"):
        draw_sequences(loaded, 1, 4)


def test_retention_by_hand() -> None:
    scores = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert retention(scores, [0, 1, 2, 3]).tolist() == pytest.approx([100, 90, 70, 40, 0])
    assert retention(scores, [3, 0]).tolist() == pytest.approx([100, 60, 50])
    assert retention(scores, scores.argsort(axis=None))[-1] == 0
    assert retention(scores, []).tolist() == [100]
    for wrong in ([4], [-1], [0, 0]):
        with pytest.raises(UserError, match="names a head twice, or one that is not among 4"):
            retention(scores, wrong)
    with pytest.raises(UserError, match="add up to nothing"):
        retention(np.zeros(3), [0])
