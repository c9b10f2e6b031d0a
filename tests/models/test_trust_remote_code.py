"""Code that a checkpoint brings runs only where the recipe, or the command line, says so."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from command_line import call
from pipeline.small import recipe
from tiny_llama import start_here
from transformers import AutoModelForCausalLM, AutoTokenizer

import prunelib
from prunelib.engines.base import Prompt
from prunelib.errors import UserError
from prunelib.interventions.ablation import Ablation
from prunelib.interventions.export import export
from prunelib.models import ModelInfo, describe, load
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.driver import prepare
from prunelib.recipe.recipe import Recipe

#: Every one of the three files leaves a line where it was imported or used.
CODE = """
from pathlib import Path
from transformers import {base}

Path({seen!r}).open("a").write("{name}\\n")

class {name}({base}):
    {body}
"""
OWN = {
    "OwnConfig": ("LlamaConfig", "pass"),
    "OwnModel": ("LlamaForCausalLM", "from .ownconfig import OwnConfig as config_class"),
    "OwnTokenizer": ("PreTrainedTokenizerFast", "pass"),
}


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def forget() -> None:
    """Let code that was imported before, perhaps from another test's folder, be imported again."""
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]
    describe.cache_clear()
    load_tokenizer.cache_clear()


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which code of the checkpoint writes; what transformers copies stays here too."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE",
                        str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    forget()
    return tmp_path / "seen"


@pytest.fixture
def folder(info: ModelInfo, tmp_path: Path, seen: Path) -> Path:
    """The tiny Llama as a checkpoint with code for its configuration, model and tokenizer."""
    # transformers names modules after the folder: each test has its own.
    folder = Path(shutil.copytree(info.path, tmp_path / f"with_code_{tmp_path.name}"))
    for name, (base, body) in OWN.items():
        code = CODE.format(base=base, name=name, body=body, seen=str(seen))
        (folder / f"{name.lower()}.py").write_text(code)
    edit(folder / "config.json", auto_map={"AutoConfig": "ownconfig.OwnConfig",
                                           "AutoModelForCausalLM": "ownmodel.OwnModel"})
    edit(folder / "tokenizer_config.json",
         auto_map={"AutoTokenizer": [None, "owntokenizer.OwnTokenizer"]})
    return folder


def answer(kind: str, info: ModelInfo) -> tuple[int, ...]:
    engine = start_here(kind, info)
    completion, = engine.generate([Prompt((1, 9, 10), 4)])
    engine.close()
    return completion.token_ids


def test_code_does_not_run_unless_asked(folder: Path, seen: Path) -> None:
    answer("transformers", describe(str(folder)))
    assert not seen.exists()
    load(describe(str(folder), trust_remote_code=True))
    assert set(seen.read_text().split()) == {"OwnConfig", "OwnModel", "OwnTokenizer"}


@pytest.mark.vllm
@pytest.mark.slow
def test_the_same_in_vllm(folder: Path, seen: Path) -> None:
    silent = answer("vllm", describe(str(folder)))
    assert not seen.exists()
    assert answer("vllm", describe(str(folder), trust_remote_code=True)) == silent
    assert {"OwnConfig", "OwnTokenizer"} <= set(seen.read_text().split())


def test_trusted_code_is_part_of_the_identity(info: ModelInfo, folder: Path) -> None:
    without = describe(str(folder))
    trusted = describe(str(folder), trust_remote_code=True)
    assert without.weights_digest != trusted.weights_digest
    with (folder / "ownmodel.py").open("a") as file:
        file.write("# another version\n")
    describe.cache_clear()
    assert describe(str(folder)).weights_digest == without.weights_digest
    assert describe(str(folder), trust_remote_code=True).weights_digest != trusted.weights_digest


def test_code_from_another_repository_is_refused(folder: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoConfig": "other/repo--ownconfig.OwnConfig"})
    with pytest.raises(UserError, match="takes code from another repository"):
        describe(str(folder), trust_remote_code=True)


def test_a_recipe_opts_in_and_says_so(folder: Path) -> None:
    recipe = Recipe.model_validate(
        {"name": "own", "models": [{"id": str(folder), "trust_remote_code": True}]})
    assert recipe.model_dump()["models"][0]["trust_remote_code"] is True
    assert [info.trust_remote_code for info in prepare(recipe)] == [True]


def test_off_by_default(folder: Path) -> None:
    recipe = Recipe.model_validate({"name": "own", "models": [str(folder)]})
    assert recipe.models[0].trust_remote_code is False
    assert [info.trust_remote_code for info in prepare(recipe)] == [False]


#: A run of a few seconds.
SMALL = {"search": {"rates": [0.5], "layers": [0], "examples": 2, "shots": 1},
         "attribution": {"prompts": 2, "shots": 1, "max_nodes": 4},
         "evaluate": {"tasks": ["to_upper"], "shots": [1], "examples": 2}}


def test_results_that_trusted_code_do_not_let_it_run(
    info: ModelInfo, folder: Path, seen: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is trusted stands on the command line; a folder of results may be a stranger's."""
    results, out = tmp_path / "results", tmp_path / "pruned"
    model = {"id": str(folder), "trust_remote_code": True}
    assert prunelib.run(recipe(info, models=[model], **SMALL), results).complete
    [(chosen,)] = prunelib.open_results(results).execute(
        "select intervention from interventions where role = 'chosen'").fetchall()
    stored = ["--intervention", chosen, "--results", results]
    for command in (["export", folder, "--out", out], ["explain", folder, "--prompt", "ab->"]):
        seen.unlink()
        forget()
        assert call(*command, *stored) == 2
        assert "only --trust-remote-code lets that run" in capfd.readouterr().err
        assert not seen.exists() and not out.exists()
        assert call(*command, *stored, "--trust-remote-code") == 0
        assert {"OwnConfig", "OwnModel"} <= set(seen.read_text().split())
        shutil.rmtree(out, ignore_errors=True)


def test_an_exported_checkpoint_has_its_code(folder: Path, seen: Path, tmp_path: Path) -> None:
    out = export(describe(str(folder), trust_remote_code=True), Ablation.of_layer(0, [1]),
                 tmp_path / f"pruned_{tmp_path.name}")
    seen.unlink()
    forget()
    AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    AutoTokenizer.from_pretrained(out, trust_remote_code=True)
    assert set(seen.read_text().split()) == {"OwnConfig", "OwnModel", "OwnTokenizer"}

