"""Code that runs inside vLLM's worker processes: switching ablations in place.

vLLM mixes :class:`PrunelibWorker` into its worker class and calls the methods by name. Only
plain ints, strings and lists go in and out, so nothing has to be pickled. This module imports
nothing of vLLM: all it needs of a layer is a handful of attributes.

On a CPU build the weights of a linear layer are repacked and the originals deleted, so a mask
is multiplied into the projection's input there (into its output, where the components are its
outputs). Elsewhere the columns (the rows) are zeroed in place, which keeps the addresses that
captured graphs hold. At ``mlp_row`` the bias stays, either way.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from prunelib.components import Component, Site
from prunelib.engines.vllm_steering import LiveSteering
from prunelib.interventions.ablation import Ablation

if TYPE_CHECKING:
    from torch import Tensor, nn


class _Switch(Protocol):
    """Switches the components of one layer that this rank owns, addressed by local index."""

    def set(self, indices: list[int]) -> None:
        """Switch exactly these components off."""
        ...

    def off(self) -> list[int]:
        """Which components are off, read from what the forward pass uses. Ascending."""
        ...


class _Masked:
    """A mask multiplied into what enters or leaves a projection; for eager execution only."""

    def __init__(self, projection: nn.Module, neurons: int, like: Tensor, outputs: bool,
                 bias: Tensor | None = None) -> None:
        self._neurons, self._dtype, self._device = neurons, like.dtype, like.device
        self._mask: Tensor | None = None
        # Stays in the output. Some CPU kernels keep it in another dtype than the weights.
        self._bias = None if bias is None else bias.to(like.dtype)
        if outputs:
            projection.register_forward_hook(self._on_output)
        else:
            projection.register_forward_pre_hook(self._on_input)

    def _on_input(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self._mask is None else (args[0] * self._mask, *args[1:])

    def _on_output(self, _: nn.Module, __: object, output: tuple[Any, ...]) -> Any:
        # vLLM's projections return (output, bias that was not added).
        if self._mask is None:
            return None
        masked = output[0] * self._mask
        if self._bias is not None:
            masked = masked + self._bias * (1 - self._mask)
        return (masked, *output[1:])

    def set(self, indices: list[int]) -> None:
        import torch

        self._mask = None
        if indices:
            mask = torch.ones(self._neurons, dtype=self._dtype, device=self._device)
            mask[indices] = 0
            self._mask = mask

    def off(self) -> list[int]:
        if self._mask is None:
            return []
        return [int(i) for i in (self._mask == 0).nonzero().flatten().tolist()]


class _Zeroed:
    """Columns of a weight (dimension 1), or rows, set to zero, the originals kept on the host."""

    def __init__(self, weight: Tensor, dim: int) -> None:
        self._weight, self._dim = weight, dim
        self._off: list[int] = []
        self._stash: Tensor | None = None
        # A checkpoint that was pruned before has zero columns or rows of its own.
        self._native = set(self._zero())

    def _zero(self) -> list[int]:
        zero = ~(self._weight != 0).any(dim=1 - self._dim)
        return [int(i) for i in zero.nonzero().flatten().tolist()]

    def set(self, indices: list[int]) -> None:
        import torch

        device = self._weight.device
        with torch.inference_mode():
            if self._stash is not None:
                neurons = torch.tensor(self._off, device=device)
                self._weight.index_copy_(self._dim, neurons, self._stash.to(device))
            self._off, self._stash = list(indices), None
            if indices:
                neurons = torch.tensor(indices, device=device)
                # index_select copies, and only that copy goes to the host.
                self._stash = self._weight.index_select(self._dim, neurons).to("cpu", copy=True)
                self._weight.index_fill_(self._dim, neurons, 0)

    def off(self) -> list[int]:
        asked = set(self._off)
        return [i for i in self._zero() if i in asked or i not in self._native]


class _Biased:
    """Rows of a weight and their biases, set to zero together."""

    def __init__(self, projection: Any) -> None:
        self._parts = [_Zeroed(projection.weight.data, 0),
                       _Zeroed(projection.bias.data[:, None], 0)]

    def set(self, indices: list[int]) -> None:
        for part in self._parts:
            part.set(indices)

    def off(self) -> list[int]:
        return sorted(set(self._parts[0].off()) & set(self._parts[1].off()))


class _Spanning:
    """Components that are several successive lines each."""

    def __init__(self, lines: _Switch, span: int) -> None:
        self._lines, self._span = lines, span

    def set(self, indices: list[int]) -> None:
        self._lines.set([i * self._span + line for i in indices for line in range(self._span)])

    def off(self) -> list[int]:
        lines = Counter(line // self._span for line in self._lines.off())
        return [i for i, count in sorted(lines.items()) if count == self._span]


class PrunelibWorker:
    """The worker extension. Every name starts with ``prunelib_``: vLLM forbids clashes."""

    prunelib_switches: dict[Site, list[_Switch]]
    #: Site → components of every layer that this rank owns.
    prunelib_own: dict[Site, range]
    #: Site → dotted path of the projection where its components are switched off.
    prunelib_paths: dict[Site, str]
    #: (site, layer) → what the last switch asked for.
    prunelib_wanted: dict[tuple[Site, int], list[int]]
    prunelib_steering: LiveSteering

    def prunelib_install(self, places: list[list[Any]], layers: int) -> list[Any]:
        """Prepare every layer for switching. Called once.

        Args:
            places: ``[[site, path, enters, count, span], …]``: dotted path of a projection below
                a layer; whether components are what enters it, else what leaves it; components of
                a layer, over all ranks; successive inputs or outputs that one component is.
            layers: how many layers there are to be.

        Returns:
            ``[[site, start, stop], …]``: the components of every layer that this rank owns.

        Raises:
            RuntimeError: the model inside vLLM does not look like that.
        """
        model: nn.Module = self.model_runner.get_model()  # type: ignore[attr-defined]
        like = next(model.parameters())
        self.prunelib_switches, self.prunelib_own, self.prunelib_paths = {}, {}, {}
        self.prunelib_wanted = {}
        runner: Any = self.model_runner  # type: ignore[attr-defined]
        self.prunelib_steering = LiveSteering(runner, model)
        for site, path, enters, count, span in places:
            projections = _projections(model, path, layers)
            lines = _own_lines(projections, site, enters, count * span)
            self.prunelib_own[site] = range(lines.start // span, lines.stop // span)
            self.prunelib_paths[site] = path
            switches = [_switch_for(p, len(lines), like, site, enters) for p in projections]
            self.prunelib_switches[site] = (
                switches if span == 1 else [_Spanning(switch, span) for switch in switches])
        return [[site, own.start, own.stop] for site, own in self.prunelib_own.items()]

    def prunelib_switch(self, request: list[list[Any]]) -> None:
        """Switch exactly these components off, all others on.

        Args:
            request: ``[[site, layer, [indices]], …]``, indices over all ranks.
        """
        wanted = {(site, int(layer)): indices for site, layer, indices in request}
        self.prunelib_wanted = wanted
        # Two sites may share a weight: all is put back, last first, before anything is zeroed.
        for switches in reversed(self.prunelib_switches.values()):
            for switch in switches:
                switch.set([])
        for site, switches in self.prunelib_switches.items():
            own = self.prunelib_own[site]
            for layer, switch in enumerate(switches):
                indices = wanted.get((site, layer), [])
                switch.set([int(i) - own.start for i in indices if int(i) in own])

    def prunelib_steer(self, content: dict[str, Any], paths: list[list[Any]], layers: int) -> None:
        """Steer exactly so.

        Args:
            content: of a :class:`~prunelib.interventions.steering.Steering`.
            paths: for each edit, the dotted path below its layer, empty for the layer itself, and
                whether it is about what enters there.
            layers: how many there are.
        """
        model: nn.Module = self.model_runner.get_model()  # type: ignore[attr-defined]
        modules = [_projections(model, path, layers)[edit["layer"]]
                   for edit, (path, _) in zip(content["edits"], paths, strict=True)]
        self.prunelib_steering.set(content, modules, [enters for _, enters in paths])

    def prunelib_steered(self) -> dict[str, Any]:
        """What is steered, read from the numbers that are used, as its content."""
        return self.prunelib_steering.read()

    def prunelib_readback(self) -> list[Any]:
        """What is off on this rank, by indices over all ranks, and its digest.

        ``[[[site, layer, [indices]], …], digest]``; the digest is computed here, from the
        ablation read back.
        """
        off: list[tuple[Site, int, list[int]]] = [
            (site, layer, indices)
            for site, switches in self.prunelib_switches.items()
            for layer, switch in enumerate(switches)
            if (indices := self.prunelib_off(site, layer, switch))
        ]
        found = Ablation.of(
            Component(layer, site, index) for site, layer, indices in off for index in indices
        )
        return [[list(row) for row in off], found.digest]

    def prunelib_off(self, site: Site, layer: int, switch: _Switch) -> list[int]:
        """What is off at a site of a layer, by indices over all ranks.

        Another site that is off in the same weight can leave zeros that nobody asked for here.
        """
        off = [self.prunelib_own[site].start + i for i in switch.off()]
        path = self.prunelib_paths[site]
        if any(self.prunelib_wanted.get((other, layer)) for other in self.prunelib_paths
               if other != site and self.prunelib_paths[other] == path):
            asked = set(self.prunelib_wanted.get((site, layer), []))
            off = [i for i in off if i in asked]
        return off


def _own_lines(projections: list[nn.Module], site: Site, enters: bool, width: int) -> range:
    """The inputs or outputs of a projection that this rank owns, of ``width`` in all."""
    size_of = "input_size_per_partition" if enters else "output_size_per_partition"
    neurons = {int(getattr(p, size_of)) for p in projections}
    ranks = {(int(p.tp_rank), int(p.tp_size)) for p in projections}  # type: ignore[arg-type]
    if len(neurons) != 1 or len(ranks) != 1:
        raise RuntimeError(f"layers differ: {neurons} neurons per rank, ranks {ranks}")
    (own,), ((rank, size),) = neurons, ranks
    if site in ("mlp_out", "ffn"):  # every rank computes a part of each of these sums
        rank, size = 0, 1
    if site == "mixer_in" and size > 1:
        raise RuntimeError(f"a rank's neurons are no slice of a layer's at {site}: use one GPU")
    if own * size != width:
        raise RuntimeError(f"{size} ranks with {own} neurons each are not {width} neurons")
    return range(rank * own, (rank + 1) * own)


def _projections(model: nn.Module, path: str, layers: int) -> list[nn.Module]:
    """The projections (or layers) by layer, found by name: ``….<layer>.<path>``."""
    name = re.compile(rf"(?:.*\.)?(\d+)\.{re.escape(path)}" if path
                      else r"(?:.*\.)?(?:layers|h)\.(\d+)")
    found = {int(m[1]): module for n, module in model.named_modules() if (m := name.fullmatch(n))}
    if sorted(found) != list(range(layers)):
        raise RuntimeError(f"vLLM has '{path}' in layers {sorted(found)}, not in all of {layers}")
    return [found[layer] for layer in range(layers)]


def _switch_for(
    projection: nn.Module, neurons: int, like: Tensor, site: Site, enters: bool
) -> _Switch:
    """The way to switch inputs or outputs of this projection on the device that it runs on."""
    bias: Any = None if enters else getattr(projection, "bias", None)
    stays = site == "mlp_row"
    if like.device.type == "cpu":
        return _Masked(projection, neurons, like, not enters, bias if stays else None)
    weight: Any = projection.weight
    dim = 1 if enters else 0
    if weight.dim() != 2 or weight.shape[dim] != neurons:
        raise RuntimeError(f"weight {tuple(weight.shape)} has no line for each of {neurons} "
                           "neurons")
    if bias is not None and not stays:
        return _Biased(projection)
    return _Zeroed(weight.data, dim)
