"""Steering: values inside a model are shifted or scaled where it begins to answer.

ITI, CAA and SADI (a file each) are ways to find a steering. What it does is this, whoever found it:
at some places of some layers, some dimensions become ``value · factor + shift``, from the last
token of the prompt on, or at that token alone.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from prunelib.components import Site
from prunelib.errors import UserError
from prunelib.identity import digest
from prunelib.interventions.base import Intervention
from prunelib.models.registry import adapter_for

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunelib.models import Loaded, ModelInfo
    from prunelib.models.adapter import Adapter

#: ``stream``: what a layer gives to the next one. ``mlp_out``: what its MLP adds. ``mlp_hidden``:
#: its neurons, as they enter the MLP's output projection. ``head``: its heads, one after the other,
#: as they enter the attention's output projection.
Place = Literal["stream", "mlp_out", "mlp_hidden", "head"]
PLACES: tuple[Place, ...] = ("stream", "mlp_out", "mlp_hidden", "head")
#: ``answer``: the last token of the prompt and all that follow, which are those that the tokens of
#: the answer are predicted from. ``prompt_end``: the last token of the prompt alone.
Scope = Literal["answer", "prompt_end"]

_FLOAT = "<f4"


@dataclass(frozen=True)
class Edit:
    """Dimensions of one place of one layer that become ``value · factor + shift``.

    Attributes:
        indices: the dimensions, ascending; empty stands for all of them.
        shift: what is added to each, float32 in little-endian bytes; empty adds nothing.
    """

    layer: int
    place: Place
    indices: tuple[int, ...] = ()
    shift: bytes = b""
    factor: float = 1.0

    @property
    def shifts(self) -> NDArray[np.float32]:
        """What is added, one number for each dimension."""
        return np.frombuffer(self.shift, _FLOAT)

    @property
    def idle(self) -> bool:
        """Whether it leaves every value as it is."""
        return self.factor == 1 and not self.shifts.any()


def packed(shifts: Iterable[float]) -> bytes:
    """Numbers as :class:`Edit` holds them."""
    return np.asarray(list(shifts), _FLOAT).tobytes()


@dataclass(frozen=True)
class Steering(Intervention):
    """Edits of a model's values, at the positions of ``scope``. Use :meth:`of` to make one."""

    kind: ClassVar[str] = "steering"

    edits: tuple[Edit, ...] = ()
    scope: Scope = "answer"

    @classmethod
    def of(cls, edits: Iterable[Edit], scope: Scope = "answer") -> Steering:
        """These edits in canonical order, without those that change nothing."""
        return cls(tuple(sorted((edit for edit in edits if not edit.idle),
                                key=lambda edit: (edit.layer, PLACES.index(edit.place)))), scope)

    @functools.cached_property
    def digest(self) -> str:  # type: ignore[override]
        """Content digest, by which every table names the intervention."""
        return digest("steering", self.content())

    def __len__(self) -> int:
        """Dimensions that are changed."""
        return sum(len(edit.indices) or len(edit.shifts) for edit in self.edits)

    def content(self) -> dict[str, Any]:
        """The scope, and every edit with its shifts as base64 of float32 (little-endian)."""
        return {"scope": self.scope, "edits": [
            {"layer": e.layer, "place": e.place, "indices": list(e.indices),
             "shift": base64.b64encode(e.shift).decode(), "factor": e.factor}
            for e in self.edits]}

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Steering:
        """The steering with this content."""
        return cls(tuple(Edit(e["layer"], e["place"], tuple(e["indices"]),
                              base64.b64decode(e["shift"]), float(e["factor"]))
                         for e in content["edits"]), content["scope"])

    def check(self, info: ModelInfo) -> None:
        """Raise :class:`UserError` if a model has no such places."""
        for edit in self.edits:
            width = place_width(info, edit.place)
            if not 0 <= edit.layer < info.layers:
                raise UserError(f"layer {edit.layer} is not in a model of {info.layers} layers")
            if (edit.indices and not 0 <= edit.indices[0] <= edit.indices[-1] < width) or (
                    edit.shift and len(edit.shifts) != (len(edit.indices) or width)):
                raise UserError(f"this steering is not for '{info.id}', which has {width} "
                                f"dimensions at {edit.place}")

    @contextmanager
    def applied(self, loaded: Loaded) -> Iterator[Loaded]:
        """The same model, with hooks that are gone when the context ends, however it ends."""
        with ExitStack() as stack:
            if self.edits:
                reached = _Reached(loaded, self.scope)
                stack.callback(loaded.model.register_forward_pre_hook(
                    reached.begin, with_kwargs=True).remove)
                for edit in self.edits:
                    stack.callback(_hook(loaded, edit, reached).remove)
            yield loaded


def place_width(info: ModelInfo, place: Place) -> int:
    """Dimensions of a place. Raises :class:`UserError` if the model does not have it."""
    if place == "stream":
        return info.stream
    if place not in adapter_for(info.model_type).sites:
        raise UserError(f"model '{info.id}' ({info.model_type}) has no {place}")
    return info.components(place) * info.span(place)


def module_of(adapter: Adapter, place: Place) -> tuple[str, bool]:
    """Dotted path below a layer ('' is the layer), and whether the place is what enters it."""
    if place == "stream":
        return "", False
    site: Site = place
    return adapter.place(site)


class _Reached:
    """The positions of the pass in hand that are steered."""

    def __init__(self, loaded: Loaded, scope: Scope) -> None:
        self._loaded, self._scope = loaded, scope
        #: ``[rows, length]``.
        self.mask: Tensor

    def begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before each pass of the model."""
        read: Any = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs_embeds"))
        rows, length = read.shape[:2]
        offsets = self._loaded.answers.offsets(rows, length, read.device)
        self.mask = offsets == 0 if self._scope == "prompt_end" else offsets >= 0

    def changed(self, values: Tensor, change: Change) -> Tensor:
        """The values with those of the steered positions changed, in the shape that they have.

        OPT's MLP has rows and positions in one dimension.
        """
        done = values.reshape(*self.mask.shape, -1).clone()
        mask = self.mask.to(values.device)
        done[mask] = change(done[mask])
        return done.reshape(values.shape)


class Change:
    """``value · factor + shift`` of some dimensions, of ``[positions, width]``."""

    def __init__(self, edit: Edit, device: Any) -> None:
        import torch

        self._factor = edit.factor
        self._indices = torch.tensor(edit.indices, device=device) if edit.indices else None
        self._shift = torch.tensor(edit.shifts, device=device) if edit.shift else None

    def __call__(self, values: Tensor) -> Tensor:
        """The values, which may be overwritten, after the change."""
        # The layers of a model may be on several devices.
        at = None if self._indices is None else self._indices.to(values.device)
        some = values if at is None else values[:, at]
        if self._factor != 1:
            some = some * self._factor
        if self._shift is not None:
            some = some + self._shift.to(values.device, values.dtype)
        if at is None:
            return some
        values[:, at] = some
        return values

    def edit(self, layer: int, place: Place) -> Edit:
        """The edit that this is at a place of a layer, from the numbers that it uses."""
        return Edit(layer, place,
                    () if self._indices is None else tuple(self._indices.tolist()),
                    b"" if self._shift is None else packed(self._shift.tolist()), self._factor)


def _hook(loaded: Loaded, edit: Edit, reached: _Reached) -> Any:
    path, enters = module_of(loaded.adapter, edit.place)
    layer = loaded.adapter.layers(loaded.model)[edit.layer]
    change = Change(edit, loaded.device)
    if enters:
        def on_input(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (reached.changed(args[0], change), *args[1:])

        return layer.get_submodule(path).register_forward_pre_hook(on_input)

    def on_output(_: nn.Module, __: object, output: Any) -> Any:
        if isinstance(output, tuple):
            return (reached.changed(output[0], change), *output[1:])
        return reached.changed(output, change)

    return layer.get_submodule(path).register_forward_hook(on_output)


@contextmanager
def reading(loaded: Loaded, places: Sequence[Place], layers: Sequence[int]
            ) -> Iterator[dict[tuple[Place, int], Tensor]]:
    """Within the context every pass leaves what places of layers hold in the last column.

    Yields:
        (place, layer) → ``[rows, width]``, of the last pass.
    """
    found: dict[tuple[Place, int], Tensor] = {}
    rows = [0]

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rows[0] = len(args[0] if args else kwargs["input_ids"])

    def keep(key: tuple[Place, int], values: Any) -> None:
        values = values[0] if isinstance(values, tuple) else values
        found[key] = values.reshape(rows[0], -1, values.shape[-1])[:, -1]

    with ExitStack() as stack:
        stack.callback(loaded.model.register_forward_pre_hook(begin, with_kwargs=True).remove)
        for layer in layers:
            block = loaded.adapter.layers(loaded.model)[layer]
            for place in places:
                path, enters = module_of(loaded.adapter, place)
                module, key = block.get_submodule(path), (place, layer)
                handle = (module.register_forward_pre_hook(
                    lambda _, args, key=key: keep(key, args[0])) if enters
                    else module.register_forward_hook(
                        lambda _, __, output, key=key: keep(key, output)))
                stack.callback(handle.remove)
        yield found
