"""What a recipe would do: counts, what is there already, and what it would cost."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunelib.errors import UserError
from prunelib.models import ModelInfo, describe
from prunelib.models.info import outline
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.driver import each_model, prepare
from prunelib.pipeline.stages.registry import Course, model_counts, tokens
from prunelib.pipeline.stages.study import Count, exactly
from prunelib.pipeline.units import memory
from prunelib.pipeline.units.model_run import ModelRun, finished
from prunelib.pipeline.units.prompts import written
from prunelib.recipe.load import stored_recipe
from prunelib.recipe.model import ModelSpec
from prunelib.recipe.recipe import Recipe
from prunelib.results.storage.files import open_files
from prunelib.results.storage.store import Store
from prunelib.tasks import Example, Split, draw
from prunelib.tasks.tokenization import token_ids
from prunelib.vocabulary import Stage


@dataclass(frozen=True)
class Line:
    """One model and stage of a plan.

    Attributes:
        units: how many units there are.
        done: units whose files are there.
        teraflop: floating-point work of what is left, in 10^12 operations.
        seconds: what is left on one worker, by measured work; None if none was measured.
        other: whether other models were measured, not this one: a rougher figure.
    """

    model: str
    stage: str
    units: Count
    done: int
    teraflop: float
    seconds: float | None
    other: bool = False

    @property
    def units_text(self) -> str:
        """The count for people: ``8`` or ``8 to 40``."""
        count = self.units
        return str(count.least) if count.exact else f"{count.least} to {count.most}"


def estimate(recipe: Recipe, results: str | Path | None = None,
             earlier: Sequence[str | Path] = ()) -> list[Line]:
    """Plan a recipe without running anything.

    Args:
        recipe: what would run.
        results: where some of it may be done already.
        earlier: other results, whose measured times are used as well.

    Raises:
        UserError: as a run would.
    """
    infos = prepare(recipe)
    store = None
    if results is not None and open_files(results).exists(""):
        store = Store.open(results, create=False)
    measured = [*([store] if store else []), *(Store.open(e, create=False) for e in earlier)]
    return _lines(recipe, infos, store, _speeds(measured))


def predicted(recipe: Recipe, results: str | Path) -> dict[str, dict[str, float]]:
    """Model → stage → seconds that are left on one worker, by what was measured in ``results``.

    Only of what something was measured for, and of models that can be used.

    Raises:
        UserError: the results cannot be read.
    """
    store = Store.open(results, create=False)
    found: dict[str, dict[str, float]] = defaultdict(dict)
    if speeds := _speeds([store]):
        for line in _lines(recipe, each_model(recipe), store, speeds):
            if line.seconds is not None:
                found[line.model][line.stage] = line.seconds
    return dict(found)


def _lines(recipe: Recipe, infos: Sequence[ModelInfo | UserError], store: Store | None,
           speeds: dict[tuple[str, str | None], float]) -> list[Line]:
    lines = []
    for spec, info in zip(recipe.models, infos, strict=True):
        if isinstance(info, UserError):
            continue
        known, ended = _known(recipe, spec, info, store) if store else ({}, False)
        work = _work(recipe, info)
        for stage, count in model_counts(recipe, info).items():
            asked, done = known.get(stage, (0, 0))
            total = exactly(asked) if ended else Count(max(count.least, asked),
                                                       max(count.most, asked))
            if not total.most:
                continue
            # Attribution seldom needs all levels of its quadrature, and other stages mostly need
            # what they can.
            likely = total.least if stage == "attribute" else total.most
            left = max(0, likely - done)
            teraflop = work.get(stage, 0.0) * left / max(1, likely) / 1e12
            speed = speeds.get((stage, info.id), speeds.get((stage, None)))
            seconds = 0.0 if not left else None if speed is None else teraflop * speed
            lines.append(Line(info.id, stage, total, done, teraflop, seconds,
                              other=bool(left) and (stage, info.id) not in speeds))
    return lines


@dataclass(frozen=True)
class GpuNeed:
    """What a model needs of a node's GPUs.

    Attributes:
        weights: bytes of its weights in its dtype.
        vllm: GPUs of a worker that answers in vLLM.
        attribution: bytes that gradients take, weights and a small batch of prompts.
        torch: GPUs of a worker for attribution, search and head scores.
    """

    model: str
    dtype: str
    weights: int
    vllm: int
    attribution: int
    torch: int


def gpu_needs(recipe: Recipe, each: int) -> list[GpuNeed]:
    """How many GPUs of ``each`` bytes the models of a recipe need, by their configs alone.

    Raises :class:`UserError` for a model that is not supported.
    """
    found = []
    for spec in recipe.models:
        info = outline(spec.id, spec.revision, spec.trust_remote_code)
        split = None if spec.tensor_parallel == "auto" else spec.tensor_parallel
        answers = memory.gpu_bytes(info, spec.dtype, "vllm")
        gradients = memory.gpu_bytes(info, spec.dtype, "torch")
        found.append(GpuNeed(
            spec.id, spec.dtype, memory.weight_bytes(info, spec.dtype),
            split or memory.gpus_for(answers, each, "vllm"), gradients,
            split or memory.gpus_for(gradients, each, "torch")))
    return found


def _known(recipe: Recipe, spec: ModelSpec, info: ModelInfo, store: Store
           ) -> tuple[dict[str, tuple[int, int]], bool]:
    """Stage → (units, done) as far as finished stages tell which units there are; is that all?"""
    found: dict[str, tuple[int, int]] = {}
    course = Course(ModelRun(recipe, spec, info, store, record=False))
    while (units := course.units()) is not None:
        there = finished(store, units)
        for unit in units:
            total, done = found.get(unit.stage, (0, 0))
            found[unit.stage] = (total + 1, done + (unit.id in there))
        if any(unit.id not in there for unit in units):
            return found, False
    return found, not course.run.stopped


def _speeds(stores: list[Store]) -> dict[tuple[str, str | None], float]:
    """(stage, model) → seconds per teraflop of finished runs; model ``None`` is their mean.

    Whole stages are compared with what :func:`_work` says of them, so that what it leaves out
    (quadrature levels beyond the first, starts, tokens after the first) is part of the speed.
    """
    found: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    for store in stores:
        seconds: Counter[tuple[str, str, str]] = Counter()
        did: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        linked: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        for row in store.read("units").to_pylist():
            seconds[key := (row["run"], row["model"], row["stage"])] += row["seconds"]
            did[key].add(row["unit_id"])
        for row in store.read("run_units").to_pylist():
            linked[row["run"], row["model"], row["stage"]].add(row["unit_id"])
        for run in store.read("runs").to_pylist():
            if run["status"] != "done":
                continue
            for model, stage, flop in _stages_of(run["resolved"]):
                key = (run["run"], model, stage)
                if took := seconds[key]:
                    share = len(did[key]) / len(linked[key])  # the rest was there already
                    for name in (model, None):
                        found[stage, name].append(took / (share * flop / 1e12))
    return {key: sum(values) / len(values) for key, values in found.items()}


def _stages_of(resolved: str) -> Iterator[tuple[str, str, float]]:
    """Model, stage and operations of an earlier recipe, of models that are still here."""
    recipe = stored_recipe(resolved)
    if recipe is None:
        return
    for spec in recipe.models:
        with contextlib.suppress(UserError):
            work = _work(recipe, describe(spec.id, spec.revision, spec.trust_remote_code,
                                          spec.bos))
            yield from ((spec.id, stage, flop) for stage, flop in work.items())


def _work(recipe: Recipe, info: ModelInfo) -> dict[Stage, float]:
    """Stage → floating-point operations, from the recipe alone."""
    per_token = info.bytes  # two operations per parameter; shipped weights have two bytes each
    tokenizer = load_tokenizer(info)

    @functools.cache
    def lengths(task: str, split: Split, shots: int) -> float:
        known = recipe.task(task)
        count = min(20, len(known.split(split)))
        some = draw(known, split=split, shots=shots, seed=0, count=count,
                    prompt_format=written(recipe, info, split),
                    demonstrations=recipe.sources(task, recipe.demonstrations_on(split)))
        return sum(len(token_ids(text, tokenizer, e.templated))
                   for e in some for text in _read_texts(e, split)) / len(some)

    return {stage: work * per_token for stage, work in tokens(recipe, info, lengths).items()}


def _read_texts(example: Example, split: Split) -> list[str]:
    """What a model reads for one example: its prompt, or the prompt with each of its choices."""
    if split == "attribute" or not example.choices:
        return [example.prompt]
    return [prompt + example.lead + choice.continuation for prompt, choice
            in zip(example.choice_prompts, example.choices, strict=True)]
