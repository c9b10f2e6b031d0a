"""Gradient importance: what gates on the weights say, without hooks, padding or batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES
from tiny_llama import CONTEXT, random_prompts

from prunelib.errors import UnitError, UserError
from prunelib.heads.importance import gradient_importance
from prunelib.interventions.ablation import Ablation, ActivationMasks
from prunelib.models import Loaded, ModelInfo, load
from prunelib.models.adapter import output_dim
from prunelib.tasks.tokenization import Encoded

Families = Callable[[str], ModelInfo]

ATTENTIVE = [name for name in FAMILIES if not name.startswith("mamba")]
GOLDS = [(5, 9), (6,), (7, 8, 9), (10,), (0, 12), (5,), (9, 9)]
#: Of different lengths, with answers of one to three tokens; one begins with that of padding.
PROMPTS = [Encoded(ids, gold, ())
           for ids, gold in zip(random_prompts(len(GOLDS), 5, 20), GOLDS, strict=True)]


def tolerance(family: str) -> float:
    """BLOOM's softmax is in float32 whatever the model is in; all others to rounding."""
    return 1e-6 if family == "bloom" else 1e-10


def places(loaded: Loaded, layer: int) -> tuple[str, str]:
    """Names of the projections that heads enter and that an FFN leaves."""
    stack = f"{loaded.adapter.stack}.{layer}."
    assert loaded.adapter.heads is not None
    return stack + loaded.adapter.heads.out, stack + loaded.adapter.switched


def gated_loss(
    loaded: Loaded, prompt: Encoded, heads: torch.Tensor, ffns: torch.Tensor
) -> torch.Tensor:
    """Loss of one prompt with gates ``[layers, heads]`` and ``[layers]`` multiplied into weights.

    No hooks and no padding; the whole answer is read, every logit computed.
    """
    weights = {}
    for layer in range(loaded.info.layers):
        out, switched = places(loaded, layer)
        module = loaded.model.get_submodule(out)
        gate = heads[layer].repeat_interleave(loaded.info.head_size)
        weights[f"{out}.weight"] = module.weight * (gate[:, None] if output_dim(module) else gate)
        for name, weight in loaded.model.get_submodule(switched).named_parameters():
            weights[f"{switched}.{name}"] = weight * ffns[layer]
    ids = torch.tensor([prompt.prompt + prompt.gold])
    logits = torch.func.functional_call(loaded.model, weights, (), {"input_ids": ids}).logits[0]
    logs = logits.log_softmax(-1)
    start = len(prompt.prompt) - 1
    return -sum(logs[start + j, token] for j, token in enumerate(prompt.gold)) / len(prompt.gold)


def importance(loaded: Loaded, rows: int = 8) -> dict[str, dict[str, np.ndarray]]:
    """Scores, of FFNs ``[layers]``."""
    found = gradient_importance(loaded, PROMPTS, rows)
    return {"head": {name: each.scores for name, each in found["head"].items()},
            "ffn": {name: each.scores[:, 0] for name, each in found["ffn"].items()}}


def open_gates(loaded: Loaded) -> tuple[torch.Tensor, torch.Tensor]:
    return (torch.ones(loaded.info.layers, loaded.info.heads, dtype=torch.float64),
            torch.ones(loaded.info.layers, dtype=torch.float64))


@pytest.mark.parametrize("family", ATTENTIVE)
def test_signed_and_gate_are_autograd_on_gates(family: str, families: Families) -> None:
    torch.set_num_threads(1)
    loaded = load(families(family), "float64")
    gates = [gate.requires_grad_() for gate in open_gates(loaded)]
    slopes = [torch.autograd.grad(gated_loss(loaded, prompt, *gates), gates) for prompt in PROMPTS]
    found = importance(loaded)
    for which, kind in enumerate(("head", "ffn")):
        each = torch.stack([slope[which] for slope in slopes]).numpy()
        assert np.abs(each).max(tuple(range(1, each.ndim))).min() > 1e-6
        close = {"rtol": 0, "atol": tolerance(family)}
        np.testing.assert_allclose(found[kind]["signed"], each.mean(0), **close)
        np.testing.assert_allclose(found[kind]["gate"], np.abs(each).mean(0), **close)


def test_errors_are_those_of_one_prompt_at_a_time(families: Families) -> None:
    loaded = load(families("llama"), "float64")
    found = gradient_importance(loaded, PROMPTS)
    queries = [str(i // 2) for i in range(len(PROMPTS))]
    alone = [gradient_importance(loaded, [prompt]) for prompt in PROMPTS]
    for kind, variants in found.items():
        for variant, of_all in variants.items():
            each = np.stack([a[kind][variant].each[0] for a in alone])
            base = np.stack([a[kind][variant].weights[0] for a in alone])
            np.testing.assert_allclose(of_all.errors(queries),
                                       ratio_error(each, base, queries), atol=1e-12)
            # By prompts, of a plain mean: the textbook's.
            if variant != "per_token":
                np.testing.assert_allclose(
                    of_all.errors([str(i) for i in range(len(PROMPTS))]),
                    each.std(0, ddof=1) / len(each) ** 0.5, atol=1e-12)


def ratio_error(each: np.ndarray, base: np.ndarray, queries: list[str]) -> np.ndarray:
    """Linearised, query by query."""
    names = list(dict.fromkeys(queries))
    ratio = each.sum(0) / base.sum(0)
    total = 0
    for name in names:
        mine = [i for i, query in enumerate(queries) if query == name]
        total = total + (each[mine].sum(0) - ratio * base[mine].sum(0)) ** 2
    return (len(names) / (len(names) - 1) * total) ** 0.5 / base.sum(0)


@pytest.mark.parametrize("family", ATTENTIVE)
def test_neither_padding_nor_the_batch_matters(family: str, families: Families) -> None:
    torch.set_num_threads(1)
    loaded = load(families(family), "float64")
    together, apart, some = (importance(loaded, rows) for rows in (7, 1, 3))
    for kind, variants in together.items():
        for variant, scores in variants.items():
            for other in (apart, some):
                np.testing.assert_allclose(other[kind][variant], scores, rtol=0,
                                           atol=tolerance(family))


def test_the_slope_is_that_of_finite_differences(families: Families) -> None:
    loaded = load(families("gpt2"), "float64")  # whose norms are in float64 throughout
    heads, ffns = open_gates(loaded)
    found = importance(loaded)
    step = 1e-5

    def loss() -> float:
        with torch.no_grad():
            return float(np.mean([float(gated_loss(loaded, p, heads, ffns)) for p in PROMPTS]))

    def slope(gate: torch.Tensor) -> float:
        gate += step
        there = loss()
        gate -= 2 * step
        back = loss()
        gate += step
        return (there - back) / (2 * step)

    for layer in range(loaded.info.layers):
        assert slope(ffns[layer]) == pytest.approx(found["ffn"]["signed"][layer], abs=1e-6)
        for head in range(loaded.info.heads):
            assert slope(heads[layer, head]) == pytest.approx(
                found["head"]["signed"][layer, head], abs=1e-6)


def brute_force(loaded: Loaded, prompts: list[Encoded]) -> dict[str, np.ndarray]:
    """Σ over tokens of |g·A| over the released number of tokens, one prompt and token at a time.

    g comes from an addend to the activation rather than from the activation.
    """
    info = loaded.info
    sums = {"head": np.zeros((info.layers, info.heads)), "ffn": np.zeros(info.layers)}
    for prompt in prompts:
        ids = torch.tensor([prompt.prompt + prompt.gold])
        seen: dict[tuple[str, int], torch.Tensor] = {}
        addends: dict[tuple[str, int], torch.Tensor] = {}

        def add(place: tuple[str, int], values: torch.Tensor, seen=seen, addends=addends
                ) -> torch.Tensor:
            seen[place] = values.detach()
            addends[place] = torch.zeros_like(values, requires_grad=True)
            return values + addends[place]

        handles = []
        for layer in range(info.layers):
            out, switched = (loaded.model.get_submodule(name) for name in places(loaded, layer))
            handles += [
                out.register_forward_pre_hook(lambda _, a, p=("head", layer): add(p, a[0])),
                switched.register_forward_hook(lambda _, __, o, p=("ffn", layer): add(p, o))]
        logs = loaded.model(input_ids=ids).logits[0].log_softmax(-1)
        start = len(prompt.prompt) - 1
        loss = -sum(logs[start + j, token] for j, token in enumerate(prompt.gold))
        (loss / len(prompt.gold)).backward()
        for handle in handles:
            handle.remove()
        for (kind, layer), addend in addends.items():
            values = seen[kind, layer].reshape(ids.shape[1], -1)
            slopes = addend.grad.reshape(ids.shape[1], -1)
            for token in range(ids.shape[1]):
                if kind == "ffn":
                    sums[kind][layer] += abs(float(values[token] @ slopes[token]))
                    continue
                for head in range(info.heads):
                    cut = slice(head * info.head_size, (head + 1) * info.head_size)
                    sums[kind][layer, head] += abs(float(values[token, cut] @ slopes[token, cut]))
    tokens = sum(len(prompt.prompt) + len(prompt.gold) - 1 for prompt in prompts)
    labels = sum(len(prompt.gold) for prompt in prompts)
    for found in sums.values():
        found[:-1] /= tokens
        found[-1] /= labels
    return sums


@pytest.mark.parametrize("family", ["llama, shared keys", "gpt2", "opt", "bloom"])
def test_per_token_is_the_brute_force_sum(family: str, families: Families) -> None:
    torch.set_num_threads(1)
    loaded = load(families(family), "float64")
    expected = brute_force(loaded, PROMPTS)
    found = importance(loaded)
    for kind, scores in expected.items():
        np.testing.assert_allclose(found[kind]["per_token"], scores, rtol=0,
                                   atol=tolerance(family))
        # Absolute values per token hide what cancels between tokens.
        assert not np.allclose(found[kind]["per_token"], found[kind]["gate"], rtol=0.1)


def test_what_reaches_nothing_has_no_importance(families: Families) -> None:
    loaded = load(families("llama, shared keys"), "float64")
    out, _ = places(loaded, 0)
    _, switched = places(loaded, 1)
    size = loaded.info.head_size
    loaded.model.get_submodule(out).weight.data[:, 2 * size : 3 * size] = 0
    loaded.model.get_submodule(switched).weight.data[:] = 0
    found = importance(loaded)
    for scores in found["head"].values():
        assert scores[0, 2] == 0
        assert np.count_nonzero(scores) == scores.size - 1
    for scores in found["ffn"].values():
        assert scores[1] == 0 != scores[0]


def test_to_first_order_it_is_what_removal_costs(families: Families) -> None:
    """A head whose output is tiny: the loss without it is the loss minus its signed score."""
    loaded = load(families("gpt2"), "float64")
    out, _ = places(loaded, 1)
    size = loaded.info.head_size
    loaded.model.get_submodule(out).weight.data[size:] *= 1e-4
    signed = importance(loaded)["head"]["signed"][1, 1]
    gates = open_gates(loaded)

    def loss() -> float:
        with torch.no_grad():
            return float(np.mean([float(gated_loss(loaded, p, *gates)) for p in PROMPTS]))

    whole = loss()
    with ActivationMasks(loaded) as masks:
        masks.set(Ablation.of_layer(1, [1], "head"))
        without = loss()
    assert abs(signed) > 1e-7
    assert without - whole == pytest.approx(-signed, rel=1e-2)


def test_a_norm_behind_the_ffn_hides_its_size(families: Families) -> None:
    """As documented: a gate on all that a norm reads changes nothing."""
    for family in ("gemma2", "gemma3_text"):
        found = importance(load(families(family), "float64"))
        assert found["ffn"]["per_token"].max() < 0.01 * found["head"]["per_token"].max()


def test_the_model_is_left_as_it_was(families: Families) -> None:
    loaded = load(families("bloom"))
    prompts = [replace(PROMPTS[0], gold=(10**9,))]
    with pytest.raises(IndexError):  # an id that no vocabulary has
        gradient_importance(loaded, prompts)
    gradient_importance(loaded, PROMPTS)
    for module in loaded.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for parameter in loaded.model.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad


def test_twice_gives_the_same_bits(families: Families) -> None:
    loaded = load(families("llama"))
    first, second = (importance(loaded, 2) for _ in range(2))
    for kind, variants in first.items():
        for variant, scores in variants.items():
            assert scores.tobytes() == second[kind][variant].tobytes()
            assert scores.dtype == np.float64


def test_what_cannot_be_scored_says_why(families: Families) -> None:
    with pytest.raises(UserError, match="'mamba' has no attention heads"):
        gradient_importance(load(families("mamba")), PROMPTS)
    loaded = load(families("gpt2"))
    with pytest.raises(UserError, match="use a task with labels"):
        gradient_importance(loaded, [replace(PROMPTS[0], gold=())])
    long = Encoded((5,) * CONTEXT, (6,), ())
    gradient_importance(loaded, [long])
    with pytest.raises(UnitError, match=f"{CONTEXT + 1} tokens in a context of {CONTEXT}"):
        gradient_importance(loaded, [replace(long, gold=(6, 6))])
