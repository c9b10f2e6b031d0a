"""Options that a tokenizer cannot tell apart are found before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline.small import recipe

from prunelib.errors import UserError
from prunelib.models import ModelInfo
from prunelib.pipeline.driver import prepare


def asked(info: ModelInfo, folder: Path, *options: str, **evaluate: Any) -> Any:
    folder.mkdir()
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(
            json.dumps({"text": f"{split[0]} {i}", "label": i % len(options)}) for i in range(30)))
    task = {"name": "mine", "path": str(folder), "template": "{text} : {answer}",
            "answers": dict(enumerate(options)),
            "splits": {"attribute": "train", "search": "validation", "report": "test"}}
    return recipe(info, tasks=[task], attribution={"method": "weight", "proxy": "to_upper"},
                  evaluate={"tasks": ["mine"], "examples": 4, "scoring": "options"} | evaluate)


def test_an_option_that_begins_another(info: ModelInfo, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task 'mine': model .*option 'no' is the beginning of "
                                        r"option 'not sure'.*word the answers differently"):
        prepare(asked(info, tmp_path / "a", "yes", "no", "not sure"))
    prepare(asked(info, tmp_path / "b", "yes", "no", "perhaps"))
    prepare(asked(info, tmp_path / "c", "yes", "no", "not sure", scoring="greedy"))
