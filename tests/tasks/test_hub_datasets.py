"""Data sets from the hub: the real client against a small hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hub_server import COMMIT, OWNER, serving

from prunelib.tasks import DatasetSpec, build_task

DATA = Path(__file__).parent.parent / "data"
#: The client reads its settings when it is imported, so it gets a process of its own.
_FETCH = """
import json, sys
from prunelib.errors import UserError
from prunelib.tasks import DatasetSpec, build_task, pinned
for fields in json.load(sys.stdin):
    try:
        spec = pinned(DatasetSpec.model_validate(fields))
        print(json.dumps([spec.revision, build_task(spec).digest]))
    except UserError as error:
        print(json.dumps(str(error)))
"""


def fetch(specs: list[dict[str, Any]], home: Path, **environment: str) -> list[Any]:
    found = subprocess.run([sys.executable, "-c", _FETCH], input=json.dumps(specs), text=True,
                           capture_output=True, check=True,
                           env=os.environ | {"HF_HOME": str(home)} | environment)
    return [json.loads(line) for line in found.stdout.splitlines()]


def local(name: str, folder: str) -> str:
    path = str(DATA / folder)
    return build_task(DatasetSpec.model_validate({"name": name, "path": path})).digest


def test_a_data_set_of_the_hub_is_pinned_fetched_and_the_same_as_its_files(
    tmp_path: Path,
) -> None:
    with serving(DATA) as (address, asked):
        online = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
        specs = [{"name": "xnli_en", "path": f"{OWNER}/xnli"},
                 {"name": "sst2", "path": f"{OWNER}/sst2", "revision": "v1"},
                 {"name": "xcopa_sw", "path": f"{OWNER}/xcopa"}]
        expected = [[COMMIT, local("xnli_en", "xnli")], [COMMIT, local("sst2", "sst2")],
                    [COMMIT, local("xcopa_sw", "xcopa")]]
        assert fetch(specs, tmp_path, **online) == expected
        assert not any("/sw/train" in path or "/tr/" in path for path in asked), "too much fetched"
        one = {"name": "xnli_sw", "path": f"{OWNER}/xnli", "splits": {"report": "test"}}
        found, *refused = fetch([one, {"name": "sst2", "path": "gated/sst2"},
                                 {"name": "sst2", "path": "nobody/sst2"},
                                 {"name": "sst2", "path": f"{OWNER}/sst2", "revision": "v9"}],
                                tmp_path, **online)
        assert found[0] == COMMIT
        of_test, of_train = (any(f"xnli/resolve/{COMMIT}/sw/{split}" in path for path in asked)
                             for split in ("test", "train"))
        assert of_test and not of_train
    for message, reason in zip(refused, ("HF_TOKEN", "not on the hub", "no revision 'v9'"),
                               strict=True):
        assert reason in message and "\n" not in message
    # What was fetched once is there without the hub.
    *found, away = fetch([*specs, {"name": "mmlu", "path": f"{OWNER}/mmlu"}], tmp_path,
                         HF_HUB_OFFLINE="1")
    assert found == expected and "cannot be reached" in away
