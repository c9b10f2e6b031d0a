"""``prunelib validate`` as a user types it: checkpoints, engines, the recipes that ship."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import opt_data
import pytest
import yaml
from command_line import DATA, GOOD, call
from pretrained import fetched

from jobs import cli
from prunelib.models import ModelInfo, describe
from prunelib.tasks import KNOWN
from prunelib.tasks.templates import template_columns


@pytest.mark.parametrize(("name", "content", "message"), [
    ("config.json", "[]", "no readable config.json"),
    ("config.json", {"num_hidden_layers": "four"}, "cannot read its config.json"),
    ("config.json", {"num_hidden_layers": 0}, "has no layers"),
    ("config.json", {"num_hidden_layers": 5}, "incomplete"),
    ("tokenizer.json", None, "no tokenizer"),
    ("tokenizer.json", "[]", "no readable tokenizer"),
    ("model.safetensors", "", "not a whole .safetensors file"),
])
def test_a_bad_checkpoint_ends_in_one_line_and_exit_code_2(
    name: str, content: str | dict[str, object] | None, message: str, info: ModelInfo, good: Path,
    tmp_path: Path, capfd: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(info.path, tmp_path / "model"))
    if content is None:
        (folder / name).unlink()
    elif isinstance(content, dict):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | content))
    else:
        (folder / name).write_text(content)
    good.write_text(GOOD.format(model=folder))
    for command in (["validate", good], ["run", good, "--results", tmp_path / "r", "--inline"]):
        assert call(*command) == 2
        said = capfd.readouterr().err
        assert message in said and said.count("\n") == 1 and "Traceback" not in said
    assert not (tmp_path / "r").exists()


def test_engine_vllm_is_refused_before_any_work_where_it_cannot_run(
    families: Callable[[str], ModelInfo], info: ModelInfo, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:
    """What vLLM runs nowhere, everywhere; what it cannot run here, where the recipe runs."""
    path = tmp_path / "recipe.yaml"

    def ends(command: str, model: ModelInfo, *, installed: bool) -> tuple[int, str]:
        spec = importlib.util.find_spec("json") if installed else None
        monkeypatch.setattr("prunelib.engines.registry.importlib.util.find_spec", lambda _: spec)
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        path.write_text(GOOD.format(model=model.path).replace("transformers", "vllm"))
        options = ["--results", tmp_path / "r", "--inline"] if command == "run" else []
        capfd.readouterr()
        code = call(command, path, *options)
        monkeypatch.undo()
        return code, capfd.readouterr().err

    for name in ("bloom", "gpt_neox"):
        for installed in (True, False):
            code, said = ends("validate", families(name), installed=installed)
            assert code == 2 and "engine 'vllm' cannot run" in said and said.count("\n") == 1
    mamba = families("mamba")
    code, said = ends("validate", mamba, installed=True)
    assert code == 2 and "no CPU kernels" in said
    assert ends("validate", mamba, installed=False)[0] == 0  # it is for another machine
    assert ends("validate", info, installed=False)[0] == 0
    code, said = ends("run", info, installed=False)
    assert code == 2 and "vllm is not installed" in said
    assert not (tmp_path / "r").exists()


RECIPES = sorted((Path(cli.__file__).parent / "recipes").glob("*.yaml"))


def made_up(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same data set with rows that have the columns its template names, and its labels."""
    spec = KNOWN.get(spec["name"], {}) | spec
    columns = [c for c in template_columns(spec["template"]) if c not in ("choices", "endings")]
    lists = {"endings": list("abcd")} if "endings[" in spec["template"] else {}
    lists |= {"choices": {"text": list("abcd")}} if "choices[text]" in spec["template"] else {}
    labels = list(spec["answers"])
    if len({type(label) for label in labels}) > 1:  # in a file they are all strings
        labels = list(map(str, labels))
    for split in set(spec["splits"].values()):
        rows = [dict.fromkeys(columns, f"text {i}") | lists | {spec.get("label", "label"): label}
                for i, label in enumerate(labels * 9)]
        place = folder / spec["name"] / spec["config"]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {k: v for k, v in spec.items() if k != "revision"} | {"path": str(place.parent)}


def opt_folder(name: str, folder: Path) -> str:
    """One of the data sets of the OPT-66B paper, with enough rows for every split."""
    opt_data.write(name, folder / name, copies=12)
    return str(folder / name)


def talking(folder: Path) -> str:
    """A shipped model with a chat template."""
    made = shutil.copytree(describe("reference/llama").path, folder / "talking")
    (Path(made) / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}")
    return str(made)


@pytest.mark.parametrize("path", [
    path if "smollm2" not in path.stem else pytest.param(path, marks=fetched("smollm2"))
    for path in RECIPES], ids=lambda path: path.stem)
def test_the_recipes_are_fine(
    path: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Those for hub models are read with small data sets of the same layouts, and one model."""
    content = yaml.safe_load(path.read_text())
    if "reference/" not in str(content["models"]):
        data = DATA
        content["models"] = ["reference/llama"]
        if content.get("format") == "chat":
            content["models"] = [talking(tmp_path)]
        content["tasks"] = [
            made_up(spec, tmp_path) if isinstance(spec, dict) and "in_context_heads" not in content
            else {"name": spec["name"], "path": str(data / "sst2"), "template": "{text} : {answer}",
                  "answers": {"0": "negative", "1": "positive"}} if isinstance(spec, dict) else
            {"name": spec, "path": opt_folder(spec, tmp_path)} if spec in opt_data.TASKS else
            {"name": spec, "path": str(data / spec.split("_")[0]).replace("balanced", spec)}
            | ({"config": "sw"} if "xcopa" in spec else {}) for spec in content["tasks"]
        ]
        if "in_context_heads" in content:
            content["in_context_heads"] |= {"each": 1, "orders": 2}
            content |= {"attribution": [], "search": {}, "evaluate": {}}
        attributions = content.get("attribution", [])
        for part in attributions if isinstance(attributions, list) else [attributions]:
            part["prompts"] = 1
        content["evaluate"]["examples"] = 1
        if "task_vectors" in content["evaluate"]:
            content["evaluate"]["task_vectors"] = {"examples": 1, "shots": 1}
        if "search" in content:
            content["search"]["examples"] = 1
        if "steering" in content:
            # Some of the small data sets have one row.
            content["steering"] |= {"prompts": 2, "proxy": "sst2"}
        if "importance" in content:
            content["importance"] |= {"prompts": 1, "examples": 1}
    (tmp_path / path.name).write_text(yaml.safe_dump(content))
    assert call("validate", tmp_path / path.name) == 0
    assert f"Run {content['name']}-" in capfd.readouterr().out
