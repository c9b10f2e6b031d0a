"""Where answers begin in the rows of a forward pass, for what acts there alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class AnswerPlaces:
    """Where the prompts in the rows of a model's forward passes end.

    Whoever runs the model says it with :meth:`after`. Unless it does, every pass is one of whole
    prompts that all end in the last column.
    """

    def __init__(self) -> None:
        self._ends: Sequence[int] | None = None
        self._seen = 0

    @contextmanager
    def after(self, ends: Sequence[int]) -> Iterator[None]:
        """Within the context passes continue each other, as with a cache.

        ``ends``: of each row, the column in which its prompt ends, counted from the first pass.
        """
        self._ends, self._seen = ends, 0
        try:
            yield
        finally:
            self._ends = None

    def offsets(self, rows: int, length: int, device: torch.device) -> Tensor:
        """How far the columns of the next pass are behind the prompts' ends, ``[rows, length]``.

        0 where a prompt ends, positive where its answer is read, negative before. To be called
        once for each pass.
        """
        import torch

        columns = torch.arange(length, device=device)
        if self._ends is None:
            return (columns - (length - 1)).expand(rows, length)
        columns, self._seen = columns + self._seen, self._seen + length
        return columns - torch.tensor(self._ends, device=device)[:, None]
