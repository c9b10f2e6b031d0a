"""A second device that is not there: tensors that refuse to meet those of the first.

A :class:`Far` tensor computes on the CPU and says that it is on another device. Where it meets a
tensor of the CPU in one operation that is an error, as between two GPUs, except for single numbers.
It goes from one device to the other by ``to`` and ``cpu`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from prunelib.models import Loaded

FAR = torch.device("cuda", 1)
#: What takes tensors of two devices on GPUs too: copies, and places that are given on the CPU.
MIXED = {torch.ops.aten.copy_.default, torch.ops.aten.index.Tensor,
         torch.ops.aten.index_put_.default}


class Far(torch.Tensor):
    """A tensor on :data:`FAR`."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Far:
        made: Far = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype)
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return FAR

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Far({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given, _ = tree_flatten((args, kwargs or {}))
        near = [x for x in given if isinstance(x, torch.Tensor) and not isinstance(x, Far)
                and x.dim() > 0]
        if near and func not in MIXED:
            raise RuntimeError(f"tensors of two devices meet in {func}")
        owners = {id(x.inner): x for x in given if isinstance(x, Far)}
        args, kwargs = tree_map(lambda x: x.inner if isinstance(x, Far) else x,
                                (args, kwargs or {}))

        return tree_map(lambda x: _same(owners, x), func(*args, **kwargs))


def _same(owners: dict[int, Far], value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    known = owners.get(id(value))
    return Far(value) if known is None else known


class _There(torch.autograd.Function):
    """To :data:`FAR` and, for gradients, back."""

    @staticmethod
    def forward(ctx: Any, near: torch.Tensor) -> torch.Tensor:
        return Far(near.detach().clone())

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> torch.Tensor:
        return gradient.inner.clone()


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, far: Any) -> torch.Tensor:
        return far.inner.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return Far(gradient.clone())


class Moves(TorchFunctionMode):
    """Carries out moves between the devices, and makes tensors on :data:`FAR`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.cpu:
            func, args = torch.Tensor.to, (args[0], "cpu")
        if func is torch.Tensor.to:
            return _moved(*args, **kwargs)
        if func is torch.Tensor.new_tensor and isinstance(args[0], Far):
            return Far(func(args[0].inner, *args[1:], **kwargs))
        if func is torch.Tensor.tolist and isinstance(args[0], Far):
            raise RuntimeError("read from a device without a move")
        if kwargs.get("device") == FAR:
            kwargs["device"] = "cpu"
            made = func(*tree_map(lambda x: x.inner if isinstance(x, Far) else x, args), **kwargs)
            return Far(made)
        return func(*args, **kwargs)


def _moved(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    kwargs = {k: v for k, v in kwargs.items() if k not in ("non_blocking", "copy")}
    wanted: Any = kwargs.pop("device", None)
    rest: list[Any] = []
    for value in args:
        if isinstance(value, torch.device | str | int) and not isinstance(value, bool):
            wanted = value
        elif isinstance(value, torch.Tensor):
            wanted = value.device
            rest.append(value.dtype)
        elif not isinstance(value, bool):
            rest.append(value)
    if wanted is not None:
        far = torch.device(wanted) == FAR
        if far and not isinstance(tensor, Far):
            tensor = _There.apply(tensor)
        elif not far and isinstance(tensor, Far):
            tensor = _Back.apply(tensor)
    return torch.Tensor.to(tensor, *rest, **kwargs) if rest or kwargs else tensor


@contextmanager
def spread(loaded: Loaded, first: int) -> Iterator[Loaded]:
    """Within the context the layers from ``first`` on, of a loaded model, are on :data:`FAR`.

    The hooks are those that accelerate gives a model that is spread over GPUs.
    """
    model = loaded.model
    # Such tensors cannot be made in inference mode from views of others.
    with Moves(), mock.patch.object(torch, "inference_mode", torch.no_grad):
        for i, layer in enumerate(loaded.adapter.layers(model)):
            for module in layer.modules() if i >= first else ():
                for name, parameter in list(module._parameters.items()):
                    if parameter is not None:
                        module._parameters[name] = torch.nn.Parameter(
                            Far(parameter.detach()), requires_grad=False)
                for name, buffer in list(module._buffers.items()):
                    if buffer is not None:
                        module._buffers[name] = Far(buffer)
            _hand_over(layer, FAR if i >= first else torch.device("cpu"))
        parent = model
        for part in loaded.adapter.stack.split("."):
            for name, child in parent.named_children():
                if name != part:
                    _hand_over(child, torch.device("cpu"))
            parent = parent.get_submodule(part)
        _hand_over(model, torch.device("cpu"), io_same_device=True)
        try:
            yield loaded
        finally:
            remove_hook_from_module(model, recurse=True)


class _Hook(AlignDevicesHook):
    """Without what places weights: they are where they belong."""

    def init_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        return module


def _hand_over(module: torch.nn.Module, device: torch.device, io_same_device: bool = False) -> None:
    add_hook_to_module(module, _Hook(execution_device=device, io_same_device=io_same_device,
                                     skip_keys="past_key_values"))
