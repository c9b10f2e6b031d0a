"""Interventions in files: lists of components, and the JSON form of any kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prunelib.components import Component
from prunelib.errors import UserError, one_line, unknown_name
from prunelib.interventions.ablation import Ablation
from prunelib.interventions.base import Intervention
from prunelib.interventions.registry import intervention_of
from prunelib.interventions.steering import Edit, Steering, packed
from prunelib.models.loading import Loaded
from prunelib.recipe.interventions import ComponentSpec, VectorSpec
from prunelib.tasks.text_files import table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunelib.models import ModelInfo

#: Endings of files that hold an intervention.
ENDINGS = (".csv", ".parquet", ".json")
#: Columns of a file of components.
_COLUMNS = tuple(ComponentSpec.model_fields)


def write_file(info: ModelInfo, intervention: Intervention, out: str | Path) -> Path:
    """Write an intervention of any kind to the new JSON file ``out``.

    Raises :class:`UserError` if the file exists or cannot be written, or the intervention cannot
    be done to this model.
    """
    intervention.check(info)
    file = Path(out)
    if file.exists():
        raise UserError(f"{file} exists: give a new file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({
            "model": info.id,
            "revision": info.revision,
            "weights_digest": info.weights_digest,
            "intervention": intervention.digest,
            "kind": intervention.kind,
            "content": intervention.content(),
        }, indent=1) + "\n", "utf-8")  # fmt: skip
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from error
    return file


def read_file(path: str | Path) -> Intervention:
    """The intervention in a CSV or Parquet file of components, or in a JSON file.

    Raises :class:`UserError` if there is none, or its content is not what its digest says.
    """
    file = Path(path)
    where = f"intervention file '{path}'"
    ending = file.suffix.lower()
    if ending not in ENDINGS:
        raise UserError(f"{where}: such a file ends in {', '.join(ENDINGS)}")
    try:
        if ending == ".json":
            return _from_json(file.read_text("utf-8-sig"), where)
        if ending == ".csv":
            with file.open(encoding="utf-8-sig", newline="") as opened:
                return _of_rows(table(opened, where), where)
        import pyarrow.parquet as pq

        return _of_rows(pq.read_table(file).to_pylist(), where)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{where} does not exist") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"{where} cannot be read: {reason}") from error


def of_components(components: tuple[ComponentSpec, ...]) -> Ablation:
    """The ablation of some components."""
    return Ablation.of(Component(c.layer, cast("Any", c.site), c.index) for c in components)


def of_vector(spec: VectorSpec) -> Steering:
    """The steering that adds a vector. Raises :class:`UserError` if its file does not have it."""
    from safetensors import safe_open

    where = f"vector '{spec.file}'"
    if not Path(spec.file).is_file():
        raise UserError(f"{where} does not exist")
    try:
        with safe_open(spec.file, framework="pt") as opened:
            names = list(opened.keys())
            if spec.tensor is None and len(names) != 1:
                raise UserError(f"{where} has the tensors {', '.join(names)}: name one as tensor")
            if spec.tensor is not None and spec.tensor not in names:
                raise unknown_name(f"tensor of {where}", spec.tensor, names)
            vector = opened.get_tensor(spec.tensor or names[0])
    except UserError:
        raise
    except Exception as error:  # of a class that safetensors does not export
        raise UserError(f"{where} cannot be read: {one_line(error)}") from error
    if vector.dim() != 1 or not vector.float().isfinite().all():
        raise UserError(f"{where} is not one row of finite numbers, but {list(vector.shape)}")
    shift = packed((spec.strength * vector.double()).tolist())
    return Steering.of([Edit(spec.layer, spec.place, shift=shift)], spec.scope)


@contextmanager
def apply(model: PreTrainedModel, path: str | Path) -> Iterator[PreTrainedModel]:
    """Any model of transformers with the intervention of a file live; within the context only.

    Args:
        model: loaded with ``AutoModelForCausalLM.from_pretrained``, on any device, in any dtype.
        path: a file that ``prunelib export`` wrote, or a CSV or Parquet file of components.

    Raises:
        UserError: the file holds no intervention, or not one for this model; or a fine-tuning,
            which ``prunelib export`` writes as a checkpoint.
    """
    found, loaded = read_file(path), Loaded.of(model)
    if found.trains:
        raise UserError(f"'{path}' holds a {found.kind}, which is not done while a model runs: "
                        "export it to a folder, as a checkpoint")
    found.check(loaded.info)
    with found.applied(loaded):
        yield model


def _from_json(text: str, where: str) -> Intervention:
    content = json.loads(text)
    try:
        found = intervention_of(content["kind"], content["content"])
        meant = content["intervention"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise UserError(f"{where}: {error}") from error
        raise UserError(f"{where} is not what prunelib export writes: "
                        f"{type(error).__name__}: {one_line(error)}") from error
    if found.digest != meant:
        raise UserError(f"{where} was changed: its content is not what its digest "
                        f"{str(meant)[:12]} says")
    return found


def _of_rows(rows: list[dict[str, Any]], where: str) -> Ablation:
    if not rows:
        raise UserError(f"{where} has no components")
    if missing := [name for name in _COLUMNS if name not in rows[0]]:
        raise UserError(f"{where} has no column '{missing[0]}': its columns are "
                        f"{', '.join(map(str, rows[0]))}")
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(ComponentSpec.model_validate({name: row[name] for name in _COLUMNS}))
        except UserError as error:
            raise UserError(f"{where}, component {number}: {one_line(error)}") from error
    return of_components(tuple(found))
