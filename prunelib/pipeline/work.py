"""Performing units: the code that runs inside a worker, whoever started it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunelib.components import Ablation
from prunelib.engines.base import Canary, Completion, Engine, Prompt
from prunelib.errors import UnitError, UserError
from prunelib.models import Loaded, ModelInfo, describe, load
from prunelib.pipeline.units import AttributeJob, CanaryJob, EvaluateJob, GridJob, Unit
from prunelib.results.store import Store
from prunelib.scoring.correctness import first_line, judge
from prunelib.tasks import Example, draw, get_task

Row = dict[str, Any]
#: How often the batches of a unit are halved where memory runs out, before the unit fails.
MAX_HALVINGS = 2
#: How many next tokens a canary compares.
_CANARY_TOKENS = 8


class Worker:
    """Performs units one after the other, keeping one model (and one engine) in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._model: tuple[tuple[str, str], Loaded] | None = None
        self._engine: tuple[tuple[str, str, str], Engine] | None = None
        self._live: str | None = None
        self._halvings = 0

    def perform(self, unit: Unit, halvings: int = 0) -> int:
        """Do the work and commit its one file. Does nothing if the file is already there.

        Where memory runs out, batches are halved, :data:`MAX_HALVINGS` times at the most. Their
        shape shows in the last digits of what is computed, so how often is returned (and stands
        in the table ``units``). ``halvings`` is where to begin.
        """
        if self._store.has(unit.table, unit.id):
            return 0
        perform: dict[type, Callable[[Unit, Any], list[Row]]] = {
            AttributeJob: self._attribute,
            GridJob: self._grid,
            CanaryJob: self._canary,
            EvaluateJob: self._evaluate,
        }
        unit = replace(unit, model=_on_this_node(unit.model))
        for self._halvings in range(min(halvings, MAX_HALVINGS), MAX_HALVINGS + 1):
            try:
                rows = perform[type(unit.job)](unit, unit.job)
                break
            except Exception as error:
                if self._halvings == MAX_HALVINGS or not _out_of_memory(error):
                    raise
            _empty_cache()
        self._store.write(unit.table, unit.id, rows)
        return self._halvings

    def forget(self) -> None:
        """Drop the model and close the engine."""
        engine, self._engine, self._model, self._live = self._engine, None, None, None
        if engine is not None:
            engine[1].close()

    def _loaded(self, info: ModelInfo, dtype: str) -> Loaded:
        key = (info.weights_digest, dtype)
        if self._model is None or self._model[0] != key:
            import torch

            # One thread on a CPU: rounding depends on how a product is split over threads, and
            # workers are what fills the cores.
            torch.set_num_threads(1)
            self._model = (key, load(info, dtype))
        return self._model[1]

    def _attribute(self, unit: Unit, job: AttributeJob) -> list[Row]:
        from prunelib.attribution import quadrature
        from prunelib.attribution.encoding import encode
        from prunelib.attribution.integrated_gradients import ROWS, block_gradients
        from prunelib.attribution.objectives import OBJECTIVES

        loaded = self._loaded(unit.model, job.dtype)
        examples = draw(get_task(job.task), split="attribute", shots=job.shots, seed=job.seed,
                        count=job.stop)[job.start :]
        prompts = [encode(example, loaded.tokenizer) for example in examples]
        found = block_gradients(loaded, job.layer, prompts, OBJECTIVES[job.objective],
                                quadrature.new_nodes(job.level), ROWS >> self._halvings)
        return [
            {
                "model": unit.model.id,
                "layer": job.layer,
                "start": job.start,
                "level": job.level,
                "alpha": float(alpha),
                "sums": found.sums[i],
                "totals": found.totals[i],
                "values": found.values[i],
                "unit_id": unit.id,
            }
            for i, alpha in enumerate(found.alphas)
        ]

    def _grid(self, unit: Unit, job: GridJob) -> list[Row]:
        from prunelib.engines.stopping import stop_token_ids
        from prunelib.search.grid import ROWS, greedy_rows

        loaded = self._loaded(unit.model, job.dtype)
        examples = draw(get_task(job.task), split="search", shots=job.shots, seed=job.seed,
                        count=job.examples)
        prompts = _prompts(examples, loaded.tokenizer)
        answers = greedy_rows(loaded, job.layer, job.ablations, [p.token_ids for p in prompts],
                              max(p.max_tokens for p in prompts),
                              stop_token_ids(loaded.tokenizer), ROWS >> self._halvings)
        rows: list[Row] = []
        for ablation, tokens in zip(job.ablations, answers, strict=True):
            completions = [
                Completion(tuple(ids), str(loaded.tokenizer.decode(ids, skip_special_tokens=True)))
                for ids in tokens
            ]
            rows += _prediction_rows(unit, "transformers", "arrow", 0, ablation, examples,
                                     prompts, completions)
        return rows

    def _canary(self, unit: Unit, job: CanaryJob) -> list[Row]:
        import torch

        from prunelib.attribution.encoding import pad_left
        from prunelib.interventions.masking import ActivationMasks

        loaded = self._loaded(unit.model, job.dtype)
        example = draw(get_task(job.task), split="search", shots=3, seed=0, count=1)[0]
        ids = _prompts([example], loaded.tokenizer)[0].token_ids
        batch = pad_left([ids], loaded.tokenizer.pad_token_id, loaded.device)
        with torch.no_grad(), ActivationMasks(loaded) as masks:
            masks.set(job.ablation)
            logits = loaded.model(**batch.inputs(), use_cache=False, logits_to_keep=1).logits
        best = logits[0, -1].float().log_softmax(-1).topk(_CANARY_TOKENS)
        return [
            {
                "model": unit.model.id,
                "ablation": job.ablation.digest,
                "token_ids": list(ids),
                "candidates": best.indices.tolist(),
                "logprobs": best.values.tolist(),
                "unit_id": unit.id,
            }
        ]

    def _evaluate(self, unit: Unit, job: EvaluateJob) -> list[Row]:
        from prunelib.engines.transformers import BATCH_TOKENS, TransformersEngine
        from prunelib.models.loading import load_tokenizer

        engine = self._started(unit, job)
        if isinstance(engine, TransformersEngine):
            engine.batch_tokens = BATCH_TOKENS >> self._halvings
        if self._live != job.ablation.digest:
            self._live = None
            engine.switch(job.ablation, job.canary)
            self._live = job.ablation.digest
        examples = draw(get_task(job.task), split="report", shots=job.shots, seed=job.seed,
                        count=job.examples, prompt_format=job.format)
        prompts = _prompts(examples, load_tokenizer(unit.model))
        return _prediction_rows(unit, engine.kind, job.format, job.repeat, job.ablation, examples,
                                prompts, engine.generate(prompts))

    def _started(self, unit: Unit, job: EvaluateJob) -> Engine:
        from prunelib.engines.choose import start

        key = (job.engine, unit.model.weights_digest, job.dtype)
        if self._engine is None or self._engine[0] != key:
            self.forget()
            self._engine = (key, start(job.engine, unit.model, job.dtype,
                                       unit.tensor_parallel or 1))
        return self._engine[1]


@functools.cache
def _on_this_node(info: ModelInfo) -> ModelInfo:
    """The model as this machine has it, which may be under another path than the driver's.

    Raises:
        UnitError: it is not here, or its files have other contents here.
    """
    try:
        if (Path(info.path) / "config.json").is_file():
            here = describe(info.path, None, info.trust_remote_code)
        else:
            known = info.revision in ("local", "shipped")
            here = describe(info.id, None if known else info.revision,
                            info.trust_remote_code)
    except UserError as error:
        raise UnitError(f"not on this node: {error}") from error
    if here.key != info.key:
        raise UnitError(f"model '{info.id}' has other weights or another tokenizer on this node "
                        f"({here.path})")
    return replace(info, path=here.path)


def _out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of a GPU or of the machine."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _empty_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _prompts(examples: Sequence[Example], tokenizer: Any) -> list[Prompt]:
    """Token ids of prompts, with room for the longest answer that occurs and what ends it."""
    answers = {y for example in examples for y in (example.gold, *example.answers)}
    room = 2 + max(
        len(tokenizer(" " + answer, add_special_tokens=False)["input_ids"]) for answer in answers
    )
    return [Prompt(tuple(tokenizer(e.prompt)["input_ids"]), room) for e in examples]


def _prediction_rows(
    unit: Unit,
    engine: str,
    prompt_format: str,
    repeat: int,
    ablation: Ablation,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
) -> list[Row]:
    rows: list[Row] = []
    for example, prompt, completion in zip(examples, prompts, completions, strict=True):
        prediction = first_line(completion.text, example.separator)
        outcome = judge(get_task(example.task), example, prediction)
        rows.append(
            {
                "model": unit.model.id,
                "engine": engine,
                "ablation": ablation.digest,
                "task": example.task,
                "split": example.split,
                "shots": example.shots,
                "seed": example.seed,
                "example": example.example,
                "repeat": repeat,
                "format": prompt_format,
                "query": example.query,
                "gold": example.gold,
                "prediction": prediction,
                "correct": outcome.correct and completion.error is None,
                "copied": outcome.copied and completion.error is None,
                "copied_position": outcome.copied_position if completion.error is None else None,
                "gold_in_prompt": outcome.gold_in_prompt,
                "demonstrations": [x for x, _ in example.demonstrations],
                "answers": list(example.answers),
                "prompt_tokens": len(prompt.token_ids),
                "error": completion.error,
                "unit_id": unit.id,
            }
        )
    return rows


def canary_of(row: Row) -> Canary:
    """The canary that a row of the table ``canaries`` holds."""
    return Canary(tuple(row["token_ids"]), tuple(row["candidates"]), tuple(row["logprobs"]))
