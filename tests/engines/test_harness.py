"""The 16 tasks of the OPT-66B paper against lm-evaluation-harness, item by item.

The harness reads the same files with its own task files and scores them with its own model class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import opt_data
import pytest

from prunelib.engines.multiple_choice import Chosen, choose_own
from prunelib.engines.transformers import TransformersEngine
from prunelib.interventions.ablation import BASELINE
from prunelib.models import ModelInfo
from prunelib.models.loading import load_tokenizer
from prunelib.tasks import CHOICE_SCORINGS, DatasetSpec, Example, Task, build_task, draw

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

VALUE, TOLERANCE = 0, 1e-4


@pytest.fixture(scope="module")
def engine(opt: ModelInfo) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(opt)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def harness(opt: ModelInfo) -> Any:
    """The harness's own model class on the same checkpoint."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=opt.path, device="cpu", dtype="float32", batch_size=3)


def our_task(name: str, root: Path) -> Task:
    opt_data.write(name, root)
    fields: dict[str, Any] = {"name": name, "path": str(root)}
    if name == "lambada":  # whole, as the harness has it
        fields["splits"] = {"report": "test"}
    return build_task(DatasetSpec.model_validate(fields))


def their_items(name: str, files: dict[str, str], harness: Any) -> dict[tuple[str, ...], Any]:
    """Whole texts that are scored → the harness's sample: its values and its measures."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks._yaml_loader import load_yaml

    path = Path(lm_eval.__file__).parent / "tasks" / opt_data.TASKS[name][0]
    config = load_yaml(path) | {
        "dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    config["metric_list"] = [m for m in config["metric_list"] if m["metric"] != "f1"]  # of means
    task = ConfigurableTask(config=config)
    found = evaluate(harness, {task.config.task: task}, bootstrap_iters=0)
    return {tuple(request[0] + request[1] for request in sample["arguments"]): sample
            for sample in found["samples"][task.config.task]}


def ours(task: Task, engine: TransformersEngine, opt: ModelInfo, shots: int = 0
         ) -> list[tuple[Example, Chosen]]:
    assert task.scoring in CHOICE_SCORINGS
    examples = draw(task, split="report", shots=shots, seed=0, count=len(task.split("report")))
    return list(zip(examples, choose_own(engine, task.scoring, examples, load_tokenizer(opt)),
                    strict=True))


@pytest.mark.parametrize("name", opt_data.TASKS)
def test_items_equal_those_of_the_harness(
    name: str, tmp_path: Path, opt: ModelInfo, engine: TransformersEngine, harness: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    task = our_task(name, tmp_path / "data")
    theirs = their_items(name, opt_data.write(name, tmp_path / "data"), harness)
    measure = {"likelihood_per_character": "acc_norm", "greedy_match": "acc"}.get(
        task.scoring, "em" if name == "superglue_record" else "acc")
    engine.switch(BASELINE)
    found = ours(task, engine, opt)
    assert len(found) == len(theirs) >= 3
    for example, chosen in found:
        assert chosen.completion.error is None
        texts = tuple(prompt + example.lead + choice.continuation for prompt, choice
                      in zip(example.choice_prompts, example.choices, strict=True))
        sample = theirs.pop(texts)
        values = [response[VALUE] for response in sample["filtered_resps"]] if isinstance(
            sample["filtered_resps"][0], tuple | list) else [sample["filtered_resps"][VALUE]]
        assert chosen.likelihoods == pytest.approx(values, abs=TOLERANCE)
        # The harness takes label 1 of MultiRC, which says that an answer is right, for "no".
        right = sample[measure] if name != "superglue_multirc" else 1 - sample[measure]
        assert chosen.right == bool(right)
    assert not theirs and math.isfinite(chosen.likelihoods[0])
