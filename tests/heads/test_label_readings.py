from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_in_context import gpt2_by_hand, llama_by_hand, prompts

from prunelib.components import Component
from prunelib.errors import UserError
from prunelib.heads.in_context import LastPositions
from prunelib.heads.label_readings import compared, label_readings
from prunelib.heads.labelled import batched
from prunelib.models import ModelInfo, load
from prunelib.models.head_access import LastAttention, out_columns

Families = Callable[[str], ModelInfo]
NAMES = ["llama", "llama, shared keys", "mistral", "qwen2", "qwen3", "gemma", "gpt2", "opt",
         "bloom", "gpt_neox"]


@pytest.mark.parametrize("name", NAMES)
def test_weighted_value_outputs_add_up_to_what_a_head_gives(name: str, families: Families) -> None:
    loaded = load(families(name))
    some, ends, last = prompts(5), LastPositions(), LastAttention()
    before = loaded.model.config._attn_implementation
    with last.reading(loaded, range(loaded.info.layers)):
        ends.read(loaded, some)
    assert loaded.model.config._attn_implementation == before
    for layer in range(loaded.info.layers):
        for head in range(loaded.info.heads):
            whole = ends.heads[layer][:, head] @ out_columns(loaded, layer)[head]
            torch.testing.assert_close(last.weighted(loaded, layer, head).sum(1), whole,
                                       atol=1e-4, rtol=1e-4)
            assert whole.abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_readings_are_those_of_explicit_matrices(name: str, families: Families) -> None:
    """The logit-minus of every place that is a label, from one prompt's own values."""
    loaded = load(families(name), "float64")
    [prompt] = prompts(1)
    weights, head = loaded.model.state_dict(), Component(1, "head", 1)
    found = label_readings(loaded, [prompt], [head])
    _, _, final = (gpt2_by_hand if name == "gpt2" else llama_by_hand)(loaded.model, prompt.ids)
    centred = final - final.mean() if name == "gpt2" else final
    gain = weights["transformer.ln_f.weight" if name == "gpt2" else "model.norm.weight"]
    eps = loaded.model.config.layer_norm_epsilon if name == "gpt2" else 1e-6
    with torch.inference_mode():
        loaded.model.set_attn_implementation("eager")
        output = loaded.model(torch.tensor([prompt.ids]), output_attentions=True,
                              output_hidden_states=True)
        alpha = output.attentions[1][0, 1, -1]
        normed = (loaded.model.transformer.h[1].ln_1 if name == "gpt2"
                  else loaded.model.model.layers[1].input_layernorm)(output.hidden_states[1][0])
        if name == "gpt2":
            values = normed @ weights["transformer.h.1.attn.c_attn.weight"][:, 160:]
            values = values + weights["transformer.h.1.attn.c_attn.bias"][160:]
            vo = values @ weights["transformer.h.1.attn.c_proj.weight"][32:]
        else:
            values = normed @ weights["model.layers.1.self_attn.v_proj.weight"][32:].T
            vo = values @ weights["model.layers.1.self_attn.o_proj.weight"][:, 32:].T
    for i, place in enumerate(prompt.places):
        v = alpha[place] * vo[place] / (centred.square().mean() + eps).sqrt() * gain
        logprobs = (weights["lm_head.weight"] @ v).log_softmax(-1)[list(prompt.labels)]
        assert found.attention[0, 0, i] == pytest.approx(float(alpha[place]), abs=1e-6)
        assert found.logit_minus[0, 0, i] == pytest.approx(float(logprobs[0] - logprobs[1]),
                                                           abs=1e-6)
        assert found.value_minus[0, 0, i] == pytest.approx(
            float(logprobs[0] - logprobs[1]) / float(alpha[place]), rel=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_readings_do_not_depend_on_padding(name: str, families: Families) -> None:
    loaded = load(families(name))  # eager attention masks padding with nan in float64
    some, heads = prompts(6), [Component(0, "head", 1), Component(1, "head", 0)]
    assert len({len(p.ids) for p in some}) > 1
    one, many = (label_readings(loaded, some, heads, rows=n) for n in (1, 6))
    np.testing.assert_allclose(one.attention, many.attention, atol=1e-5)
    np.testing.assert_allclose(one.logit_minus, many.logit_minus, atol=1e-4)
    assert one.attention.shape == (6, 2, 4)
    assert batched(loaded, some).ids.shape[0] == 6


def test_readings_are_compared_at_the_places_of_a_label(families: Families) -> None:
    loaded = load(families("llama"))
    heads = [Component(0, "head", 0), Component(1, "head", 1)]
    some = prompts(8)
    queries = [prompt.query for prompt in some[:6]] + [some[0].query] * 2
    before = label_readings(loaded, some, heads)
    after = label_readings(loaded, prompts(8, reverse=True), heads)
    assert (before.shown == 1 - after.shown).all()
    found = compared(before, after, queries)
    for name in ("attention", "value_minus", "logit_minus"):
        for h in range(2):
            for label in (0, 1):
                old, new = (np.array([
                    sum(getattr(r, name)[i, h, j] for j in range(4) if r.shown[i, j] == label)
                    for i in range(8)]) for r in (before, after))
                assert found[name][0][h, label] == pytest.approx(old.mean())
                assert found[f"{name}_reversed"][0][h, label] == pytest.approx(new.mean())
                merged = [np.add.reduceat(x[[0, 6, 7, 1, 2, 3, 4, 5]], [0, 3, 4, 5, 6, 7])
                          for x in (old, new, np.ones(8))]
                assert found[name][1][h, label] == pytest.approx(
                    clustered(merged[0], merged[2]))
                if name != "logit_minus":
                    values, errors = found[f"{name}_change"]
                    assert values[h, label] == pytest.approx(new.sum() / old.sum() - 1)
                    assert errors[h, label] == pytest.approx(clustered(merged[1], merged[0]))
    assert np.abs(found["attention_change"][0]).min() > 1e-6
    assert (compared(before, before, queries)["attention_change"][0] == 0).all()


def clustered(sums: np.ndarray, base: np.ndarray) -> float:
    """Standard error of Σ sums / Σ base, from one item for each of six queries."""
    residuals = sums - sums.sum() / base.sum() * base
    return float((6 / 5 * (residuals**2).sum()) ** 0.5 / abs(base.sum()))


def test_prompts_of_different_shots_are_refused(families: Families) -> None:
    with pytest.raises(UserError, match="equally many"):
        label_readings(load(families("llama")), prompts(2) + prompts(2, counts=(3, 2)), [])
