from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_llama import Oracle

from prunelib.components import Component
from prunelib.errors import UserError
from prunelib.heads.in_context import (
    LastPositions,
    accuracy_changes,
    frozen_norm,
    in_context_heads,
    log_probability_increase,
)
from prunelib.heads.labelled import LabelledPrompt, encode_labelled, label_logprobs, predicted
from prunelib.interventions.ablation import Ablation
from prunelib.models import Loaded, ModelInfo, load
from prunelib.models.head_access import final_norm, out_columns
from prunelib.reference.tokenizer import build_tokenizer
from prunelib.tasks import draw_labelled, get_task, relabelled

Families = Callable[[str], ModelInfo]
TASK = relabelled(get_task("upper_or_lower"))


def prompts(count: int = 12, fmt: str = "colon", **changes: object) -> list[LabelledPrompt]:
    settings: dict[str, object] = {"split": "report", "counts": (2, 2), "seed": 0,
                                   "count": count, "prompt_format": fmt, "order": "shuffled"}
    examples = draw_labelled(TASK, **(settings | changes))  # type: ignore[arg-type]
    return encode_labelled(TASK, examples, build_tokenizer())


def undecided(loaded: Loaded, some: list[LabelledPrompt]) -> list[LabelledPrompt]:
    """The prompts with those two tokens for labels between which a random model is least decided.

    It gives nearly all prompts the same of two given tokens, and nothing could be seen of that.
    """
    with torch.inference_mode():
        logits = torch.stack([loaded.model(torch.tensor([p.ids])).logits[0, -1] for p in some])
    higher = (logits[:, :, None] > logits[:, None, :]).sum(0)
    pair = torch.minimum(higher, higher.T).argmax().item()
    labels = divmod(int(pair), logits.shape[1])
    return [replace(prompt, labels=labels) for prompt in some]


@pytest.mark.parametrize("fmt", ["colon", "arrow"])
def test_places_are_where_the_labels_begin_to_differ(fmt: str) -> None:
    tokenizer = build_tokenizer()
    vocabulary = tokenizer.get_vocab()
    for prompt in prompts(fmt=fmt):
        assert prompt.labels == (vocabulary["f"], vocabulary["b"])
        text = tokenizer.convert_ids_to_tokens(list(prompt.ids))
        # The blank that both labels begin with belongs to the prompt, as it tells nothing.
        assert text[-1] == (" " if fmt == "colon" else ">")
        for place, label in zip(prompt.places, prompt.shown, strict=True):
            assert "".join(text[place : place + 3]) == ("foo", "bar")[label]


def test_minority_places_count_from_the_end() -> None:
    for prompt in prompts(counts=(3, 1)):
        places, ratio = prompt.minority
        assert ratio == 3 and len(places) == 1
        assert prompt.ids[places[0]] == prompt.labels[1]
    assert prompts()[0].minority == ((), 1.0)
    assert prompts(counts=(2, 0))[0].minority == ((), 1.0)


def test_a_label_that_begins_the_other_is_refused() -> None:
    task = relabelled(get_task("upper_or_lower"), ("foo", "foobar"))
    examples = draw_labelled(task, split="report", counts=(1, 1), seed=0, count=1)
    with pytest.raises(UserError, match="'foo' is the beginning"):
        encode_labelled(task, examples, build_tokenizer())


@torch.inference_mode()
def llama_by_hand(model: torch.nn.Module, ids: tuple[int, ...]) -> tuple:  # type: ignore[type-arg]
    """Streams into layers, each head's part of the stream and the last stream, at the end."""
    config, weights = model.config, model.state_dict()
    size, length = config.head_dim, len(ids)
    groups = config.num_attention_heads // config.num_key_value_heads
    angles = torch.arange(length)[:, None] * 1e4 ** (-torch.arange(0, size, 2) / size)
    turn = torch.polar(torch.ones_like(angles), angles)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * weights[name]

    def rotate(x: torch.Tensor) -> torch.Tensor:
        z = torch.complex(x[:, : size // 2], x[:, size // 2 :]) * turn
        return torch.cat([z.real, z.imag], 1)

    x, streams, parts = weights["model.embed_tokens.weight"][list(ids)], [], []
    for i in range(config.num_hidden_layers):
        w = {k.removeprefix(f"model.layers.{i}."): v for k, v in weights.items()}
        y = norm(x, f"model.layers.{i}.input_layernorm.weight")
        streams.append(x[-1])
        own = []
        for h in range(config.num_attention_heads):
            q, k, v = (y @ w[f"self_attn.{n}_proj.weight"][j * size : (j + 1) * size].T
                       for n, j in (("q", h), ("k", h // groups), ("v", h // groups)))
            scores = rotate(q) @ rotate(k).T / math.sqrt(size)
            scores = scores.masked_fill(torch.ones_like(scores).triu(1) > 0, -torch.inf)
            own.append(scores.softmax(-1) @ v
                       @ w["self_attn.o_proj.weight"][:, h * size : (h + 1) * size].T)
        parts.append(torch.stack([part[-1] for part in own]))
        x = x + sum(own)
        y = norm(x, f"model.layers.{i}.post_attention_layernorm.weight")
        x = x + (torch.nn.functional.silu(y @ w["mlp.gate_proj.weight"].T)
                 * (y @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
    return streams, parts, x[-1]


@torch.inference_mode()
def gpt2_by_hand(model: torch.nn.Module, ids: tuple[int, ...]) -> tuple:  # type: ignore[type-arg]
    config, weights = model.config, model.state_dict()
    width, count = config.n_embd, config.n_head
    size = width // count
    x = weights["transformer.wte.weight"][list(ids)] + weights["transformer.wpe.weight"][:len(ids)]
    streams, parts = [], []

    def norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, (width,), weight, bias, config.layer_norm_epsilon)

    for i in range(config.n_layer):
        w = {k.removeprefix(f"transformer.h.{i}."): v for k, v in weights.items()}
        streams.append(x[-1])
        mixed = norm(x, w["ln_1.weight"], w["ln_1.bias"]) @ w["attn.c_attn.weight"]
        q, k, v = (mixed + w["attn.c_attn.bias"]).split(width, 1)
        own = []
        for h in range(count):
            part = slice(h * size, (h + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            scores = scores.masked_fill(torch.ones_like(scores).triu(1) > 0, -torch.inf)
            own.append(scores.softmax(-1) @ v[:, part] @ w["attn.c_proj.weight"][part])
        parts.append(torch.stack([part[-1] for part in own]))
        x = x + sum(own) + w["attn.c_proj.bias"]
        y = norm(x, w["ln_2.weight"], w["ln_2.bias"]) @ w["mlp.c_fc.weight"] + w["mlp.c_fc.bias"]
        y = torch.nn.functional.gelu(y, approximate="tanh")
        x = x + y @ w["mlp.c_proj.weight"] + w["mlp.c_proj.bias"]
    return streams, parts, x[-1]


def increase_by_hand(model: torch.nn.Module, prompt: LabelledPrompt, kind: str
                     ) -> tuple[int, np.ndarray]:  # type: ignore[type-arg]
    """The predicted label and the score of every head, from nothing but weights."""
    weights, config = model.state_dict(), model.config
    by_hand = gpt2_by_hand if kind == "gpt2" else llama_by_hand
    streams, parts, final = by_hand(model, prompt.ids)
    unembedding = weights["lm_head.weight"]

    def logprobs(v: torch.Tensor) -> torch.Tensor:
        if kind == "gpt2":
            variance = ((final - final.mean()) ** 2).mean() + config.layer_norm_epsilon
            normed = (v - final.mean()) / variance.sqrt()
            normed = normed * weights["transformer.ln_f.weight"] + weights["transformer.ln_f.bias"]
        else:
            mean_square = (final**2).mean() + config.rms_norm_eps
            normed = v / mean_square.sqrt() * weights["model.norm.weight"]
        return (normed @ unembedding.T).log_softmax(-1)

    label = int(logprobs(final)[list(prompt.labels)].argmax())
    token = prompt.labels[label]
    return label, np.array([[float(logprobs(o + v)[token] - logprobs(v)[token]) for o in each]
                            for v, each in zip(streams, parts, strict=True)])


@pytest.mark.parametrize("name", ["llama", "llama, shared keys", "gpt2"])
def test_log_probability_increase_is_that_of_explicit_matrices(name: str, families: Families
                                                               ) -> None:
    loaded = load(families(name), "float64")
    some = undecided(loaded, prompts())
    found, errors = log_probability_increase(loaded, some, rows=5)
    by_hand = [increase_by_hand(loaded.model, prompt, name) for prompt in some]
    for label in (0, 1):
        scores = [score for said, score in by_hand if said == label]
        assert scores
        # transformers rotates in float32.
        np.testing.assert_allclose(found[label], np.mean(scores, 0), atol=1e-4)
        assert np.abs(found[label]).max() > 0.1
        # No query is asked twice here.
        np.testing.assert_allclose(errors[label], np.std(scores, 0, ddof=1) / len(scores)**0.5,
                                   atol=1e-4)


@pytest.mark.parametrize("name", ["bloom", "opt", "gpt_neox", "gemma"])
def test_a_frozen_norm_of_the_true_stream_and_all_heads_together_are_the_models_own(
    name: str, families: Families
) -> None:
    loaded = load(families(name))
    some, ends = prompts(4), LastPositions()
    logits = ends.read(loaded, some)
    gain, shift = frozen_norm(final_norm(loaded), ends.final)
    head: torch.nn.Linear = loaded.model.get_output_embeddings()  # type: ignore[assignment]
    torch.testing.assert_close(head(ends.final * gain + shift), logits, atol=1e-4, rtol=1e-4)
    for i, layer in enumerate(loaded.adapter.layers(loaded.model)):
        out = layer.get_submodule(loaded.adapter.heads.out)  # type: ignore[union-attr]
        together = torch.einsum("rhs,hsw->rw", ends.heads[i], out_columns(loaded, i))
        whole = out(ends.heads[i].flatten(1))
        torch.testing.assert_close(together + (0 if out.bias is None else out.bias), whole,
                                   atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom"])
def test_accuracy_changes_are_those_of_zeroed_columns(name: str, families: Families) -> None:
    info = families(name)
    loaded = load(info)
    some = undecided(loaded, prompts(20))
    changes, errors = accuracy_changes(loaded, some)
    oracle = Oracle(info)

    def answers(ablation: Ablation) -> tuple[list[bool], list[bool]]:
        model = oracle.ablated(ablation)
        right: tuple[list[bool], list[bool]] = ([], [])
        for prompt in some:
            with torch.inference_mode():
                logits = model(torch.tensor([prompt.ids])).logits[0, -1, list(prompt.labels)]
            right[prompt.gold].append(int(logits.argmax()) == prompt.gold)
        return right

    before = answers(Ablation())
    for layer in range(info.layers):
        for head in range(info.heads):
            after = answers(Ablation.of_layer(layer, [head], "head"))
            for label in (0, 1):  # no query is asked twice here
                gaps = np.subtract(after[label], before[label], dtype=float)
                assert changes[label, layer, head] == pytest.approx(gaps.mean(), abs=1e-9)
                assert errors[label, layer, head] == pytest.approx(
                    gaps.std(ddof=1) / len(gaps) ** 0.5, abs=1e-9)
    assert np.abs(changes).max() > 0


def test_layers_that_were_not_asked_for_are_nan(families: Families) -> None:
    changes, _ = accuracy_changes(load(families("llama")), prompts(4), layers=[1])
    assert np.isnan(changes[:, 0]).all() and not np.isnan(changes[:, 1]).any()
    with pytest.raises(UserError, match="layer 7 is not in"):
        accuracy_changes(load(families("llama")), prompts(4), layers=[7])


def test_logprobs_do_not_depend_on_the_batch(families: Families) -> None:
    loaded = load(families("llama"), "float64")
    some = undecided(loaded, prompts(12))
    one, many = (label_logprobs(loaded, some, rows=n) for n in (1, 12))
    np.testing.assert_allclose(one, many, atol=1e-9)
    assert len(set(predicted(one))) == 2


@pytest.mark.parametrize("name", ["mamba", "gemma2", "opt, norm after"])
def test_models_without_one_final_norm_are_refused(name: str, families: Families) -> None:
    part = "no attention heads" if name == "mamba" else "one final norm"
    with pytest.raises(UserError, match=part):
        log_probability_increase(load(families(name)), prompts(2))


def heads(*places: tuple[int, int]) -> tuple[Component, ...]:
    return tuple(Component(layer, "head", head) for layer, head in places)


def test_heads_that_both_scores_put_first_are_taken_for_their_label() -> None:
    # foo: head 0.0 hurts most when off and raises most; bar: head 1.2. For foo 0.1 and 0.2 have
    # ranks 1 + 2 and 2 + 1, and 0.2 raises more.
    causal = np.array([[[-.5, -.1, 0], [0, 0, .3]], [[.2, 0, 0], [0, -.1, -.4]]])
    increase = np.array([[[3., 1, 2], [0, 0, -1]], [[-1., 0, 0], [.5, 1, 4]]])
    assert in_context_heads(causal, increase, top=2, each=2) == (
        heads((0, 0), (0, 2)), heads((1, 2), (1, 1)))
    assert in_context_heads(causal, increase, top=2, each=1) == (heads((0, 0)), heads((1, 2)))


def test_a_head_that_both_labels_want_goes_where_it_ranks_higher() -> None:
    causal = np.array([[[-.1, -.2, 0]], [[-.9, 0, 0]]])
    increase = np.array([[[1., 2, 0]], [[5., 0, .5]]])
    # Head 0 is second for foo and first for bar; without it foo has one head.
    assert in_context_heads(causal, increase, top=2, each=2) == (
        heads((0, 1)), heads((0, 0), (0, 2)))


def test_a_head_that_helps_nobody_is_not_taken_however_few_there_are() -> None:
    causal = np.array([[[0., .2]], [[np.nan, np.nan]]])
    increase = np.array([[[-1., -2]], [[-3., .1]]])
    assert in_context_heads(causal, increase) == ((), heads((0, 1)))


def test_only_the_top_of_either_score_is_a_candidate() -> None:
    causal = -np.array([[[9., 8, 1, 2]], [[0., 0, 0, 0]]])
    increase = np.array([[[1., 2, 9, 3]], [[0., 0, 0, 0]]])
    # Ranks: 0, 1, 3, 2 and 3, 2, 0, 1; with top 1 heads 0 and 2 alone, 0+1 and 1+0: the higher
    # increase decides.
    assert in_context_heads(causal, increase, top=1, each=4)[0] == heads((0, 2), (0, 0))
