"""Models that are too large for one GPU, of which nothing is here but their config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: What the ``config.json`` of each says, as far as sizes go.
OPT_66B = {"model_type": "opt", "hidden_size": 9216, "word_embed_proj_dim": 9216, "ffn_dim": 36864,
           "num_hidden_layers": 64, "num_attention_heads": 72, "vocab_size": 50272,
           "max_position_embeddings": 2048}
LLAMA_70B = {"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
             "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
             "vocab_size": 128256, "max_position_embeddings": 131072}


def config_only(folder: Path, config: dict[str, Any]) -> str:
    """A model's folder with its config."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)
