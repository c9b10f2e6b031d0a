"""What is read out of several rows is read in one multiplication."""

from __future__ import annotations

import torch

from prunelib.models import ModelInfo, load
from prunelib.models.readout import read_out_together


def test_the_unembedding_gets_rows_without_gaps(info: ModelInfo) -> None:
    """Torch multiplies rows with gaps one by one where the weight has no gradient (``bmm``)."""
    model = load(info).model
    ids = torch.tensor([[1, 5, 6], [1, 7, 8]])

    def said() -> tuple[torch.Tensor, set[str]]:
        with torch.profiler.profile() as found, torch.no_grad():
            logits = model(ids, logits_to_keep=1, use_cache=False).logits
        shapes = {event.name for event in found.events() if event.name == "aten::bmm"}
        return logits, shapes

    with read_out_together(model):
        logits, together = said()
    plain, apart = said()
    torch.testing.assert_close(logits, plain)
    assert not together and apart
    assert not model.get_output_embeddings()._forward_pre_hooks
