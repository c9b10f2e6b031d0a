"""What models need of GPUs, by their configs alone, and what autograd really keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from large_models import LLAMA_70B, OPT_66B, config_only

from prunelib.errors import UserError
from prunelib.models import describe, load
from prunelib.models.info import outline
from prunelib.pipeline.units.memory import (
    activation_bytes,
    gpu_bytes,
    gpus_for,
    weight_bytes,
)

GIB = 1 << 30


@pytest.mark.parametrize(("config", "billions", "vllm", "torch_"), [
    (OPT_66B, 65.7, 2, 3),
    (LLAMA_70B, 70.6, 2, 3),
])
def test_large_models_by_their_config(
    config: dict[str, object], billions: float, vllm: int, torch_: int, tmp_path: Path
) -> None:
    info = outline(config_only(tmp_path / "m", config))
    assert weight_bytes(info, "bfloat16") == pytest.approx(2e9 * billions, rel=0.002)
    assert weight_bytes(info, "float32") == 2 * weight_bytes(info, "bfloat16")
    for role, gpus in (("vllm", vllm), ("torch", torch_)):
        taken = gpu_bytes(info, "bfloat16", role)  # type: ignore[arg-type]
        assert gpus_for(taken, 80 * GIB, role) == gpus  # type: ignore[arg-type]
        assert taken <= gpus * 80 * GIB


def test_an_outline_has_the_sizes_of_the_model() -> None:
    for name in ("llama", "gpt2", "opt", "bloom", "mamba"):
        outlined, known = outline(f"reference/{name}"), describe(f"reference/{name}")
        for field in ("layers", "width", "stream", "heads", "head_size", "mlp_bias", "model_type"):
            assert getattr(outlined, field) == getattr(known, field), (name, field)
        # The file has a header, and a matrix that is tied once.
        assert outlined.bytes == pytest.approx(known.bytes, rel=0.02)


def test_what_no_config_can_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mixture of experts"):
        outline(config_only(tmp_path / "m", LLAMA_70B | {"num_local_experts": 8}))
    with pytest.raises(UserError, match=r"no readable config\.json"):
        outline(str(tmp_path))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_autograd_keeps_what_is_planned(dtype: str) -> None:
    loaded = load(describe("reference/llama"), dtype, ["cpu"])
    weights = {p.untyped_storage().data_ptr() for p in loaded.model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            kept[place] = tensor
        return tensor

    stream = loaded.model.get_input_embeddings()(torch.randint(4, 60, (5, 40)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loaded.model(inputs_embeds=stream.requires_grad_(), use_cache=False, logits_to_keep=1)
    counted = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert counted == pytest.approx(activation_bytes(loaded.info, dtype, 200), rel=0.1)
