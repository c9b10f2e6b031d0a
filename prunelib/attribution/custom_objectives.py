"""A user's own objective: found by its name, identified by its source, tried before any work."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType

from prunelib.errors import UserError
from prunelib.identity import files_digest
from prunelib.tasks.tokenization import Encoded


def import_objective(name: str) -> FunctionType:
    """The function that ``package.module:function`` names.

    The current folder counts too, as the very last place: a console script does not have it on
    its path, and last it hides nothing that is installed. It is added only here, so that a recipe
    that names no function runs nothing of the folder it is used in.

    Raises:
        UserError: it cannot be imported, is no Python function, or has no source.
    """
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.append("")
    try:
        found = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # whatever a module does as it is imported
        raise UserError(f"objective '{name}' cannot be imported: {_said(error)}") from error
    if not isinstance(found, FunctionType):
        raise UserError(f"objective '{name}' is no Python function of logits and prompts, but "
                        f"of type {type(found).__name__}")
    _sources(found, module)
    return found


def source_digest(name: str) -> str:
    """Digest of the whole files of an objective, so that an edited helper beside it is noticed.

    Raises :class:`UserError` as :func:`import_objective` does.
    """
    return _sources(import_objective(name), name.partition(":")[0])


@functools.cache
def _sources(function: FunctionType, module: str) -> str:
    """Digest of the files of the module and the function, as they were when first asked for.

    What is imported stays as it is when its file is edited, so its digest has to.
    """
    known = sys.modules[module].__dict__.get("__file__")
    # It may have been imported there, or have a wrapper from elsewhere.
    code = getattr(inspect.unwrap(function), "__code__", function.__code__)
    files = {Path(known or "").resolve(), Path(code.co_filename).resolve()}
    if not all(file.is_file() for file in files):
        raise UserError(f"objective '{module}:{function.__name__}' has no source file, by which "
                        "to notice when it is edited")
    return files_digest(list(files))


def needs_labels(name: str) -> bool:
    """Whether an objective reads gold answers: unless its attribute ``needs_labels`` is false.

    Raises :class:`UserError` as :func:`import_objective` does.
    """
    return bool(getattr(import_objective(name), "needs_labels", True))


def try_objective(name: str, prompts: Sequence[Encoded], vocabulary: int) -> None:
    """Call an objective as attribution does, with random logits for some prompts.

    Raises:
        UserError: it fails, or what comes back is not one value per prompt with a gradient.
    """
    import torch

    function, rows = import_objective(name), len(prompts)
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, vocabulary, generator=random).requires_grad_()
    try:
        with torch.enable_grad():
            value = function(logits, prompts)
    except Exception as error:
        raise UserError(f"objective '{name}' fails for {rows} prompts and logits [{rows}, "
                        f"{vocabulary}]: {_said(error)}") from error
    wanted = f"has to return one value per row, a tensor of shape [{rows}] with a gradient"
    if not isinstance(value, torch.Tensor):
        raise UserError(f"objective '{name}' {wanted}, not {type(value).__name__}")
    if value.shape != (rows,):
        raise UserError(f"objective '{name}' {wanted}, not one of shape {list(value.shape)}")
    if not value.requires_grad or torch.autograd.grad(
            value.sum(), logits, allow_unused=True)[0] is None:
        raise UserError(f"objective '{name}' {wanted}, and what it returns does not depend on the "
                        "logits in a way that can be differentiated")


def _said(error: BaseException) -> str:
    """An exception on one line; what imports say needs no name before it."""
    text = " ".join(str(error).split())
    plain = isinstance(error, ImportError | AttributeError | SyntaxError) and text
    return text if plain else f"{type(error).__name__}: {text}".removesuffix(": ")
