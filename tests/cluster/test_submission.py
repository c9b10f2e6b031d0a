"""Jobs on a real head with a token: submitting, attaching, following, stopping, being refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from command_line import call
from pipeline.small import recipe as small_recipe
from ray_head import TOKEN, Head, ray_head, status
from safetensors.torch import save_file

from cluster.runtime import connect
from cluster.submission import Jobs, check_models, check_upload, collect_upload, taken_along
from prunelib.errors import UserError
from prunelib.interventions.ablation import Ablation
from prunelib.interventions.files import read_file, write_file
from prunelib.models import ModelInfo
from prunelib.pipeline.progress import read_progress
from prunelib.recipe.load import load_recipe, parse_recipe
from prunelib.recipe.recipe import Recipe
from prunelib.results.storage.store import Store

#: The names of Ray's own settings that a test may change in this process.
_SETTINGS = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN",
             "RAY_AUTH_TOKEN_PATH")


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        yield started


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user with a home folder of their own and the head's token in the environment."""
    for name in _SETTINGS:
        monkeypatch.setenv(name, "")  # so that everything is as before in the end
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def write(recipe: Recipe, path: Path) -> Path:
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True)))
    return path


@pytest.mark.cluster
@pytest.mark.slow
def test_a_job_is_submitted_attached_to_stopped_and_resumed(
    head: Head, info: ModelInfo, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = small_recipe(info, evaluate={
        "tasks": ["to_upper", "en_fr"], "examples": 30, "shots": [1, 2, 3]})
    path = write(recipe, tmp_path / "my \"recipe\" $(touch hacked).yaml")
    results = str(tmp_path / "it's `touch hacked`\n$(touch hacked); r")
    at = ["--address", head.dashboard]
    found = []

    def submit() -> None:
        found.append(Jobs(head.dashboard).submit(path, results))

    threads = [threading.Thread(target=submit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (name,) = {job.id for job, _ in found}
    assert [new for _, new in found].count(True) == 1
    assert call("submit", path, "--results", results, *at) == 0
    said = capfd.readouterr().out
    assert f"Attached to the running job {name}" in said
    assert f"prunelib logs {name} --follow --address {head.dashboard}" in said

    deadline = time.monotonic() + 90
    while not list(Path(results, "predictions").glob("*.parquet")):
        assert time.monotonic() < deadline, Jobs(head.dashboard).logs(name)
        time.sleep(0.1)
    assert call("stop", name, *at) == 0
    assert f"Stopped {name}" in capfd.readouterr().out
    assert Jobs(head.dashboard).get(name).state == "STOPPED"
    assert read_progress(results).status == "interrupted"
    assert call("stop", name, *at) == 0
    assert "over already: stopped" in capfd.readouterr().out

    assert call("submit", path, "--results", results, *at) == 0
    assert f"Submitted {name}-2" in capfd.readouterr().out
    assert call("logs", f"{name}-2", "--follow", *at) == 0
    said, ended = capfd.readouterr()
    assert re.search(r"evaluate: \d+ of ~?\d+ units", said) and f"{name}-2: succeeded" in ended
    assert ", 0 were there already" not in said
    assert "\r" not in said and "\x1b" not in said  # no bars, no colours
    queries = Store.open(results).read("predictions")["query"].to_pylist()
    assert not any(f" {query} " in said for query in queries if len(query) > 4)
    (run,) = Store.open(results).read("runs").to_pylist()
    assert "+" in run["code_version"] and " " not in run["code_version"]  # that of the upload
    assert call("status", f"{name}-2", *at) == 0
    said = capfd.readouterr().out
    assert f"{name}-2: succeeded" in said and re.search(r"\b(\d+) of \1\b", said)
    assert {place.name for place in tmp_path.iterdir()} - {"home"} == {
        path.name, Path(results).name}


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.slow
def test_a_job_has_the_objective_of_the_folder_it_was_submitted_from(
    head: Head, info: ModelInfo, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "my_own.py").write_text(
        "def largest(logits, prompts): return logits.max(-1).values\n")
    path = write(small_recipe(info, attribution={"objective": "my_own:largest", "prompts": 4,
                                                 "shots": 2, "max_nodes": 4}), folder / "r.yaml")
    at = ["--address", head.dashboard]
    assert call("submit", path, "--results", folder / "r", *at) == 0
    name = capfd.readouterr().out.split()[1]
    assert call("logs", name, "--follow", *at) == 0
    said, ended = capfd.readouterr()
    assert f"{name}: succeeded" in ended, said


@pytest.mark.cluster
@pytest.mark.slow
def test_without_the_token_nobody_gets_in(
    head: Head, user: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (status(head.dashboard), status(head.dashboard, "no"), status(head.dashboard, TOKEN)
            ) == (401, 403, 200)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    started = time.monotonic()
    assert call("logs", "j", "--address", head.dashboard) == 2
    with pytest.raises(UserError, match="has another Ray token: copy its"):
        connect(head.gcs)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    assert call("logs", "j", "--address", head.dashboard) == 2
    (user / ".ray" / "auth_token").unlink()
    with pytest.raises(UserError, match="no Ray token for"):
        connect(head.gcs)
    assert time.monotonic() - started < 15  # Ray itself tries for 20 s
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2
    assert "has another Ray token" in said[0] and "there was no Ray token, so" in said[1]


@pytest.mark.cluster
@pytest.mark.slow
def test_a_saved_token_is_used_although_ray_is_imported_before_it_is_asked_for(
    head: Head, user: Path
) -> None:
    (user / ".ray").mkdir(parents=True)
    (user / ".ray" / "auth_token").write_text(TOKEN)
    code = ("import sys, ray; from cluster.runtime import connect; connect(sys.argv[1]); "
            "print(ray.cluster_resources()['CPU'])")
    env = {k: v for k, v in os.environ.items() if k != "RAY_AUTH_TOKEN"}
    done = subprocess.run([sys.executable, "-c", code, head.gcs], env=env, capture_output=True,
                          text=True, check=True)
    assert done.stdout.split() == ["2.0"]


@pytest.mark.cluster
@pytest.mark.slow
def test_what_a_user_can_fix_is_one_line(
    head: Head, info: ModelInfo, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, at = write(small_recipe(info), tmp_path / "r.yaml"), ["--address", head.dashboard]
    for arguments, message in (
        (["logs", "nojob", *at], "has no job 'nojob'"),
        (["stop", "nojob", *at], "has no job 'nojob'"),
        (["status", "nojob", *at], "has no job 'nojob'"),
        (["status"], "give --results, or a job"),
        (["status", "--results", tmp_path / "none"], "is not a folder"),
        (["logs", "j", "--address", "http://127.0.0.1:1"], "Connection refused"),
        (["logs", "j", "--address", head.gcs], "is no address of a dashboard"),
        (["logs", "j", "--address", f"http://{head.gcs}"], "has to be the dashboard's address"),
        (["submit", path, "--results", "r", *at], "'r' is relative"),
        (["submit", tmp_path / "no.yaml", "--results", "/r", *at], "cannot read recipe"),
    ):
        assert call(*arguments) == 2, arguments
        said = capfd.readouterr().err
        assert message in said and said.count("\n") == 1, said


def test_models_are_checked_where_they_are(info: ModelInfo, monkeypatch: pytest.MonkeyPatch
                                           ) -> None:
    there = ["/on/the/cluster/only", "some-org/on-the-hub"]
    assert check_models(small_recipe(info, models=[info.path, *there])) == there
    with pytest.raises(UserError, match="layers 0 to 1, not 7"):
        check_models(small_recipe(info, search={"layers": [7], "examples": 4}))
    monkeypatch.chdir(Path(info.path).parent)
    with pytest.raises(UserError, match="is a relative path"):
        check_models(small_recipe(info, models=[Path(info.path).name]))


def test_engines_of_the_cluster_are_not_judged_from_here(
    families: Callable[[str], ModelInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM here, without a GPU, says nothing of vLLM there; what it runs nowhere is refused."""
    monkeypatch.setattr("prunelib.engines.registry.importlib.util.find_spec", lambda _: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert check_models(small_recipe(families("mamba"), engine="vllm")) == []
    with pytest.raises(UserError, match="engine 'vllm' cannot run"):
        check_models(small_recipe(families("bloom"), engine="vllm"))


def test_an_upload_is_the_source_and_the_recipe(tmp_path: Path) -> None:
    (recipe := tmp_path / "mine.yaml").write_text("name: x")
    (folder := tmp_path / "upload").mkdir()
    collect_upload(recipe, folder)
    assert {p.name for p in folder.iterdir()} == {
        "recipe.yaml", "prunelib", "cluster", "jobs", "prunelib-0.dist-info"}
    assert (folder / "prunelib" / "results" / "storage" / "store.py").is_file()
    assert list(folder.glob("prunelib/reference/models/*/*.safetensors"))
    assert not [p for p in folder.rglob("*") if p.name.startswith((".", "__pycache__"))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, whose modules this process forgets in the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def test_modules_of_the_current_folder_are_uploaded_with_their_packages(
    folder: Path, info: ModelInfo
) -> None:
    for name in ("my_file.py", "my_package/sub/inner.py", "my_package/data.txt",
                 "my_package/__pycache__/x.pyc", "not_mine.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("def f(logits, prompts): return logits[:, 0]\n")
    (folder / "my_package" / "sub" / "__init__.py").touch()
    installed = "prunelib.attribution.objectives.max_logit:max_logit"
    recipe = small_recipe(info, attribution=[
        {"name": str(i), "objective": name} for i, name in enumerate(
            ["my_file:f", "my_package.sub.inner:f", installed, "max_logit"])])
    own = taken_along(recipe)
    assert own == {"my_file.py": folder / "my_file.py", "my_package": folder / "my_package"}
    (upload := folder / "upload").mkdir()
    collect_upload(write(recipe, folder / "r.yaml"), upload, own)
    assert {p.name for p in upload.iterdir()} == {
        "recipe.yaml", "prunelib", "cluster", "jobs", "prunelib-0.dist-info", *own}
    assert (upload / "my_file.py").read_text() == (folder / "my_file.py").read_text()
    assert {p.name for p in (upload / "my_package").rglob("*")} == {
        "sub", "inner.py", "__init__.py", "data.txt"}
    for name in ("my_file.py", "my_package/data.txt"):
        with (folder / name).open("ab") as handle:
            os.truncate(handle.fileno(), 200_000_000)
        with pytest.raises(UserError, match=rf"{Path(name).name} \(200 MB\)"):
            check_upload(folder / "r.yaml", own)
        (folder / name).write_text("")
    with pytest.raises(UserError, match="'my_file:g' cannot be imported"):
        taken_along(small_recipe(info, attribution={"objective": "my_file:g"}))


def test_files_of_the_current_folder_are_uploaded_where_the_recipe_has_them(
    folder: Path, info: ModelInfo
) -> None:
    for name, text in (("lists/off.csv", "layer,site,index\n0,mlp_hidden,1\n"),
                       ("pairs/one/a.json", json.dumps({c: c.upper() for c in "abcdefghijkl"})),
                       ("pairs/not_mine.txt", ""), ("prose.txt", "words and words. " * 99)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    save_file({"v": torch.ones(info.stream)}, folder / "v.safetensors")
    for split in ("train", "validation", "test"):
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / f"{split}.jsonl").write_text('{"q": "a", "label": "b"}\n')
    off = Ablation.of_layer(0, [3], "mlp_hidden")
    write_file(info, off, folder / "off.json")
    content = {
        "name": "files", "models": [info.path], "engine": "transformers",
        "tasks": [{"name": "mine", "pairs": "pairs"},
                  {"name": "set", "path": "./data", "template": "{q} {answer}"}],
        "interventions": [{"name": "listed", "file": "lists/off.csv"},
                          {"name": "exported", "file": "./off.json"},
                          {"name": "vector", "vector": {"file": "v.safetensors", "layer": 0}},
                          {"name": "there", "file": str(folder / "off.json")}],
        "evaluate": {"tasks": ["mine"], "shots": [0], "examples": 2,
                     "capability": {"text": "prose.txt", "examples": 2}}}
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(content))
    own = taken_along(load_recipe(path))
    assert own == {name: folder / name for name in (
        "lists/off.csv", "off.json", "v.safetensors", "pairs/one/a.json", "data", "prose.txt")}
    (upload := folder / "upload").mkdir()
    collect_upload(path, upload, own)
    assert {str(p.relative_to(upload / "data")) for p in (upload / "data").iterdir()} == {
        "train.jsonl", "validation.jsonl", "test.jsonl"}
    assert not (upload / "pairs" / "not_mine.txt").exists()
    os.chdir(upload)  # as a job is
    assert load_recipe("recipe.yaml").run_id == parse_recipe(path.read_text()).run_id
    assert read_file("off.json") == off


@pytest.mark.parametrize("entry", [
    {"name": "up", "file": "../off.csv"}, {"name": "run", "results": "r", "digest": "0123"}])
def test_what_a_job_cannot_take_along_is_refused(
    folder: Path, info: ModelInfo, entry: dict[str, str]
) -> None:
    recipe = small_recipe(info, interventions=[entry])
    with pytest.raises(UserError, match=r"interventions.*: '(\.\./off.csv|r)' is a relative path"):
        taken_along(recipe)
    absolute = {key: str(folder / value) if key in ("file", "results") else value
                for key, value in entry.items()}
    assert taken_along(small_recipe(info, interventions=[absolute])) == {}


def test_an_upload_that_is_too_large_is_refused_by_name(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as handle:
        os.truncate(handle.fileno(), 200_000_000)
    with pytest.raises(UserError, match=r"a job would upload 2\d\d MB.*huge.yaml \(200 MB\)"):
        check_upload(tmp_path / "huge.yaml")
