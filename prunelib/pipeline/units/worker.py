"""Workers: one process that performs units one after the other, whoever started it."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from pathlib import Path

from prunelib.engines.base import Canary, Engine
from prunelib.engines.registry import EngineName
from prunelib.errors import UnitError, UserError
from prunelib.interventions.base import Intervention
from prunelib.models import Loaded, ModelInfo, describe, load
from prunelib.models.placement import devices
from prunelib.pipeline.units.unit import Unit
from prunelib.results.storage.store import Store

#: How often the batches of a unit are halved where memory runs out, before the unit fails.
MAX_BATCH_HALVINGS = 2


class Worker:
    """Performs units one after the other, keeping one model (and one engine) in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._model: tuple[tuple[tuple[str, ...], str], Loaded] | None = None
        self._engine: tuple[tuple[str, tuple[str, ...], str], Engine] | None = None
        self._live: str | None = None
        self.batch_halvings = 0
        #: GPUs over which the model of the unit in hand is spread.
        self._gpus = 1
        #: Seconds that the unit in hand spent on starting an engine, and on switching a live one
        #: to another intervention; None if it did not. The first switch is part of a start: engines
        #: compile and warm up then.
        self.start_seconds: float | None = None
        self.switch_seconds: float | None = None

    def perform(self, unit: Unit, batch_halvings: int = 0) -> int:
        """Do the work and commit its one file. Does nothing if the file is already there.

        Where memory runs out, batches are halved, :data:`MAX_BATCH_HALVINGS` times at the most.
        Their shape shows in the last digits of what is computed, so how often is returned (and
        stands in the table ``units``). ``batch_halvings`` is where to begin.
        """
        self.start_seconds = self.switch_seconds = None
        if self._store.has(unit.table, unit.id):
            return 0
        unit = replace(unit, model=_on_this_node(unit.model))
        self._gpus = unit.tensor_parallel or 1
        first = min(batch_halvings, MAX_BATCH_HALVINGS)
        for self.batch_halvings in range(first, MAX_BATCH_HALVINGS + 1):
            try:
                rows = unit.job.run(self, unit)
                break
            except Exception as error:
                if self.batch_halvings == MAX_BATCH_HALVINGS or not _out_of_memory(error):
                    raise
            self._undo()
            _empty_cache()
        self._store.write(unit.table, unit.id, rows)
        return self.batch_halvings

    def forget(self) -> None:
        """Drop the model and close the engine."""
        engine, self._engine, self._model, self._live = self._engine, None, None, None
        if engine is not None:
            engine[1].close()

    def loaded(self, info: ModelInfo, dtype: str) -> Loaded:
        """The model in transformers; the one before it is dropped."""
        self._undo()
        key = (tuple(info.key), dtype)
        if self._model is None or self._model[0] != key:
            self._model = (key, load(info, dtype, devices(self._gpus)))
            _use_one_thread()
        return self._model[1]

    def _undo(self) -> None:
        """Have a transformers engine give back what it holds beside its base model."""
        from prunelib.engines.transformers import TransformersEngine

        if self._engine is not None and isinstance(self._engine[1], TransformersEngine):
            self._live = None
            self._engine[1].close()

    def engine(self, unit: Unit, kind: EngineName, dtype: str, intervention: Intervention,
               canary: Canary | None) -> Engine:
        """The engine of a unit's model, switched to an intervention."""
        from prunelib.engines.registry import start
        from prunelib.engines.transformers import BATCH_TOKENS, TransformersEngine

        key = (kind, tuple(unit.model.key), dtype)
        began = time.monotonic()
        fresh = self._engine is None or self._engine[0] != key
        if self._engine is None or self._engine[0] != key:
            self.forget()
            self._engine = (key, start(kind, unit.model, dtype, self._gpus))
            if kind == "transformers":
                _use_one_thread()
        engine = self._engine[1]
        if isinstance(engine, TransformersEngine):
            engine.batch_tokens = BATCH_TOKENS >> self.batch_halvings
        if self._live != intervention.digest:
            self._live = None
            engine.switch(intervention, canary)
            self._live = intervention.digest
            took = time.monotonic() - began
            if fresh:
                self.start_seconds = took
            else:
                self.switch_seconds = took
        return engine


@functools.cache
def _on_this_node(info: ModelInfo) -> ModelInfo:
    """The model as this machine has it, which may be under another path than the driver's.

    Raises:
        UnitError: it is not here, or its files have other contents here.
    """
    try:
        if (Path(info.path) / "config.json").is_file():
            here = describe(info.path, None, info.trust_remote_code, info.bos)
        else:
            known = info.revision in ("local", "shipped")
            here = describe(info.id, None if known else info.revision,
                            info.trust_remote_code, info.bos)
    except UserError as error:
        raise UnitError(f"not on this node: {error}") from error
    if here.key != info.key:
        raise UnitError(f"model '{info.id}' has other weights or another tokenizer on this node "
                        f"({here.path})")
    return replace(info, path=here.path)


def _use_one_thread() -> None:
    """On a CPU, rounding depends on how a product is split over threads.

    Workers are what fills the cores. Called when a model is loaded: what is imported for that may
    set the number too.
    """
    import torch

    torch.set_num_threads(1)


def _out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of a GPU or of the machine."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _empty_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
