"""Prefix replay: start a model in the middle, from what was computed once.

Nothing below layer l changes while layer l is scaled or masked. The layers below are replaced by
stubs that return the cached input of layer l, and inside layer l every module whose output does
not depend on the edit by a stub that returns its cached output. Everything else runs as
transformers wrote it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from prunelib.components import Site
from prunelib.interventions.ablation import ActivationMasks
from prunelib.models import Loaded
from prunelib.models.readout import read_out_together
from prunelib.tasks.tokenization import Batch

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import DynamicCache, PreTrainedModel

    from prunelib.models.adapter import Adapter


class Host(Protocol):
    """What replay knows of a model; a :class:`~prunelib.models.Loaded` is one."""

    @property
    def model(self) -> PreTrainedModel: ...

    @property
    def adapter(self) -> Adapter: ...


@dataclass(frozen=True)
class Prefix:
    """What one layer sees and does on the untouched model, for one batch.

    Attributes:
        stream: input of the layer, ``[rows, length, width]``.
        outputs: dotted path below the layer → output of that module, whose first dimension is
            rows (or rows × positions).
        pairs: modules that return their output in a tuple, with attention weights.
    """

    stream: Tensor
    outputs: dict[str, Tensor]
    pairs: frozenset[str]

    def repeat(self, times: int) -> Prefix:
        """All rows ``times`` times, one copy of the batch after the other."""
        return Prefix(_repeat(self.stream, times),
                      {path: _repeat(output, times) for path, output in self.outputs.items()},
                      self.pairs)


def _repeat(tensor: Tensor, times: int) -> Tensor:
    return tensor.repeat(times, *([1] * (tensor.dim() - 1)))


class _ReachedError(Exception):
    """Unwinds a forward pass once all that is wanted of it is known."""


def clean_prefix(
    loaded: Host, batch: Batch, layer: int, modules: tuple[str, ...] = (),
    cache: DynamicCache | None = None,
) -> Prefix:
    """Run the untouched model up to ``layer`` and keep its input and some modules' outputs.

    The keys and values of every attention that runs go into ``cache``.
    """
    import torch

    block = loaded.adapter.layers(loaded.model)[layer]
    stream: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    pairs: set[str] = set()

    def keep_input(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        stream["input"] = args[0] if args else kwargs["hidden_states"]
        if not modules:
            raise _ReachedError

    def keep_output(path: str) -> Any:
        def hook(_: nn.Module, __: object, output: Any) -> None:
            if isinstance(output, tuple):
                pairs.add(path)
                output = output[0]
            outputs[path] = output
            if len(outputs) == len(modules):
                raise _ReachedError

        return hook

    handles = [block.register_forward_pre_hook(keep_input, with_kwargs=True)]
    handles += [block.get_submodule(p).register_forward_hook(keep_output(p)) for p in modules]
    try:
        with torch.no_grad(), contextlib.suppress(_ReachedError):
            loaded.model(**batch.inputs(), **_into(cache))
    finally:
        for handle in handles:
            handle.remove()
    return Prefix(stream["input"], outputs, frozenset(pairs))


class Replayed:
    """Holds the prefix from which a model starts; set it before every forward pass."""

    prefix: Prefix | None = None

    def get(self) -> Prefix:
        """The prefix; an error if none was set."""
        if self.prefix is None:
            raise RuntimeError("no prefix was set before the forward pass")
        return self.prefix


@contextlib.contextmanager
def started_at(loaded: Host, layer: int, modules: tuple[str, ...] = ()) -> Iterator[Replayed]:
    """Within the context every forward pass starts at ``layer`` from ``Replayed.prefix``.

    The layers below become stubs that all return its stream, so positions in the list of layers,
    which some families look up in their config, stay what they were. ``modules`` of the layer
    return their cached outputs; hooks on them still run. A Mamba on a CPU takes the scan whose
    gradient costs no more than its value.
    """
    from torch import nn

    replayed = Replayed()

    tuples = loaded.adapter.tuples

    class Below(nn.Module):
        def forward(self, *_: object, **__: object) -> Any:
            stream = replayed.get().stream
            return (stream, None) if tuples else stream

    whole = loaded.adapter.layers(loaded.model)
    with contextlib.ExitStack() as stack:
        if loaded.model.device.type == "cpu":
            stack.enter_context(loaded.adapter.cpu_gradients())
        if layer > 0:
            stubs = nn.ModuleList([*(Below() for _ in range(layer)), *whole[layer:]])
            stack.callback(loaded.adapter.set_layers, loaded.model, whole)
            loaded.adapter.set_layers(loaded.model, stubs)
        for path in modules:
            stack.enter_context(_replaced(whole[layer], path, replayed))
        yield replayed


@dataclass(frozen=True)
class KeysAndValues:
    """What the attentions of a model keep of a batch under several masks of one layer.

    Attributes:
        shared: of the layers that no mask reaches, one row for each prompt.
        own: of the others, masks × prompts, by mask, then by prompt.
    """

    shared: DynamicCache
    own: DynamicCache

    @classmethod
    def empty(cls) -> KeysAndValues:
        """To be filled by :func:`masked_rows`."""
        from transformers import DynamicCache

        return cls(DynamicCache(), DynamicCache())

    def rows(self, rows: Tensor, prompts: int) -> DynamicCache:
        """What some of the masks × prompts rows have kept, in all layers."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for i in range(max(len(self.shared.layers), len(self.own.layers))):
            shared = self.shared.get_seq_length(i) > 0
            kept: Any = (self.shared if shared else self.own).layers[i]
            which = rows % prompts if shared else rows
            cache.update(kept.keys[which], kept.values[which], i)
        return cache


@contextlib.contextmanager
def masked_rows(
    loaded: Loaded, layer: int, site: Site, batch: Batch, kept: KeysAndValues | None = None
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Within the context: what the model says to the same prompts under many masks of one layer.

    What was kept of one call goes into ``kept``, in a family whose layers all have an attention.

    Yields:
        A function of masks, ``[masks, components of the site]``, that gives the logits after each
        prompt, ``[masks × prompts, vocabulary]``, by mask, then by prompt. Everything below the
        layer was computed once.
    """
    import torch

    modules = loaded.adapter.untouched(site)
    prefix = clean_prefix(loaded, batch, layer, modules, kept.shared if kept else None)
    with (ActivationMasks(loaded) as masks, started_at(loaded, layer, modules) as replayed,
          last_position_only(loaded)):

        def logits(keep: Tensor) -> Tensor:
            masks.set_rows(layer, keep.repeat_interleave(len(batch.ids), 0), site)
            replayed.prefix = prefix.repeat(len(keep))
            with torch.no_grad():
                return last_logits(loaded, batch.repeat(len(keep)), kept.own if kept else None)

        yield logits


def last_logits(loaded: Host, batch: Batch, cache: DynamicCache | None = None) -> Tensor:
    """Logits after the last token of each row, ``[rows, vocabulary]``.

    Keys and values are added to those in ``cache``; the batch's mask covers what they are of too.
    """
    logits: Tensor = loaded.model(**batch.inputs(), **_into(cache), logits_to_keep=1).logits
    return logits[:, -1]


def _into(cache: DynamicCache | None) -> dict[str, Any]:
    """Keyword arguments for a model that keeps keys and values, or none."""
    return {"use_cache": False} if cache is None else {"past_key_values": cache, "use_cache": True}


@contextlib.contextmanager
def _replaced(block: nn.Module, path: str, replayed: Replayed) -> Iterator[None]:
    """Put a stub in the place of one module, which answers in the module's own form."""
    from torch import nn

    parent_path, _, name = path.rpartition(".")
    parent, module = block.get_submodule(parent_path), block.get_submodule(path)

    class Cached(nn.Module):
        bias = getattr(module, "bias", None)

        def forward(self, *_: object, **__: object) -> Any:
            prefix = replayed.get()
            output = prefix.outputs[path]
            return (output, None) if path in prefix.pairs else output

    setattr(parent, name, Cached())
    try:
        yield
    finally:
        setattr(parent, name, module)


@contextlib.contextmanager
def last_position_only(loaded: Loaded) -> Iterator[None]:
    """Let the last layer's MLP see the last position alone, the only one that is read out.

    Its output then has length one and is added to every position of the residual stream: wrong
    everywhere but at the last position, which is what the logits are computed from. A family whose
    adapter does not allow that still reads out all rows together.
    """
    with read_out_together(loaded.model), contextlib.ExitStack() as stack:
        if loaded.adapter.mlp_norm is not None:
            last = loaded.adapter.layers(loaded.model)[-1]
            norm = last.get_submodule(loaded.adapter.mlp_norm)
            stack.callback(norm.register_forward_pre_hook(
                lambda _, args: (args[0][:, -1:], *args[1:])).remove)
        yield
