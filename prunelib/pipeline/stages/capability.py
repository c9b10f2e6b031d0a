"""The capability stage: what else a model can do, so that a repair is not a broken model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from prunelib.engines.base import Canary
from prunelib.identity import digest
from prunelib.interventions.ablation import Ablation
from prunelib.models import ModelInfo
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.stages.evaluation import evaluate_job
from prunelib.pipeline.stages.study import Lengths
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.prompts import written
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.recipe.evaluate import CapabilitySpec
from prunelib.recipe.recipe import Recipe
from prunelib.tasks import draw, prose, text_file
from prunelib.vocabulary import Stage


@dataclass(frozen=True)
class Texts:
    """Texts whose probability is measured, by name and content."""

    name: str
    digest: str
    #: Whether a chat template wrote the contexts, and with them all special tokens.
    templated: bool
    #: (context, text): how probable is the text after its context, which may be empty.
    content: tuple[tuple[str, str], ...] = field(compare=False, repr=False)

    @classmethod
    def of(cls, name: str, content: tuple[tuple[str, str], ...], templated: bool = False
           ) -> Texts:
        """Texts with their digest."""
        return cls(name, digest("texts", [list(pair) for pair in content]), templated, content)


@dataclass(frozen=True)
class LikelihoodJob(Job):
    """How probable some texts are to a model under an ablation, in transformers."""

    kind: ClassVar[str] = "likelihood"
    stage: ClassVar[Stage] = "evaluate"
    table: ClassVar[str] = "likelihoods"

    texts: Texts
    ablation: Ablation

    def describe(self) -> str:
        return f"{len(self.texts.content)} texts, {self.ablation}"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        from prunelib.engines.perplexity import perplexity

        contexts, texts = zip(*self.texts.content, strict=True)
        found = perplexity(worker.loaded(unit.model, self.dtype), texts, self.ablation,
                           contexts=contexts, templated=self.texts.templated)
        about = {"model": unit.model.id, "intervention": self.ablation.digest,
                 "source": self.texts.name, "unit_id": unit.id}
        return [about | {"text": i} | asdict(likelihood) for i, likelihood in enumerate(found)]


def capability(run: ModelRun, ablations: Sequence[Ablation], expected: dict[str, Canary],
               priority: int) -> list[Unit]:
    """Multiple choice, and how probable texts are, under every ablation; if it is asked for."""
    spec = run.recipe.evaluate.capability
    if spec is None:
        return []
    texts = capability_texts(run.recipe, spec, run.info)
    # Texts take longest, so go first: one process alone runs them before its engine starts.
    units = [run.unit(LikelihoodJob(run.spec.dtype, texts, ablation), len(texts.content), priority)
             for ablation in ablations]
    return units + [
        run.unit(evaluate_job(run, task, spec.shots, 0, spec.examples, ablation,
                              expected[ablation.digest], purpose="capability", scoring="options"),
                 priority=priority)
        for ablation in ablations
        for task in spec.tasks
    ]


def capability_texts(recipe: Recipe, spec: CapabilitySpec, info: ModelInfo) -> Texts:
    """The texts whose probability a recipe asks for.

    Raises :class:`~prunelib.errors.UserError` if they cannot be had.
    """
    if spec.text == "prose":
        return Texts.of("prose", tuple(("", text) for text in prose()))
    if spec.text != "prompts":
        return Texts.of(Path(spec.text).name, tuple(("", text) for text in text_file(spec.text)))
    evaluate = recipe.evaluate
    examples = [
        example
        for name in evaluate.tasks
        for example in draw(recipe.task(name), split="report", shots=max(evaluate.shots), seed=0,
                            count=spec.examples, prompt_format=written(recipe, info, "report"))
    ]
    return Texts.of("prompts", tuple((e.prompt, e.lead + e.gold) for e in examples),
                    any(example.templated for example in examples))


def capability_tokens(recipe: Recipe, info: ModelInfo, lengths: Lengths) -> float:
    """Tokens of texts and questions, for one ablation."""
    spec = recipe.evaluate.capability
    if spec is None:
        return 0.0
    texts, tokenizer = capability_texts(recipe, spec, info).content, load_tokenizer(info)
    some = texts[:: max(1, len(texts) // 20)]
    return len(texts) / len(some) * sum(
        len(tokenizer(before + text, verbose=False)["input_ids"]) for before, text in some
    ) + spec.examples * sum(lengths(task, "report", spec.shots) for task in spec.tasks)
