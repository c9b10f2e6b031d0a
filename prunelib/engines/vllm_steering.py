"""Steering inside vLLM's worker processes, in eager execution: captured graphs drop hooks.

vLLM runs the tokens of many requests in one row. Each request says where its prompt ends
(:data:`END`); which tokens are behind that is known from their positions. This module imports
nothing of vLLM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunelib.interventions.steering import Change, Edit, Steering

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Key of ``extra_args`` of a request: the position at which its prompt ends.
END = "prunelib_end"


class LiveSteering:
    """Hooks on the projections that the last switch asked for, and which tokens they change.

    Args:
        runner: vLLM's model runner.
        model: the model in it.
    """

    def __init__(self, runner: Any, model: nn.Module) -> None:
        self._runner, self._model = runner, model
        self._handles: list[Any] = []
        self._scope: Any = "answer"
        self._changes: list[tuple[Edit, Change]] = []
        self._mask: Tensor

    def set(self, content: dict[str, Any], modules: list[nn.Module], enters: list[bool]) -> None:
        """Steer exactly so, at the module of each edit; no edits leave no hook behind."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._changes = [], []
        steering = Steering.from_content(content)
        self._scope = steering.scope
        if not steering.edits:
            return
        like = next(self._model.parameters())
        self._handles.append(self._model.register_forward_pre_hook(self._begin, with_kwargs=True))
        for edit, module, entering in zip(steering.edits, modules, enters, strict=True):
            change = Change(edit, like.device)
            self._changes.append((edit, change))
            self._handles.append(
                module.register_forward_pre_hook(self._on_input(change)) if entering
                else module.register_forward_hook(self._on_output(change)))

    def read(self) -> dict[str, Any]:
        """What is steered, from the numbers that the hooks use."""
        edits = [change.edit(edit.layer, edit.place) for edit, change in self._changes]
        return Steering(tuple(edits), self._scope).content()

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        import torch

        positions: Tensor = kwargs["positions"]
        batch = self._runner.input_batch
        count = int(batch.num_reqs)
        starts = self._runner.query_start_loc.np[: count + 1]
        mask = torch.zeros(len(positions), dtype=torch.bool, device=positions.device)
        for i, request in enumerate(batch.req_ids[:count]):
            end = self._runner.requests[request].sampling_params.extra_args[END]
            own = slice(int(starts[i]), int(starts[i + 1]))
            mask[own] = (positions[own] == end if self._scope == "prompt_end"
                         else positions[own] >= end)
        self._mask = mask

    def _changed(self, values: Tensor, change: Change) -> Tensor:
        done = values.clone()
        done[self._mask] = change(done[self._mask])
        return done

    def _on_input(self, change: Change) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self._changed(args[0], change), *args[1:])

        return hook

    def _on_output(self, change: Change) -> Any:
        # A layer may give what is to be added to the stream and the stream: a shift of either is
        # one of their sum.
        def hook(_: nn.Module, __: object, output: Any) -> Any:
            if isinstance(output, tuple):
                return (self._changed(output[0], change), *output[1:])
            return self._changed(output, change)

        return hook
