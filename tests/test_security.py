"""What SECURITY.md promises and no other test shows. See there for what is not promised."""

from __future__ import annotations

import ast
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pipeline.small import recipe
from tiny_llama import start_here

import prunelib
from prunelib.components import Component
from prunelib.errors import UserError
from prunelib.interventions.ablation import Ablation
from prunelib.models import ModelInfo, describe, load
from prunelib.results.query import open_results
from prunelib.results.storage.store import _path
from prunelib.tasks import TASKS, task_names

ROOT = Path(__file__).parents[1]
SOURCES = [f for folder in ("prunelib", "cluster", "jobs") for f in (ROOT / folder).rglob("*.py")]


def child(code: str, timeout: float = 120, **environment: str) -> str:
    """What a Python process of its own says, on both outputs. It must end well."""
    done = subprocess.run([sys.executable, "-c", code], text=True, timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"} | environment)
    assert done.returncode == 0, done.stdout
    return done.stdout


# Ray -------------------------------------------------------------------------------------------

LOCAL_RAY = """
import json, os, subprocess, sys
import psutil
for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED", "RAY_ADDRESS"):
    os.environ.pop(name, None)
from cluster.runtime import connect, disconnect
connect()
import ray
family = [psutil.Process(), *psutil.Process().children(recursive=True)]
open_to = {c.laddr.ip for p in family for c in p.net_connections() if c.status == "LISTEN"}
raylets = [p.environ() for p in family if p.name() == "raylet"]
secrets = [os.environ[name] for name in ("RAY_AUTH_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY")]
from pathlib import Path
logs = Path(ray._private.worker._global_node.get_session_dir_path()).rglob("*")
shown = [" ".join(p.cmdline()) for p in family if p.is_running()]
shown += [f.read_text(errors="replace") for f in logs if f.is_file()]
assert len(shown) > 10 and not any(s in text for s in secrets for text in shown)
print(json.dumps({"open_to": sorted(open_to), "raylets": raylets}))
ask = ("import sys; from ray._raylet import GcsClient; "
       "print(GcsClient(sys.argv[1]).internal_kv_keys(b''))")
for said, changes in ("as myself", {}), ("as a stranger", {"RAY_AUTH_TOKEN": "0" * 64}):
    done = subprocess.run([sys.executable, "-c", ask, ray.get_runtime_context().gcs_address],
                          env=os.environ | changes, text=True, capture_output=True, timeout=60)
    print(said, done.stdout, done.stderr)
disconnect()
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_a_local_ray_is_closed_to_strangers(tmp_path: Path) -> None:
    """Loopback alone, a token that is in no file, refused without it, telemetry off.

    No secret of the environment is in a command line or a log.
    """
    said = child(LOCAL_RAY, HOME=str(tmp_path), HF_TOKEN="hf_no1", AWS_SECRET_ACCESS_KEY="aws_no2")
    found = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    assert set(found["open_to"]) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, found["open_to"]
    raylet, = found["raylets"]
    assert raylet["RAY_AUTH_MODE"] == "token" and len(raylet["RAY_AUTH_TOKEN"]) == 64
    assert raylet["RAY_USAGE_STATS_ENABLED"] == "0"
    assert raylet["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert not list(tmp_path.rglob("auth_token"))
    answers = said.split("as a stranger")
    assert "ray_cluster_id" in answers[0] and "ray_cluster_id" not in answers[1]
    assert "AuthenticationError" in answers[1] and "AuthenticationError" not in answers[0]


def test_ray_with_a_token_of_the_user_uses_that_one(tmp_path: Path) -> None:
    """A cluster's token is never overwritten, nor is another one used instead."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    (tmp_path / ".ray" / "auth_token").chmod(0o600)
    said = child("import os\nos.environ.pop('RAY_AUTH_TOKEN', None)\n"
                 "from cluster.runtime import _give_token as give\ngive()\n"
                 "print('RAY_AUTH_TOKEN' in os.environ)", HOME=str(tmp_path))
    assert said.split() == ["False"]
    assert (tmp_path / ".ray" / "auth_token").read_text() == "secret"


# Engines ---------------------------------------------------------------------------------------


def plain(value: Any) -> bool:
    """Whether a value is made of nothing but numbers, strings, lists and dictionaries."""
    if type(value) in (list, tuple):
        return all(map(plain, value))
    if type(value) is dict:
        return all(map(plain, [*value, *value.values()]))
    return value is None or type(value) in (bool, int, float, str, bytes)


@pytest.mark.vllm
@pytest.mark.slow
def test_only_plain_data_goes_into_vllm(
    info: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the user's shell says otherwise. Nobody outside reaches its sockets."""
    from vllm import LLM

    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
    crossed: list[Any] = []
    original = LLM.collective_rpc

    def watched(self: LLM, method: Any, timeout: Any = None, args: tuple[Any, ...] = (),
                kwargs: dict[str, Any] | None = None) -> Any:
        replies = original(self, method, timeout, args, kwargs)
        crossed.append([method, args, kwargs or {}, replies])
        return replies

    monkeypatch.setattr(LLM, "collective_rpc", watched)
    engine = start_here("vllm", info)
    engine.switch(Ablation.of([Component(1, "mlp_hidden", 3)]))
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    open_to = {c.laddr.ip for p in family for c in p.net_connections() if c.status == "LISTEN"}
    engine.close()
    assert open_to <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    methods = {call[0] for call in crossed}
    assert methods == {"prunelib_install", "prunelib_switch", "prunelib_readback",
                       "prunelib_steer", "prunelib_steered"}
    assert all(plain(call) for call in crossed)
    assert os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] == "0"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"


# Files that others made ------------------------------------------------------------------------


class Trap:
    """Pickled, it leaves a file where it is read."""

    def __init__(self, seen: Path) -> None:
        self.seen = seen

    def __reduce__(self) -> Any:
        return Path.touch, (self.seen,)


def test_a_pickle_beside_the_weights_is_never_read(info: ModelInfo, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(info.path, tmp_path / "model"))
    seen = tmp_path / "seen"
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Trap(seen)))
    load(describe(str(folder)))
    assert not seen.exists()
    (folder / "model.safetensors").unlink()
    describe.cache_clear()
    with pytest.raises(UserError, match=r"no \.safetensors"):
        describe(str(folder))
    assert not seen.exists()
    pickle.loads((folder / "optimizer.pt").read_bytes())
    assert seen.exists(), "the trap itself does not work"


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with pytest.raises(UserError, match="is not for recipes"):
        prunelib.parse_recipe(f"name: !!python/object/apply:os.mkdir ['{seen}']\nmodels: [x]")
    assert not seen.exists()


#: What would run code from a file or a string, and who may: nobody.
FORBIDDEN = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "pickle.load", "pickle.loads",
             "torch.load", "joblib.load", "eval", "exec", "os.system", "os.popen", "marshal.loads"}


def test_nothing_here_runs_code_from_files_or_strings() -> None:
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in FORBIDDEN, f"{file}:{node.lineno}"
                assert not [k for k in node.keywords if k.arg == "shell"], f"{file}:{node.lineno}"


# Names -----------------------------------------------------------------------------------------

HOSTILE = ["../../x", "/etc/x", "..", ".", "a/b", "a\\b", "a\0b", "a\nb", "~", "-", " ", "é", "x\n",
           "x" * 5000]


def hostile(test: Any) -> Any:
    for name in HOSTILE:
        test = example(name)(test)
    return given(st.text(min_size=1))(test)


@hostile
def test_no_run_name_is_more_than_a_word(name: str) -> None:
    text = json.dumps({"name": name, "models": ["reference/llama"]})
    try:
        run_id = prunelib.parse_recipe(text).run_id
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*-[0-9a-f]{8}", run_id, re.ASCII)


@hostile
def test_no_unit_leaves_the_results(name: str) -> None:
    try:
        path = _path("predictions", name)
    except ValueError:
        return
    assert path.split("/") == ["predictions", f"{name}.parquet"]


@hostile
def test_no_task_is_taken_for_a_path(name: str) -> None:
    text = json.dumps({"name": "x", "models": ["reference/llama"], "evaluate": {"tasks": [name]}})
    try:
        tasks = prunelib.parse_recipe(text).evaluate.tasks
    except UserError:
        assert name not in task_names("all")
    else:
        assert set(tasks) <= set(TASKS)


@pytest.mark.slow
def test_a_hostile_recipe_writes_into_its_results_alone(info: ModelInfo, tmp_path: Path) -> None:
    """The longest name of a run and the strangest name of a model folder."""
    model = tmp_path / "in" / "..'; drop $(touch x) \n%2f<b>"
    shutil.copytree(info.path, model)
    before = {f for f in tmp_path.rglob("*") if "out" not in f.parts}
    report = prunelib.run(recipe(info, models=[str(model)], name="n" * 200), tmp_path / "out")
    assert not report.failed
    assert {f for f in tmp_path.rglob("*") if not f.is_relative_to(tmp_path / "out")} == before
    assert not Path("x").exists()


# Logs ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_prompt_is_in_the_logs(
    info: ModelInfo, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A whole run with everything that is logged, from INFO up, and all that is printed."""
    results = tmp_path / "r"
    with caplog.at_level(logging.INFO):
        logging.getLogger("prunelib.probe").info("a line of a log")
        print("a line that is printed")
        prunelib.run(recipe(info), results)
    said = caplog.text + "".join(capfd.readouterr())
    assert "a line of a log" in said and "a line that is printed" in said
    rows = open_results(results).execute(
        "select query, gold, prediction, demonstrations, answers from predictions").fetchall()
    shown = {word for query, gold, prediction, inputs, answers in rows
             for word in (query, gold, prediction, *inputs, *answers) if len(word) > 3}
    assert len(shown) > 50
    assert not [word for word in shown if re.search(rf"\b{re.escape(word)}\b", said)]


# The page --------------------------------------------------------------------------------------


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) >= 10
    for file, test in named:
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
    promises = re.split(r"^- ", page.split("## Promised")[1].split("## ")[0], flags=re.M)[1:]
    assert all("`tests/" in promise for promise in promises)
