"""Tasks of lm-evaluation-harness: our engine's answers and scores against its own, item by item."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lm_eval_tasks import TASKS, write_tasks
from tiny_llama import start_here
from transformers import AutoTokenizer

from prunelib.components import Component
from prunelib.engines.base import Engine
from prunelib.engines.transformers import TransformersEngine
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.export import export
from prunelib.models import ModelInfo, describe
from prunelib.models.loading import load_tokenizer
from prunelib.tasks.lm_eval_tasks import AskingOptions, facts, load_task

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

TOLERANCE = 1e-3
PLAIN = AskingOptions(shots=0, seed=1234, examples=None, chat=False, multiturn=False, system=None)
TEMPLATE = ("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tasks(tmp_path_factory.mktemp("tasks"), long=120)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def ours(info: ModelInfo, folder: str, name: str, options: AskingOptions = PLAIN,
         ablation: Ablation = BASELINE, engine: Engine | None = None) -> list[Any]:
    from prunelib.engines.lm_eval_model import scores

    engine = engine or TransformersEngine(info)
    engine.switch(ablation)
    shots = facts(name, (folder,), options.shots, options.examples).shots
    return scores(engine, info, load_tokenizer(info), load_task(name, (folder,)),
                  replace(options, shots=shots))


@functools.cache
def their_model(path: str) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=path, device="cpu", dtype="float32", batch_size=2)


def theirs(path: str, folder: str, name: str, options: AskingOptions = PLAIN) -> dict[str, Any]:
    """What the harness finds with its own model class."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False, include_path=folder)
    found = lm_eval.simple_evaluate(
        their_model(path), tasks=[name],
        task_manager=manager, num_fewshot=options.shots or None, limit=options.examples,
        fewshot_random_seed=options.seed, apply_chat_template=options.chat,
        fewshot_as_multiturn=options.multiturn, system_instruction=options.system,
        bootstrap_iters=0)
    return dict(found)


def check_equal(found: list[Any], expected: dict[str, Any], name: str) -> None:
    """Every response, every metric of every example, and what the harness makes of them all."""
    assert [row.error for row in found if row.error] == []
    by_key = {(row.example, row.filter, row.metric): row for row in found}
    assert len(by_key) == len(found)
    together: dict[str, list[float]] = {}
    for sample in expected["samples"][name]:
        for metric in sample["metrics"]:
            row = by_key.pop((sample["doc_id"], sample["filter"], metric))
            assert row.target == str(sample["target"])
            check_close(json.loads(row.responses), [one[0] for one in sample["resps"]])
            check_close(row.value if row.parts is None else json.loads(row.parts), sample[metric])
            if row.aggregation == "mean":
                together.setdefault(f"{metric},{sample['filter']}", []).append(row.value)
    whole = {f"{row.metric},{row.filter}": row.value for row in by_key.values()}
    assert all(row.example is None for row in by_key.values())
    whole |= {key: sum(values) / len(values) for key, values in together.items()}
    result = expected["results"][name]
    assert whole == {key: pytest.approx(result[key], rel=TOLERANCE) for key in whole}
    assert whole.keys() == {key for key in result if "," in key and "_stderr" not in key}


def check_close(found: Any, expected: Any) -> None:
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            check_close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=TOLERANCE, rel=1e-5)
    else:
        assert found == expected


@pytest.mark.parametrize(("model", "name", "shots"), [
    *(("opt", name, shots) for name in TASKS for shots in (0, 2)),
    # A tokenizer that puts a start token in front, and a context that running text is longer than.
    *(("info", name, 0) for name in TASKS),
])
def test_every_request_equals_the_harness(
    model: str, name: str, shots: int, folder: str, request: pytest.FixtureRequest,
) -> None:
    info: ModelInfo = request.getfixturevalue(model)
    options = replace(PLAIN, shots=shots)
    check_equal(ours(info, folder, name, options), theirs(info.path, folder, name, options), name)


@pytest.mark.parametrize("name", ["local_choice", "local_writing", "local_rolling"])
def test_under_an_ablation_it_equals_the_exported_model(name: str, folder: str, opt: ModelInfo,
                                                       tmp_path: Path) -> None:
    ablation = Ablation.of(Component(layer, "mlp_hidden", index)
                           for layer in (0, 1) for index in range(0, 60, 3))
    export(opt, ablation, tmp_path / "model")
    found = ours(opt, folder, name, ablation=ablation)
    check_equal(found, theirs(str(tmp_path / "model"), folder, name), name)
    assert [row.responses for row in found] != [row.responses for row in ours(opt, folder, name)]


@pytest.fixture(scope="module")
def chat(opt: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    """The tiny OPT with a chat template."""
    import shutil

    path = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(opt.path, path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    return describe(str(path))


@pytest.mark.parametrize("name", ["local_choice", "local_writing"])
@pytest.mark.parametrize("multiturn", [False, True])
def test_chats_equal_the_harness(name: str, multiturn: bool, folder: str, chat: ModelInfo) -> None:
    options = AskingOptions(2, 7, 3, True, multiturn, "Be brief.")
    found = ours(chat, folder, name, options)
    check_equal(found, theirs(chat.path, folder, name, options), name)
    assert {row.example for row in found} - {None} == {0, 1, 2}


@pytest.mark.vllm
def test_vllm_answers_as_the_harness(info: ModelInfo, folder: str) -> None:
    engine = start_here("vllm", info)
    for name in set(TASKS) - {"local_rolling"}:  # whose windows fill the context
        check_equal(ours(info, folder, name, engine=engine), theirs(info.path, folder, name), name)
    engine.close()
