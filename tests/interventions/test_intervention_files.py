"""Interventions in files, applied to a model by plain transformers code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES
from transformers import AutoModelForCausalLM

from prunelib.errors import UserError
from prunelib.interventions import apply
from prunelib.interventions.ablation import Ablation
from prunelib.interventions.export import ABOUT, export
from prunelib.interventions.files import read_file, write_file
from prunelib.interventions.fine_tuning import FineTuning
from prunelib.interventions.steering import Edit, Steering, packed
from prunelib.models import ModelInfo
from prunelib.recipe.controls import FineTuningSpec

PROMPT = torch.tensor([[1, 20, 21, 22, 23, 24, 25]])


def plain(folder: str | Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(PROMPT).logits
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_does_to_a_model_what_zeros_in_its_weights_do(
    families: Callable[[str], ModelInfo], family: str, tmp_path: Path
) -> None:
    info = families(family)
    some = Ablation.of([*Ablation.of_layer(0, range(0, info.width, 3), info.site).components,
                        *Ablation.of_layer(1, range(5), info.site).components])
    file = write_file(info, some, tmp_path / "some.json")
    expected = logits(plain(export(info, some, tmp_path / "zeros")))
    model = plain(info.path)
    before = logits(model)
    with apply(model, file) as same:
        assert same is model
        torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(logits(model), before) and not torch.equal(before, expected)
    with pytest.raises(RuntimeError, match="on the way"), apply(model, file):
        raise RuntimeError("on the way")
    assert torch.equal(logits(model), before)
    assert read_file(tmp_path / "zeros" / ABOUT) == read_file(file) == some


def test_what_does_not_fit_is_refused(info: ModelInfo, tmp_path: Path) -> None:
    model = plain(info.path)
    (tmp_path / "far.csv").write_text(f"layer,site,index\n{info.layers},mlp_hidden,0\n")
    with pytest.raises(UserError, match="is not in a model of"), apply(model, tmp_path / "far.csv"):
        pass
    tuned = FineTuning((("a", "b"),), FineTuningSpec())
    write_file(info, tuned, tmp_path / "tuned.json")
    assert read_file(tmp_path / "tuned.json") == tuned
    with pytest.raises(UserError, match="export it to a folder"), apply(
            model, tmp_path / "tuned.json"):
        pass
    with pytest.raises(UserError, match="exists: give a new file"):
        write_file(info, tuned, tmp_path / "tuned.json")
    with pytest.raises(UserError, match="cannot write"):
        write_file(info, tuned, tmp_path / "tuned.json" / "below.json")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_vector_in_a_file_is_added_to_what_a_layer_gives(info: ModelInfo, tmp_path: Path) -> None:
    """At the last position alone, as the oracle is a hook of a few lines."""
    shift = torch.linspace(-1, 1, info.stream)
    file = write_file(info, Steering.of([Edit(0, "stream", shift=packed(shift.tolist()))]),
                      tmp_path / "v.json")
    model = plain(info.path)

    def hook(_: Any, __: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        first[:, -1] += shift
        return output

    handle = model.model.layers[0].register_forward_hook(hook)
    expected = logits(model)
    handle.remove()
    with apply(model, file):
        torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(logits(model), expected)
