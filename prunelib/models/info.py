"""Which model is meant, where its files are, and what they contain."""

from __future__ import annotations

import functools
import json
import os
import re
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prunelib.components import Site
from prunelib.errors import UserError, one_line, unknown_name
from prunelib.hub import converted, snapshot
from prunelib.identity import digest, files_digest
from prunelib.models.adapter import Adapter
from prunelib.models.checkpoint import (
    SINGLE,
    check_layers,
    check_unquantised,
    end_ids,
    indexed,
    read_config,
    tensor_names,
    tokenizer_files,
    weight_files,
)
from prunelib.models.foreign_code import check_no_foreign_code
from prunelib.models.gguf import check_sha256, made_from, model_folder
from prunelib.models.pretrained import PRETRAINED
from prunelib.models.registry import adapter_for
from prunelib.models.shapes import elements, shapes

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from prunelib.recipe.model import Bos

#: Where the shipped reference models are.
REFERENCE = Path(__file__).parent.parent / "reference" / "models"
#: Names in the ``config.json`` of some families, and those by which transformers knows the same.
_ALSO = {"n_layer": "num_hidden_layers", "n_embd": "hidden_size", "n_head": "num_attention_heads",
         "n_positions": "max_position_embeddings"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
#: Keys of ``config.json`` that only mixtures of experts have.
_EXPERTS = {"num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size"}


@dataclass(frozen=True)
class ModelInfo:
    """A model that was found, with what identifies its weights and tokenizer.

    The digest of the weights covers ``config.json`` and, where the model's own code is trusted,
    that code.
    """

    id: str
    path: str
    revision: str
    weights_digest: str
    tokenizer_digest: str
    model_type: str
    layers: int
    width: int
    #: Bytes of all weight files: what a worker needs at least.
    bytes: int
    #: Dimensions of the residual stream.
    stream: int
    #: Attention heads of a layer, and dimensions of what one of them gives; 0 without attention.
    heads: int = 0
    head_size: int = 0
    #: Tokens that end a turn, as its configuration names them.
    ends: tuple[int, ...] = ()
    #: Whether the projections of its MLPs have biases.
    mlp_bias: bool = False
    #: Whether code that lies beside the weights may run.
    trust_remote_code: bool = False
    #: Whether a start token stands in front of every prompt.
    bos: Bos = "auto"

    @property
    def site(self) -> Site:
        """The kind of neuron that the papers' projection has in this architecture."""
        return adapter_for(self.model_type).site

    def components(self, site: Site) -> int:
        """How many components a layer has at a site."""
        return {"mlp_out": self.stream, "head": self.heads, "ffn": 1}.get(site, self.width)

    def span(self, site: Site) -> int:
        """How many successive dimensions of its projection one component of a site is."""
        return {"head": self.head_size, "ffn": self.stream}.get(site, 1)

    @property
    def key(self) -> list[str]:
        """What enters the id of every unit that runs this model."""
        start = [] if self.bos == "auto" else [f"bos {self.bos}"]
        return [self.weights_digest, self.tokenizer_digest, *map(str, self.ends), *start]


def reference_models() -> list[str]:
    """Ids of the shipped reference models."""
    if not REFERENCE.is_dir():
        return []
    return sorted(f"reference/{p.name}" for p in REFERENCE.iterdir()
                  if (p / "config.json").is_file())


def locate(
    model_id: str, revision: str | None = None, trust_remote_code: bool = False,
    config_only: bool = False,
) -> tuple[Path, str]:
    """Folder and revision of a model: a reference model, a folder, a GGUF file or a hub name.

    A GGUF file is converted first if it was not before; its revision is its SHA-256. Code is
    fetched from the hub only if it is trusted; with ``config_only`` the config alone is fetched
    beside it. Raises :class:`UserError` if there is none, or a revision of what has none.
    """
    if model_id.startswith("reference/"):
        return _reference(model_id, revision)
    if os.path.isdir(model_id):  # noqa: PTH112 - which says no to names that no folder can have
        _no_revision(model_id, revision, "a folder")
        return Path(model_id).resolve(), "local"
    if model_id.endswith(".gguf"):
        return model_folder(model_id, Path(model_id), revision)
    if model_id.startswith((".", "/")) or not _HUB_ID.fullmatch(model_id):
        raise UserError(f"model folder '{model_id}' does not exist")
    return _from_hub(model_id, revision, trust_remote_code, config_only)


def _reference(model_id: str, revision: str | None) -> tuple[Path, str]:
    """Folder and revision of a model that is shipped, or of a pretrained one that was fetched."""
    name = model_id.removeprefix("reference/")
    if (known := PRETRAINED.get(name)) is not None:
        check_sha256(model_id, known.sha256, revision)
        if not (folder := made_from(known.sha256)).is_dir():
            raise UserError(f"model '{model_id}' is not on this machine: run `prunelib reference "
                            f"fetch {name}`")
        return folder, known.sha256
    if model_id not in reference_models():
        raise unknown_name("model", model_id, [*reference_models(), *(
            f"reference/{other}" for other in PRETRAINED)])
    _no_revision(model_id, revision, "a reference model")
    return REFERENCE / name, "shipped"


def _no_revision(model_id: str, revision: str | None, kind: str) -> None:
    if revision is not None:
        raise UserError(f"model '{model_id}' is {kind}, of which there is one version: leave out "
                        f"revision: {revision}")


def _from_hub(model_id: str, revision: str | None, trust_remote_code: bool, config_only: bool
              ) -> tuple[Path, str]:
    code = ["*.py"] if trust_remote_code else []
    elsewhere = f"not a reference model ({', '.join(reference_models())}), not a folder"
    read = ["config.json"] if config_only else ["*.json", "*.model", "*.txt", "*.jinja"]
    folder = snapshot("model", model_id, revision, [*read, *code], elsewhere)
    if config_only:
        return folder, folder.name
    # Some have the same weights once more in another layout, which no index names.
    weights = ["*.safetensors"]
    if (names := indexed(model_id, folder)) is not None:
        weights = [*names, SINGLE]
    folder = snapshot("model", model_id, folder.name, weights, elsewhere)
    if not any(folder.glob("*.safetensors")) and (offered := converted(model_id)):
        raise UserError(f"model '{model_id}' has no .safetensors weights at "
                        f"{revision or 'its main branch'}; the hub's converter made some of it: "
                        f"give it as {{id: {model_id}, revision: {offered}}}")
    return folder, folder.name


def _weights_digest(files: list[Path]) -> str:
    """Digest of weight files; the hub's cache already names its blobs by their SHA-256."""
    blobs = [file.resolve() for file in files]
    if all(re.fullmatch(r"[0-9a-f]{64}", blob.name) for blob in blobs):
        return digest("blobs", sorted([f.name, b.name] for f, b in zip(files, blobs, strict=True)))
    return files_digest(files)


def planted_neurons(info: ModelInfo) -> list[tuple[int, int]]:
    """(layer, index) of the neurons known to copy, from ``planted.json`` beside the weights."""
    file = Path(info.path) / "planted.json"
    if not file.is_file():
        return []
    known = json.loads(file.read_text())
    return [(int(known["layer"]), int(neuron)) for neuron in known["neurons"]]


@functools.cache
def describe(
    model_id: str, revision: str | None = None, trust_remote_code: bool = False, bos: Bos = "auto"
) -> ModelInfo:
    """Find a model and identify it, without loading it. Raises :class:`UserError`."""
    folder, found = locate(model_id, revision, trust_remote_code)
    config, adapter = _checked(model_id, folder)
    weights = weight_files(model_id, folder)
    tensors = tensor_names(model_id, weights)
    tokenizer = tokenizer_files(model_id, folder, trust_remote_code)
    # Code may change results, so it is identified like weights.
    code = [_code_digest(model_id, folder)] if trust_remote_code else []
    parsed = _parsed(model_id, folder, adapter, trust_remote_code)
    check_layers(model_id, tensors, adapter.stack, adapter.depth(parsed))
    return ModelInfo(
        id=model_id,
        path=str(folder),
        revision=found,
        weights_digest=digest("weights", [_weights_digest(weights),
                                          files_digest([folder / "config.json"]), *code]),
        tokenizer_digest=files_digest(tokenizer),
        model_type=str(config["model_type"]),
        bytes=sum(file.stat().st_size for file in weights),
        ends=end_ids(model_id, folder, config),
        trust_remote_code=trust_remote_code,
        bos=bos,
        **_sizes(adapter, parsed),
    )


def outline(
    model_id: str, revision: str | None = None, trust_remote_code: bool = False
) -> ModelInfo:
    """The sizes of a model, by its ``config.json`` alone: nothing else of it has to be here.

    ``bytes`` are those of a checkpoint in two bytes a weight; digests are empty. Raises
    :class:`UserError` as :func:`describe` does for what can be seen there.
    """
    folder, found = locate(model_id, revision, trust_remote_code, config_only=True)
    config, adapter = _checked(model_id, folder)
    parsed = _parsed(model_id, folder, adapter, trust_remote_code)
    return ModelInfo(model_id, str(folder), found, "", "", str(config["model_type"]),
                     bytes=2 * elements(shapes(folder, trust_remote_code)),
                     **_sizes(adapter, parsed))


def info_of(config: PreTrainedConfig) -> ModelInfo:
    """The sizes of a model in memory, by its configuration; digests are empty.

    Raises :class:`UserError` if its architecture is not supported.
    """
    adapter = adapter_for(str(config.model_type))
    name = str(config.name_or_path or config.model_type)
    return ModelInfo(name, name, "", "", "", config.model_type, bytes=0, **_sizes(adapter, config))


def _checked(model_id: str, folder: Path) -> tuple[dict[str, Any], Adapter]:
    """What ``config.json`` says, and the adapter; :class:`UserError` if that is not supported."""
    config = read_config(model_id, folder)
    check_no_foreign_code(model_id, folder)
    check_unquantised(model_id, folder, config)
    if experts := sorted(_EXPERTS & config.keys()):
        raise UserError(f"model '{model_id}' is a mixture of experts ({experts[0]}), which is not "
                        "supported: its neurons are not the same for every token")
    return config, adapter_for(str(config.get("model_type")))


def _sizes(adapter: Adapter, parsed: PreTrainedConfig) -> dict[str, Any]:
    heads = adapter.heads
    return {"layers": adapter.depth(parsed), "width": adapter.width(parsed),
            "stream": int(parsed.hidden_size), "mlp_bias": adapter.bias(parsed),
            "heads": heads.count(parsed) if heads else 0,
            "head_size": heads.size(parsed) if heads else 0}


def read_parsed(folder: Path, own_code: bool = False) -> PreTrainedConfig:
    """The configuration as transformers reads it.

    Those of the shipped models name all that is asked of them. They are read without transformers,
    which takes seconds to import.
    """
    if folder.parent == REFERENCE:
        content = json.loads((folder / "config.json").read_text("utf-8"))
        known = {theirs: content[own] for own, theirs in _ALSO.items() if own in content}
        return cast("PreTrainedConfig", types.SimpleNamespace(**known | content))
    from transformers import AutoConfig

    parsed: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=own_code)
    return parsed


def _parsed(model_id: str, folder: Path, adapter: Adapter, own_code: bool) -> PreTrainedConfig:
    """The configuration of a model that is supported."""
    try:
        parsed = read_parsed(folder, own_code)
    except Exception as error:  # transformers checks values, with errors of many kinds
        raise UserError(f"model '{model_id}': transformers cannot read its config.json: "
                        f"{one_line(error)}") from error
    if reason := adapter.refusal(parsed):
        raise UserError(f"model '{model_id}' is not supported: {reason}")
    if adapter.depth(parsed) < 1:
        raise UserError(f"model '{model_id}' has no layers: its config.json says "
                        f"num_hidden_layers: {adapter.depth(parsed)}")
    return parsed


def _code_digest(model_id: str, folder: Path) -> str:
    """Digest of the code beside the weights; code from anywhere else is refused."""
    for name in ("config.json", "tokenizer_config.json"):
        known = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
        if "--" in json.dumps(known.get("auto_map")):
            raise UserError(f"model '{model_id}' takes code from another repository (auto_map in "
                            f"{name}); copy that code beside the weights and name it there")
    return files_digest(list(folder.glob("*.py")))
