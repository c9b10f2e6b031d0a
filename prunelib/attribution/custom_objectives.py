"""A user's own objective: what it reads, and whether it is one, tried before any work."""

from __future__ import annotations

from collections.abc import Sequence

from prunelib.errors import UserError
from prunelib.own_functions import import_function, said
from prunelib.tasks.tokenization import Encoded


def needs_labels(name: str) -> bool:
    """Whether an objective reads gold answers: unless its attribute ``needs_labels`` is false.

    Raises :class:`UserError` as :func:`~prunelib.own_functions.import_function` does.
    """
    return bool(getattr(import_function("objective", name), "needs_labels", True))


def try_objective(name: str, prompts: Sequence[Encoded], vocabulary: int) -> None:
    """Call an objective as attribution does, with random logits for some prompts.

    Raises:
        UserError: it fails, or what comes back is not one value per prompt with a gradient.
    """
    import torch

    function, rows = import_function("objective", name), len(prompts)
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, vocabulary, generator=random).requires_grad_()
    try:
        with torch.enable_grad():
            value = function(logits, prompts)
    except Exception as error:
        raise UserError(f"objective '{name}' fails for {rows} prompts and logits [{rows}, "
                        f"{vocabulary}]: {said(error)}") from error
    wanted = f"has to return one value per row, a tensor of shape [{rows}] with a gradient"
    if not isinstance(value, torch.Tensor):
        raise UserError(f"objective '{name}' {wanted}, not {type(value).__name__}")
    if value.shape != (rows,):
        raise UserError(f"objective '{name}' {wanted}, not one of shape {list(value.shape)}")
    if not value.requires_grad or torch.autograd.grad(
            value.sum(), logits, allow_unused=True)[0] is None:
        raise UserError(f"objective '{name}' {wanted}, and what it returns does not depend on the "
                        "logits in a way that can be differentiated")
