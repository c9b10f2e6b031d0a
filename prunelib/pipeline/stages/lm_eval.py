"""The lm-evaluation-harness stage: its tasks under every intervention, answered by our engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, ClassVar

from prunelib.engines.base import Canary
from prunelib.errors import UnitError, UserError
from prunelib.interventions.ablation import BASELINE
from prunelib.interventions.base import Intervention
from prunelib.models import ModelInfo
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.stages.evaluation import EngineJob, engine_of, with_baseline
from prunelib.pipeline.stages.study import Summary, SummaryTable
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import chat_format
from prunelib.pipeline.units.unit import Row, Unit, Workplace
from prunelib.recipe.lm_eval import LmEvalSpec
from prunelib.recipe.recipe import Recipe
from prunelib.tasks.chat import template_digest
from prunelib.tasks.lm_eval_catalogue import version
from prunelib.tasks.lm_eval_tasks import AskingOptions, facts, first_requests, load_task

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class LmEvalJob(EngineJob):
    """One task of the harness under one intervention."""

    kind: ClassVar[str] = "lm_eval"
    table: ClassVar[str] = "lm_eval_scores"

    task: str
    task_digest: str
    options: AskingOptions
    #: Digest of the model's chat template, where it writes the prompts.
    template: str | None
    #: Where tasks of the user's own are.
    folders: tuple[str, ...] = field(compare=False)

    def describe(self) -> str:
        return f"lm_eval:{self.task}, {self.options.shots} shots, {self.intervention}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.engines.lm_eval_model import scores

        options = self.options
        found = facts(self.task, self.folders, options.shots, options.examples)
        if found.digest != self.task_digest:
            raise UnitError(f"task '{self.task}' of lm-evaluation-harness has other content on "
                            "this node, or the harness another version")
        engine = worker.engine(unit, self.engine, self.dtype, self.intervention, self.canary)
        about = {
            "model": unit.model.id, "engine": engine.kind, "intervention": self.intervention.digest,
            "task": self.task, "task_digest": self.task_digest, "harness": version(),
            "request_type": found.requests, "shots": options.shots, "seed": options.seed,
            "chat": options.chat, "multiturn": options.multiturn, "system": options.system,
            "unit_id": unit.id,
        }  # fmt: skip
        return [about | asdict(score) for score in scores(
            engine, unit.model, load_tokenizer(unit.model), load_task(self.task, self.folders),
            options)]


def lm_eval(run: ModelRun, interventions: Sequence[Intervention], expected: Mapping[str, Canary],
            priority: int = 0) -> list[Unit]:
    """Every task of the harness that is asked for, under every intervention.

    With the untouched model's answers of the same engine.
    """
    spec = run.recipe.evaluate.lm_eval
    if spec is None:
        return []
    return [run.unit(job, priority=priority)
            for task in spec.leaves
            for intervention in interventions
            for job in with_baseline(_job(run, spec, task, intervention,
                                          expected.get(intervention.digest)),
                                     expected.get(BASELINE.digest))]


def _job(run: ModelRun, spec: LmEvalSpec, task: str, intervention: Intervention,
         canary: Canary | None) -> LmEvalJob:
    found = facts(task, spec.folders, spec.shots, spec.limit)
    # A window of running text fills the context, which vLLM keeps a token of.
    rolling = found.requests == "loglikelihood_rolling"
    return LmEvalJob(
        dtype=run.spec.dtype, engine="transformers" if rolling else engine_of(run, intervention),
        intervention=intervention, task=task, task_digest=found.digest,
        options=AskingOptions(found.shots, spec.seed, spec.limit, spec.chat, spec.multiturn,
                              spec.system),
        template=template_digest(load_tokenizer(run.info)) if spec.chat else None,
        folders=spec.folders, canary=canary)


def check_lm_eval(recipe: Recipe, info: ModelInfo) -> None:
    """Raise :class:`UserError` if a model cannot be asked as the recipe says."""
    spec = recipe.evaluate.lm_eval
    if spec is not None and spec.chat:
        chat_format(info, spec.system)


def lm_eval_count(recipe: Recipe) -> int:
    """Units of one intervention on one engine."""
    spec = recipe.evaluate.lm_eval
    if spec is None:
        return 0
    try:
        return len(spec.leaves)
    except UserError:  # the harness is not on this machine
        return len(spec.tasks)


def lm_eval_tokens(recipe: Recipe, info: ModelInfo) -> float:
    """Tokens of all requests, for one intervention; from a few documents of each task."""
    spec = recipe.evaluate.lm_eval
    if spec is None:
        return 0.0
    tokenizer, total = load_tokenizer(info), 0.0
    for task in spec.leaves:
        found = facts(task, spec.folders, spec.shots, spec.limit)
        texts = first_requests(task, spec.folders, found.shots)
        total += found.examples / len(texts) * sum(
            len(tokenizer(text, verbose=False)["input_ids"]) for some in texts for text in some)
    return total


def lm_eval_summary(connection: duckdb.DuckDBPyConnection, run: str) -> Summary | None:
    """The scores of a run that reports no other tasks, or ``None`` while it has none."""
    rows = connection.sql("SELECT * FROM lm_eval WHERE run = $1 AND score IS NOT NULL",
                          params=[run]).to_arrow_table().to_pylist()
    tables: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        method = "baseline" if row["method"] == "none" else row["method"]
        tables.setdefault(row["model"], []).append((
            f"{row['task']}\n  {method}", f"{row['metric']}\n  {row['filter']}",
            f"{row['score']:.4g}", "" if method == "baseline" else f"{row['difference']:+.4g}",
            str(row["examples"])))
    columns = ("task", "metric", "score", "vs baseline", "examples")
    return Summary("tasks of lm-evaluation-harness", tuple(
        SummaryTable(model, columns, tuple(lines)) for model, lines in tables.items()),
        "select * from lm_eval") if rows else None
