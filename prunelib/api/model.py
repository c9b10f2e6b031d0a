"""A model that is attributed, changed, asked and evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prunelib.api.evaluation import Evaluation
from prunelib.api.readings import Place, hidden_states, next_logits
from prunelib.api.scores import Scores
from prunelib.api.session import Session
from prunelib.api.tasks import OpenTask, several
from prunelib.components import Component
from prunelib.engines.base import Prompt
from prunelib.errors import UserError
from prunelib.heads.importance import Variant
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.base import Intervention
from prunelib.interventions.own_steering import make_steering
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.attribution import rank
from prunelib.pipeline.stages.contrasts import contrast_prompts, contrasted
from prunelib.pipeline.stages.evaluation import evaluate_job
from prunelib.pipeline.stages.head_importance import ImportanceJob
from prunelib.pipeline.units.left_out import usable
from prunelib.pipeline.units.unit import Row
from prunelib.recipe.model import Bos, ModelSpec
from prunelib.recipe.steering import SteeringSpec
from prunelib.scoring.correctness import first_line
from prunelib.tasks import Example
from prunelib.tasks.tokenization import answer_room, token_ids

Floats = NDArray[np.float32]


def load(model: str, *, revision: str | None = None, dtype: str = "float32",
         tensor_parallel: int | Literal["auto"] = "auto", trust_remote_code: bool = False,
         bos: Bos = "auto") -> Model:
    """A model to work with; its weights are read when they are first needed.

    On a CPU torch is then kept to one thread, as in a run: rounding depends on their number.

    Args:
        model: ``reference/NAME``, a folder, a ``.gguf`` file, or a name on the hub.
        revision: commit, branch or tag on the hub; of a GGUF file, its SHA-256.
        dtype: number format of the weights in memory: ``float32``, ``bfloat16``, …
        tensor_parallel: GPUs over which the layers are spread; ``auto`` is one.
        trust_remote_code: whether Python code beside the weights may run.
        bos: whether the start token stands in front of prompts: ``auto``, ``always``, ``never``.

    Raises:
        UserError: there is no such model, or it is not supported.
    """
    return Model(Session(ModelSpec(
        id=model, revision=revision, dtype=dtype, tensor_parallel=tensor_parallel,  # type: ignore[arg-type]
        trust_remote_code=trust_remote_code, bos=bos)))


@dataclass(frozen=True, repr=False)
class Model:
    """A model, untouched or under an intervention. Changing it gives another one.

    All that come from one :func:`load` share the weights in memory, and what was computed.
    """

    session: Session
    intervention: Intervention = BASELINE

    @property
    def info(self) -> ModelInfo:
        """Its identity and its sizes."""
        return self.session.info

    @property
    def untouched(self) -> bool:
        """Whether nothing is done to it."""
        return self.intervention == BASELINE

    def without(self, components: Iterable[Component]) -> Model:
        """The model with these components switched off, beside those that are off already.

        Raises:
            UserError: it does not have them, or another kind of intervention is live.
        """
        if not isinstance(self.intervention, Ablation):
            raise UserError(f"components are switched off in the untouched model, not under "
                            f"{self.intervention}")
        return self.under(Ablation.of([*self.intervention.components, *components]))

    def under(self, intervention: Intervention) -> Model:
        """The model under an intervention of any kind, which takes the place of the one before.

        Raises :class:`UserError` if it cannot be done to this model.
        """
        intervention.check(self.info)
        return replace(self, intervention=intervention)

    def steered(self, method: str, task: str | OpenTask, *, size: int, strength: float,
                shots: int = 3, prompts: int = 100, seed: int = 0,
                against: Literal["wrong", "copied"] = "wrong", format: str = "arrow") -> Model:
        """The model under a steering, found on pairs of a right and a wrong answer.

        Args:
            method: ``caa``, ``iti``, ``sadi_hidden``, ``sadi_neuron``, ``sadi_head``, or a
                function of yours, ``package.module:function``.
            task: whose prompts, of its ``attribute`` split.
            size: of ``caa`` the layer; of the others how many heads, neurons or dimensions; of a
                function of yours either.
            strength: the multiplier of ``caa``, α of ``iti``, δ of ``sadi``.
            shots: demonstrations of each prompt.
            prompts: how many.
            seed: of the prompts.
            against: the wrong answer: another one, or one that would be ``copied``.
            format: how prompts are written.

        Raises:
            UserError: a setting is wrong, or something is done to the model already.
        """
        self._check_untouched()
        chosen = several(task)
        name = chosen[0].name
        run = self.session.model_run({
            "format": format, "search": {"split": "attribute", "shots": shots},
            "evaluate": {"tasks": [name], "shots": [shots], "examples": 1},
            "steering": {"methods": {"method": method, "strongest": 1.0}, "proxy": name,
                         "shots": shots, "prompts": prompts, "seeds": [seed],
                         "against": against}}, chosen)
        spec = run.recipe.settings(SteeringSpec)
        known = spec.methods[0].known
        if known.place is not None and not known.sizes and size not in run.layers:
            raise UserError(f"model '{self.info.id}' has layers 0 to {self.info.layers - 1}, no "
                            f"layer {size}")
        contrast, _ = self.session.follow(contrasted(
            run, spec, contrast_prompts(run, spec, name, seed), False, known.probes))
        return self.under(make_steering(spec.methods[0], contrast, size, strength, self.info))

    def attribute(self, task: str | OpenTask, *, shots: int = 3, prompts: int = 50,
                  seed: int = 0, layers: Literal["all"] | Sequence[int] = "all",
                  format: str = "arrow", **settings: Any) -> Scores:
        """Score the neurons of each layer on prompts of a task's ``attribute`` split.

        Args:
            task: whose prompts.
            shots: demonstrations of each.
            prompts: how many.
            seed: of the prompts.
            layers: which layers.
            format: how prompts are written.
            settings: other keys of a recipe's section ``attribution``, such as
                ``method="wanda"``, ``objective="max_logit"`` or ``max_prompts=400``.

        Raises:
            UserError: a setting is wrong, or something is done to the model: what is attributed
                is the untouched model.
        """
        self._check_untouched()
        chosen = several(task)
        run = self.session.model_run({
            "format": format,
            "search": {"layers": layers, "split": "attribute", "shots": shots},
            "attribution": {"proxy": chosen[0].name, "shots": shots, "prompts": prompts,
                            "seeds": [seed], **settings},
            "evaluate": {"tasks": [chosen[0].name], "shots": [shots], "examples": 1}}, chosen)
        (request,) = run.recipe.ranking_requests()
        ranking = self.session.follow(rank(run, request))
        units = [unit for table, unit, _ in run.files if table == "attributions"]
        rows = self.session.store.read("attributions", units).to_pylist()
        about = f"{request.spec.label}, {request.task}, {shots} shots, {rows[0]['prompts']} prompts"
        return Scores(about, ranking.site, *_by_layer(rows, "score"), request.spec.rank)

    def attribute_heads(self, task: str | OpenTask, *, shots: int = 3, prompts: int = 50,
                        seed: int = 0, site: Literal["head", "ffn"] = "head",
                        score: Variant = "gate", format: str = "arrow") -> Scores:
        """Score attention heads, or whole FFNs, by the gradient of the right answer's loss.

        Args:
            task: whose prompts, of its ``attribute`` split.
            shots: demonstrations of each.
            prompts: how many.
            seed: of the prompts.
            site: ``head`` or ``ffn``.
            score: ``gate``, ``per_token`` or ``signed`` (:mod:`prunelib.heads.importance`).
            format: how prompts are written.

        Raises:
            UserError: the model has no attention heads, the task no labels, or something is done to
                the model.
        """
        self._check_untouched()
        chosen = several(task)
        name = chosen[0].name
        run = self.session.model_run({
            "format": format, "evaluate": {"tasks": [name], "shots": [shots], "examples": 1},
            "importance": {"prompts": prompts, "seed": seed, "examples": 1}}, chosen)
        asked = usable(run, run.prompts(name, "attribute", shots, seed, range(prompts)))
        rows = [row for row in self.session.rows(run.unit(ImportanceJob(run.spec.dtype, asked)))
                if (row["site"], row["score"]) == (site, f"gradient_{score}")]
        about = f"gradient_{score}, {name}, {shots} shots, {len(asked.indices)} prompts"
        return Scores(about, site, *_by_layer(rows, "value"))

    def generate(self, prompts: Sequence[str | Example], max_tokens: int | None = None
                 ) -> list[str]:
        """Greedy answers, in the order of the prompts.

        Of prompts of a task the answer alone, with room for the longest one among them; of texts
        ``max_tokens`` tokens (20) as they come.

        Raises :class:`UserError` if a prompt is too long.
        """
        engine = self.session.engine(self.intervention)
        tokenizer = self.session.tokenizer
        examples = [prompt for prompt in prompts if isinstance(prompt, Example)]
        room = max_tokens or (answer_room(examples, (), tokenizer) if examples else 20)
        found = engine.generate([Prompt(tuple(ids), room) for ids in self._ids(prompts)])
        for i, completion in enumerate(found):
            if completion.error is not None:
                raise UserError(f"prompt {i}: {completion.error}")
        return [first_line(completion.text, prompt.separator) if isinstance(prompt, Example)
                else completion.text for prompt, completion in zip(prompts, found, strict=True)]

    def logits(self, prompts: Sequence[str | Example]) -> Floats:
        """Logits of the next token, ``[prompts, vocabulary]``."""
        with self.session.changed(self.intervention) as loaded:
            return next_logits(loaded, self._ids(prompts))

    def hidden(self, prompts: Sequence[str | Example], layer: int, site: Place = "stream"
               ) -> list[Floats]:
        """What passes a place in the model, at every token of each prompt.

        Args:
            prompts: texts, or prompts of a task.
            layer: from 0.
            site: ``stream``, what leaves the layer, or where components are switched off:
                ``mlp_hidden``, ``head``, …, as it is under the model's own intervention.

        Returns:
            ``[tokens, width]`` of each prompt; at ``head`` ``[tokens, heads, head size]``.

        Raises:
            UserError: the model has no such layer or place.
        """
        with self.session.changed(self.intervention) as loaded:
            return hidden_states(loaded, self._ids(prompts), layer, site)

    def evaluate(self, tasks: str | OpenTask | Iterable[str | OpenTask] = "icl18", *,
                 shots: int | Sequence[int] = (1, 2, 3, 4), examples: int = 100,
                 seeds: Sequence[int] = (0,), format: str = "arrow",
                 scoring: Literal["greedy", "options"] = "greedy") -> Evaluation:
        """Answer prompts of the ``report`` split, paired with the untouched model's answers.

        Args:
            tasks: names of tasks and suites, or tasks.
            shots: numbers of demonstrations.
            examples: prompts of each task, number of shots and seed.
            seeds: of the prompts.
            format: how prompts are written.
            scoring: ``options``: where a task's answers are few and known, the most probable one.

        Raises:
            UserError: a task is not known, or too small.
        """
        chosen = several(tasks)
        run = self.session.model_run({"format": format, "evaluate": {
            "tasks": [one.name for one in chosen], "scoring": scoring, "examples": examples,
            "shots": [shots] if isinstance(shots, int) else list(shots), "seeds": list(seeds)}},
            chosen)
        asked = run.recipe.evaluate

        def answered(intervention: Intervention) -> list[Row]:
            return [row for name in asked.tasks for k in asked.shots for seed in asked.seeds
                    for row in self.session.rows(run.unit(evaluate_job(
                        run, name, k, seed, run.recipe.examples(name), intervention, None)))]

        return Evaluation(repr(self), answered(self.intervention),
                          [] if self.untouched else answered(BASELINE))

    def _ids(self, prompts: Sequence[str | Example]) -> list[list[int]]:
        if isinstance(prompts, str) or not prompts:
            raise UserError("give a list of prompts")
        tokenizer = self.session.tokenizer
        return [token_ids(prompt, tokenizer) if isinstance(prompt, str)
                else token_ids(prompt.prompt, tokenizer, prompt.templated) for prompt in prompts]

    def _check_untouched(self) -> None:
        if not self.untouched:
            raise UserError("what is attributed is the untouched model: call this on what "
                            "prunelib.load gave")

    def __repr__(self) -> str:
        if self.untouched:
            return self.info.id
        if isinstance(self.intervention, Ablation):
            return f"{self.info.id} without {len(self.intervention)} components"
        return f"{self.info.id} under {self.intervention}"


def _by_layer(rows: Sequence[Row], column: str) -> tuple[dict[int, Any], dict[int, Any]]:
    """Layer → values and standard errors of its components, by index."""
    layers: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["layer"], row["index"])):
        layers.setdefault(row["layer"], []).append(row)
    return ({layer: np.array([row[column] for row in of], float) for layer, of in layers.items()},
            {layer: np.array([row["standard_error"] for row in of], float)
             for layer, of in layers.items()})
